/**
 * The conditions in SQL by which a statement settles its own conflicts. Pure text.
 *
 * A row that is here is compared with the change by version, a row that is missing is looked for among the deleted
 * ones, and what is decided is noted in the same transaction by functions of schema `mmlite`, which tell of it in a
 * notice. Conditions that note something stand in a CASE, which alone keeps the order in which PostgreSQL looks at them.
 */
import {
  type ConflictType,
  type Resolution,
  resolve,
  type Standing,
  type TablePolicy,
} from "../conflict_policy.ts";
import type { MappedColumn, MappedRelation, MatchKey } from "./relation_map.ts";
import {
  insertInto,
  isVersioned,
  keyTexts,
  keyTextsOf,
  literal,
  names,
  NO_COLUMNS,
  type Parameters,
  quote,
  rows,
  settable,
  touched,
  type TupleSide,
  type UpdateShape,
  type VersionPart,
  where,
} from "./sql_text.ts";

type ChangeName = "insert" | "update" | "delete";

/** Pairs that one call takes, which costs less than a sub-select: a function has 100 arguments at most. */
const JSON_PAIRS = 50;

/** Whether the row may be written at all: see {@link exclusionStatement}. Empty where nothing asks. */
export function notSkipped(relation: MappedRelation): string {
  if (!isVersioned(relation) || relation.exclusions.length === 0) return "";
  return "pg_catalog.current_setting('mmlite.skip', true) IS DISTINCT FROM 'on'";
}

/** A condition that is looked at only where the row may be written. */
export function guarded(relation: MappedRelation, condition: string): string {
  const guard = notSkipped(relation);
  return guard === "" ? condition : `CASE WHEN ${guard} THEN ${condition} ELSE false END`;
}

/** A change as conflicts with it are noted. */
export interface Settled {
  readonly change: ChangeName;
  /** Of which tuple the key is that it meets another row by. */
  readonly side: TupleSide;
  /** Of which tuple its row is; null where it has none. */
  readonly remote: TupleSide | null;
  readonly omitted?: ReadonlySet<number>;
  readonly long?: boolean;
  /** The row moves to another key. */
  readonly moves?: boolean;
}

/**
 * Whether the row `t` gives way to the change: a condition that notes the conflict, if there is one; empty where
 * every row does. With `silent` nothing is noted.
 */
export function givesWay(
  relation: MappedRelation,
  sql: Parameters,
  { type, silent = false, ...change }: Settled & { type: ConflictType; silent?: boolean },
): string {
  const isInsert = type === "insert_exists";
  if (!isVersioned(relation)) return isInsert ? noted(relation, sql, { type, ...change, here: true }) : "";
  const { policy } = relation.settlement;
  const hash = sql.version(hashOf(change.side));
  const settle = (standing: Standing) => {
    const resolution = resolve(policy, type, standing);
    if (silent && resolution !== "error") {
      return awaiting(relation, sql, { ...change, resolution, settled: "" });
    }
    const { key, remote } = described(relation, sql, change);
    const settled = `mmlite.settle(${literal(type)}, ${literal(resolution)}, ${literal(change.change)}, ${
      literal(relation.schema)
    }, ${literal(relation.name)}, ${key}, pg_catalog.to_json(t.*), t.xmin, ${hash}, ${remote}, ${
      sql.version("node")
    }, ${sql.version("at")})`;
    return awaiting(relation, sql, { ...change, resolution, settled });
  };
  const compared = `mmlite.compare_version(t.xmin, ${hash}, ${sql.version("at")}, ${sql.version("node")}, ${
    sql.version("seen")
  })`;
  // What a third node wrote in between comes by the old key, and finds nobody there who could ask for values.
  const unmoved = change.moves && change.omitted!.size > 0 ? unsent(relation, sql) : "true";
  // That there is a row at all is what an insert does not expect.
  const follows = isInsert ? settle("newer") : unmoved;
  return `CASE ${compared} WHEN 0 THEN ${follows} WHEN 1 THEN ${settle("newer")} ELSE ${settle("older")} END`;
}

/**
 * What is decided of a row of another version, and noted of it by `settled`. A change that came without all its values
 * leaves the row in need of them; one that is passed over may have been known to whoever wrote the row.
 */
function awaiting(
  relation: MappedRelation,
  sql: Parameters,
  { resolution, settled, ...change }: Settled & { resolution: Resolution; settled: string },
): string {
  const lacksValues = (change.omitted?.size ?? 0) > 0;
  if (resolution === "applied" && lacksValues) {
    const noted = unsent(relation, sql);
    return settled === "" ? noted : `CASE WHEN ${settled} THEN ${noted} ELSE false END`;
  }
  if (resolution !== "skipped" || settled === "" || !(lacksValues || change.long)) {
    return settled === "" ? String(resolution === "applied") : settled;
  }
  const key = relation.key!;
  const passedOver = `mmlite.note_passed_over(t.xmin, ${literal(relation.schema)}, ${
    literal(relation.name)
  }, ${nameArray(key)}, ${keyTexts(key)}, ${sql.version(hashOf(change.side))}, ${sql.version("node")})`;
  return `CASE WHEN ${settled} THEN true ELSE ${passedOver} END`;
}

/** Notes that the row awaits values from the sender; true. */
function unsent(relation: MappedRelation, sql: Parameters): string {
  const key = relation.key!;
  return `mmlite.note_unsent(${sql.version("node")}, ${literal(relation.schema)}, ${
    literal(relation.name)
  }, ${nameArray(key)}, ${keyTextsOf("new", key, sql)}, ${sql.version("newHash")}, ${sql.version("at")})`;
}

function nameArray({ columns }: MatchKey): string {
  return `ARRAY[${columns.map(({ name }) => literal(name)).join(", ")}]`;
}

/**
 * Whether a row that is not here may be written: no newer delete is known. Notes it if one is; that it is missing too
 * if that is a conflict of type `type`.
 */
export function admits(
  relation: MappedRelation,
  sql: Parameters,
  { type = null, isWhole = true, ...change }: Settled & { type?: ConflictType | null; isWhole?: boolean },
): string {
  const { policy } = relation.settlement;
  if (!isVersioned(relation)) {
    return type === null ? "true" : noted(relation, sql, { type, standing: "missing", isWhole, ...change });
  }
  const resolution = type === null ? "applied" : writable(resolve(policy, type, "missing"), isWhole);
  const [at, node] = [sql.version("at"), sql.version("node")];
  const { key, remote } = described(relation, sql, change);
  const settled = `mmlite.settle_missing(${type === null ? "NULL" : literal(type)}, ${literal(resolution)}, ${
    literal(writable(resolve(policy, "update_deleted", "older"), isWhole))
  }, ${literal(change.change)}, ${literal(relation.schema)}, ${literal(relation.name)}, ${key}, ${
    sql.version(hashOf(change.side))
  }, ${remote}, ${node}, ${at})`;
  if (type !== null) return settled;
  return `CASE WHEN ${mayBeDeleted(relation, sql)} THEN ${settled} ELSE true END`;
}

/** Notes a conflict of which no version can be told: with a row that is here (`here`), or with none. */
export function noted(
  relation: MappedRelation,
  sql: Parameters,
  { type, standing = "newer", here = false, isWhole = true, ...change }: Settled & {
    type: ConflictType;
    standing?: Standing;
    here?: boolean;
    isWhole?: boolean;
  },
): string {
  const { policy, versioned } = relation.settlement;
  const resolution = resolve(versioned ? policy : withoutVersions(policy, type), type, standing);
  const { key, remote } = described(relation, sql, change);
  return `mmlite.note_conflict(${literal(type)}, ${literal(writable(resolution, isWhole))}, ${
    literal(change.change)
  }, ${literal(relation.schema)}, ${literal(relation.name)}, ${key}, ${
    here ? "pg_catalog.to_json(t.*)" : "NULL"
  }, NULL, NULL, ${remote}, ${sql.version("node")}, ${sql.version("at")}, true)`;
}

/** Without versions the newer one cannot be known: what came is taken. */
function withoutVersions({ policy, types }: TablePolicy, type: ConflictType): TablePolicy {
  const wanted = types[type] ?? policy;
  return { policy: wanted === "last_update_wins" ? "apply_remote" : wanted, types: {} };
}

/** A row of which a part did not come cannot be written where it is missing. */
function writable(resolution: Resolution, isWhole: boolean): Resolution {
  return isWhole || resolution === "error" ? resolution : "skipped";
}

/** The key by which a change meets another row, and its own row, as JSON. */
export function described(
  relation: MappedRelation,
  sql: Parameters,
  { side, remote, omitted = NO_COLUMNS }: Settled,
): { key: string; remote: string } {
  const key = relation.key === null ? "NULL" : json(relation.key.columns, sql, side);
  const came = relation.columns.filter(({ index }) => !omitted.has(index));
  return { key, remote: remote === null ? "NULL" : json(came, sql, remote) };
}

function json(columns: readonly MappedColumn[], sql: Parameters, side: TupleSide): string {
  if (columns.length === 0) return "'{}'::json";
  if (columns.length <= JSON_PAIRS) {
    const pairs = columns.map((column) => `${literal(column.name)}, ${sql.value(side, column)}`);
    return `pg_catalog.json_build_object(${pairs.join(", ")})`;
  }
  const values = columns.map((column) => `${sql.value(side, column)} AS ${quote(column.name)}`);
  return `(SELECT pg_catalog.row_to_json(c) FROM (SELECT ${values.join(", ")}) AS c)`;
}

function hashOf(side: TupleSide): VersionPart {
  return side === "new" ? "newHash" : "oldHash";
}

/** Whether a statement before it, `u`, has found its row, or `l` one that it has left as it is. */
export function isFound(relation: MappedRelation, isHere: string): string {
  const changed = "EXISTS (SELECT 1 FROM u)";
  return isHere === "" || !isVersioned(relation) ? changed : `${changed} OR EXISTS (SELECT 1 FROM l)`;
}

/** With `l`, the row that is here: locked, because another session may just have deleted one that is still seen. */
export function locking(relation: MappedRelation, isHere: string): string {
  if (isHere === "" || !isVersioned(relation)) return "";
  return `, l AS (SELECT 1 FROM ${rows(relation)} WHERE ${isHere} FOR UPDATE)`;
}

/** Inserts the new row of an update that came whole if the row is missing; of another it is noted only. */
export function insertMissing(
  relation: MappedRelation,
  sql: Parameters,
  { change, isHere, withoutUpdate = false }: { change: Settled; isHere: string; withoutUpdate?: boolean },
): string {
  const written = relation.columns.filter((column) => column.written);
  const found = withoutUpdate ? "EXISTS (SELECT 1 FROM l)" : isFound(relation, isHere);
  const isWhole = change.omitted!.size === 0 && written.length > 0;
  // The row that it would be has the new key, which is looked for among the deleted ones.
  const missing = { type: "update_missing", ...change, side: "new", isWhole } as const;
  const fetches = !isWhole && isVersioned(relation) && change.omitted!.size > 0 &&
    resolve(relation.settlement.policy, "update_missing", "missing") === "applied";
  const admitted = fetches
    ? `CASE WHEN ${admits(relation, sql, { ...missing, type: null })} THEN ${
      noted(relation, sql, { ...missing, standing: "missing" })
    } OR ${unsent(relation, sql)} ELSE false END`
    : admits(relation, sql, missing);
  if (!isWhole) return `SELECT CASE WHEN ${found} THEN false ELSE ${guarded(relation, admitted)} END`;
  const values = written.map((column) => sql.value("new", column)).join(", ");
  const insert = `${insertInto(relation, written)} SELECT ${values} WHERE CASE WHEN ${found} THEN false` +
    ` ELSE ${guarded(relation, admitted)} END`;
  if (!relation.key?.arbiter) return insert;
  // A row may come to be between the search and the insert.
  return `${insert} ${onConflict(relation, sql, { type: "insert_exists", ...change, side: "new" })}`;
}

/**
 * Whether a row may move to its new key: nobody is there, and nobody has deleted the row with that key later. Without
 * versions it moves wherever it is sent, as what stood in the way was removed before.
 */
export function maySettleThere(relation: MappedRelation, sql: Parameters, shape: UpdateShape): string {
  if (!shape.keyChanged || !isVersioned(relation)) return "";
  const deleted = `CASE WHEN ${mayBeDeleted(relation, sql)} THEN (SELECT g.deleted_at IS NULL FROM` +
    ` mmlite.newest_tombstone(${sql.version("newHash")}, ${literal(relation.schema)}, ${
      literal(relation.name)
    }, ${sql.version("at")}, ${sql.version("node")}) g) ELSE true END`;
  // Under a deferrable key the row there may be one that this transaction moves away in a moment.
  if (relation.key!.deferrable) return deleted;
  return `NOT EXISTS (SELECT 1 FROM ${rows(relation)} WHERE ${where(relation, sql, "new")} AND NOT (${
    where(relation, sql, "old")
  })) AND ${deleted}`;
}

/** Whether anything of the table may have been deleted later by another node, or by the sender where its changes come out
 * of their order: mostly not, and this is fast. */
function mayBeDeleted({ schema, name }: MappedRelation, sql: Parameters): string {
  const [at, node] = [sql.version("at"), sql.version("node")];
  const counts = (alias: string) =>
    `(${alias}.origin <> ${node} OR pg_catalog.current_setting('mmlite.out_of_order', true) = 'on')`;
  return `EXISTS (SELECT 1 FROM mmlite.tombstone d WHERE d.last_timestamp >= ${at} AND ${counts("d")})` +
    ` OR EXISTS (SELECT 1 FROM mmlite.truncation c WHERE c.table_schema = ${
      literal(schema)
    } AND c.table_name = ${literal(name)} AND c.commit_timestamp >= ${at} AND ${counts("c")})`;
}

/** Overwrites the row that has the key if it gives way. One that would stay the same gets the change's version. */
export function onConflict(
  relation: MappedRelation,
  sql: Parameters,
  conflict: Settled & { type: ConflictType },
): string {
  return overwriting(relation, () => givesWay(relation, sql, conflict));
}

/** As {@link onConflict}, where the row `t` meets a condition. */
export function overwriting(relation: MappedRelation, condition: () => string): string {
  const overwritten = settable(relation, { keyChanged: false, omitted: NO_COLUMNS });
  const set = overwritten.length > 0 ? overwritten : touched(relation);
  const arbiter = names(relation.key!.columns);
  if (set.length === 0) return `ON CONFLICT (${arbiter}) DO NOTHING`;
  const assignments = set.map(({ name }) => `${quote(name)} = excluded.${quote(name)}`);
  return `ON CONFLICT (${arbiter}) DO UPDATE SET ${assignments.join(", ")} WHERE ${condition()}`;
}
