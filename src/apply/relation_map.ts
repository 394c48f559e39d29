/**
 * How a peer's relation falls onto the local table of the same schema and name: columns by name, and the columns
 * by which a row is found again. Pure: both sides come in as values.
 */
import { isLastUpdateWins, type TablePolicy } from "../conflict_policy.ts";
import { MmliteError } from "../errors.ts";
import type { LocalColumn, LocalExclusion, LocalTable, LocalUniqueIndex } from "../pg/relation.ts";
import type { Relation } from "../pgoutput/message.ts";
import { isSentInBinary } from "../pgoutput/binary_text.ts";
import { quote } from "./sql_text.ts";

/** A column that both sides have. */
export interface MappedColumn {
  /** Its place in the peer's tuples. */
  readonly index: number;
  readonly name: string;
  readonly typeOid: number;
  /** False where the local server computes it. */
  readonly written: boolean;
  readonly identityAlways: boolean;
  /** See `LocalColumn.typeName`. */
  readonly typeName: string;
  /** See `LocalColumn.equality`. */
  readonly equality: string | null;
}

/** The columns by which a row is found. */
export interface MatchKey {
  /** In the order of the local table, or of the root that it is a partition of, in which the hash of a key takes them. */
  readonly columns: readonly MappedColumn[];
  /** Whether an immediate unique index covers exactly these columns, so that ON CONFLICT can decide by it. */
  readonly arbiter: boolean;
  /** Whether a deferrable constraint covers them: within a transaction several rows may have the same key. */
  readonly deferrable: boolean;
}

/** A column that this server computes. */
export interface GeneratedColumn {
  readonly name: string;
  /** See `LocalColumn.typeName`. */
  readonly typeName: string;
  /** What it is computed by, in SQL; null if that takes more than the other columns of the row. */
  readonly expression: string | null;
}

/** How conflicts of a relation are settled. */
export interface Settlement {
  readonly policy: TablePolicy;
  /** Whether this server keeps versions of rows. */
  readonly versioned: boolean;
  /** A condition in SQL on the row `t`: that it has no version, or one of the sender's own. */
  readonly isOwn: string;
}

/** A peer's relation on a local table. */
export interface MappedRelation {
  readonly schema: string;
  readonly name: string;
  /** `schema.name`, for people. */
  readonly label: string;
  /** What the hashes of its keys begin with: the label, of a partition that of its root. Below 13 a partition's rows
   * come under its own name, from other nodes under the root's. */
  readonly hashedAs: string;
  /** Every column of the peer's, in the order of its tuples. */
  readonly columns: readonly MappedColumn[];
  /** OIDs of the types of these columns on the peer: values that come in binary form are of them. */
  readonly sentTypes: readonly number[];
  /** Local columns that the peer does not have and that can be written. */
  readonly extraColumns: readonly string[];
  /** Columns that this server computes. */
  readonly generatedColumns: readonly GeneratedColumn[];
  /** What else than the key no two rows may have in common, as far as that can be told before a row is written. */
  readonly exclusions: readonly LocalExclusion[];
  /** Null where only the whole row tells rows apart. */
  readonly key: MatchKey | null;
  readonly partitioned: boolean;
  /** See `LocalTable.firesOnApply`. */
  readonly firesOnApply: boolean;
  /** Whether updates may come without values that they have left as they were: not where the old row comes too. */
  readonly sendsPart: boolean;
  /** Whether changes of many rows may be applied by one statement, and of many transactions in one: nothing here
   * sees the difference, and a row's key has one text on both sides, by which its version is noted. */
  readonly bySets: boolean;
  /** Whether sets take values in the binary form that they came in: it means the same here. */
  readonly bySetsInBinary: boolean;
  readonly settlement: Settlement;
}

/** Schemas that no peer may write to. */
const PROTECTED_SCHEMAS = new Set(["mmlite", "pg_catalog", "information_schema"]);
/** `pg_class.relkind` of what takes changes, and of what people may have put in its place. */
const TABLE = "r";
const PARTITIONED_TABLE = "p";
const OTHER_KINDS: Readonly<Record<string, string>> = {
  v: "a view",
  m: "a materialized view",
  f: "a foreign table",
  S: "a sequence",
  c: "a composite type",
  i: "an index",
};

/**
 * Types whose values have one text each, the same on every server: bool, bytea, name, int8, int2, int4, text, oid,
 * char(n), varchar, date, time, timestamp, timestamptz and uuid. A numeric has one per scale.
 */
const ONE_TEXT_TYPES = new Set([16, 17, 19, 20, 21, 23, 25, 26, 1042, 1043, 1082, 1083, 1114, 1184, 2950]);
const NUMERIC = 1700;

/** Throws a `refused` error for a relation of a schema that belongs to PostgreSQL or to mmlite. */
export function checkSchema(remote: Relation): void {
  if (!PROTECTED_SCHEMAS.has(remote.schema)) return;
  throw new MmliteError(
    "refused",
    `Cannot apply changes to "${remote.schema}.${remote.name}": schema "${remote.schema}" is not replicated`,
    { hint: "Take the table out of the peer's table patterns" },
  );
}

/** Maps a relation; throws a `schema_mismatch` that names the table and the column that do not fit. */
export function mapRelation(
  remote: Relation,
  local: LocalTable | undefined,
  settlement: Settlement,
): MappedRelation {
  checkSchema(remote);
  const label = `${remote.schema}.${remote.name}`;
  if (local === undefined) throw mismatch(label, "there is no such table here");
  if (local.kind !== TABLE && local.kind !== PARTITIONED_TABLE) {
    throw mismatch(label, `it is ${OTHER_KINDS[local.kind] ?? "no table"} here`);
  }
  const columns = mapColumns(remote, local, label);
  const names = new Set(remote.columns.map((column) => column.name));
  const chosen = chooseKey(remote, local, columns);
  const relation = {
    schema: remote.schema,
    name: remote.name,
    label,
    hashedAs: local.root === null ? label : `${local.root.schema}.${local.root.name}`,
    columns,
    sentTypes: remote.columns.map(({ typeOid }) => typeOid),
    extraColumns: local.columns.filter((c) => !names.has(c.name) && c.generated === null).map((c) => c.name),
    generatedColumns: generatedColumns(local),
    exclusions: local.exclusions.filter((one) => !isOfKey(one, chosen) && isTold(one, local)),
    key: chosen,
    partitioned: local.kind === PARTITIONED_TABLE,
    firesOnApply: local.firesOnApply,
    sendsPart: remote.replicaIdentity !== "full",
    settlement,
  };
  return {
    ...relation,
    bySets: canApplySets(relation, remote, local),
    bySetsInBinary: columns.every(({ index, typeOid }) =>
      typeOid === remote.columns[index].typeOid && isSentInBinary(typeOid)
    ),
  };
}

/** Whether it is the key alone: rows with the same one are the same row. */
function isOfKey({ parts, predicate, deferrable }: LocalExclusion, key: MatchKey | null): boolean {
  if (key === null || predicate !== null || deferrable || parts.length !== key.columns.length) return false;
  return parts.every(({ expression, operator }) =>
    operator.endsWith(".=)") &&
    key.columns.some(({ name }) => expression === name || expression === quote(name))
  );
}

/** Whether it can be looked for by values alone. */
function isTold({ parts, predicate }: LocalExclusion, { name }: LocalTable): boolean {
  return ![...parts.map(({ expression }) => expression), predicate ?? ""].some((one) => takesRow(one, name));
}

/** Whether an expression takes a row of the table as a whole, which nothing but such a row can stand for. */
function takesRow(expression: string, table: string): boolean {
  return expression.includes(`${table}.*`) || expression.includes(`${quote(table)}.*`);
}

function generatedColumns({ columns, name: table }: LocalTable): GeneratedColumn[] {
  return columns.flatMap(({ name, typeName, generated }) => {
    if (generated === null) return [];
    const isOfValues = !generated.includes("tableoid") && !takesRow(generated, table);
    return [{ name, typeName, expression: isOfValues ? generated : null }];
  });
}

function canApplySets(
  { columns, key, exclusions, settlement }: Omit<MappedRelation, "bySets" | "bySetsInBinary">,
  remote: Relation,
  local: LocalTable,
): boolean {
  if (local.firesOnApply || !isLastUpdateWins(settlement.policy)) return false;
  // Nothing would fail where two rows have the same.
  if (exclusions.some(({ deferrable }) => deferrable)) return false;
  const byName = new Map(local.columns.map((column) => [column.name, column]));
  const written = columns.filter((column) => column.written);
  if (written.length === 0 || written.some(({ name }) => !byName.get(name)!.castIsInput)) return false;
  // Without a key and the whole old row, nothing but inserts can come.
  if (key === null) return remote.replicaIdentity !== "full";
  if (!key.arbiter || written.some((column) => column.identityAlways && !key.columns.includes(column))) {
    return false;
  }
  return key.columns.every(({ name, index, typeOid, equality }) => {
    const { typeModifier, deterministic } = byName.get(name)!;
    const there = remote.columns[index];
    const same = typeOid === there.typeOid && typeModifier === there.typeModifier;
    const oneText = ONE_TEXT_TYPES.has(typeOid) || (typeOid === NUMERIC && typeModifier >= 0);
    return same && oneText && deterministic && equality !== null;
  });
}

function mapColumns(remote: Relation, local: LocalTable, label: string): MappedColumn[] {
  const byName = new Map<string, LocalColumn>(local.columns.map((column) => [column.name, column]));
  return remote.columns.map(({ name }, index) => {
    const column = byName.get(name);
    if (column === undefined) throw mismatch(label, `column "${name}" does not exist here`);
    const { typeOid, typeName, identityAlways, equality } = column;
    return { index, name, typeOid, typeName, written: column.generated === null, identityAlways, equality };
  });
}

/**
 * The peer's own identity where it is a key. With identity full (or none, where only inserts come) the local
 * primary key, else the local replica identity index, if the peer has all its columns.
 */
function chooseKey(remote: Relation, local: LocalTable, columns: readonly MappedColumn[]): MatchKey | null {
  const flagged = columns.filter((column) => remote.columns[column.index].key);
  const byIdentity = remote.replicaIdentity === "default" || remote.replicaIdentity === "index";
  const whole = flagged.length > 0 && !isPartOfKey(flagged, local);
  const chosen = byIdentity && whole ? flagged : localKey(local, columns);
  if (chosen === null) return null;
  const covering = coveringIndexes(local, chosen);
  const deferrable = covering.some((index) => !index.immediate);
  // ON CONFLICT takes every unique index over its columns and refuses if one of them is deferrable. Constraints
  // without overlaps it passes over.
  const arbiter = covering.some((index) => !index.exclusion) && !deferrable;
  const order = local.root?.columns ?? local.columns.map(({ name }) => name);
  const place = ({ name }: MappedColumn) => order.indexOf(name);
  return { columns: chosen.toSorted((a, b) => place(a) - place(b)), arbiter, deferrable };
}

/** Whether the rest of the key are generated columns, which the sender does not announce: part of it tells nothing. */
function isPartOfKey(flagged: readonly MappedColumn[], local: LocalTable): boolean {
  const names = new Set(flagged.map(({ name }) => name));
  const generated = new Set(
    local.columns.filter((column) => column.generated !== null).map(({ name }) => name),
  );
  return local.uniqueIndexes.some(({ primary, replicaIdentity, columns }) =>
    (primary || replicaIdentity) && columns.length > names.size &&
    columns.filter((name) => names.has(name)).length === names.size &&
    columns.every((name) => names.has(name) || generated.has(name))
  );
}

function localKey(local: LocalTable, columns: readonly MappedColumn[]): MappedColumn[] | null {
  const candidates = [
    local.uniqueIndexes.find((index) => index.primary),
    local.uniqueIndexes.find((index) => index.replicaIdentity),
  ];
  for (const index of candidates) {
    const found = index?.columns.map((name) => columns.find((column) => column.name === name));
    if (found?.every((column) => column !== undefined)) return found as MappedColumn[];
  }
  return null;
}

function coveringIndexes(local: LocalTable, columns: readonly MappedColumn[]): LocalUniqueIndex[] {
  const names = new Set(columns.map((column) => column.name));
  return local.uniqueIndexes.filter((index) =>
    index.columns.length === names.size && index.columns.every((name) => names.has(name))
  );
}

function mismatch(label: string, why: string): MmliteError {
  return new MmliteError("schema_mismatch", `Cannot apply changes to "${label}": ${why}`);
}
