/**
 * The SQL that applies one change, for a relation and the shape of the change. Pure text.
 *
 * Every statement settles its own conflicts, so that nothing has to wait for a reply: a row that is here is compared
 * with the change by version, a row that is missing is looked for among the deleted ones, and what is decided is
 * noted in the same transaction by functions of schema `mmlite`, which tell of it in a notice. Conditions that note
 * something stand in a CASE, which alone keeps the order in which PostgreSQL looks at them.
 */
import {
  type ConflictType,
  type Resolution,
  resolve,
  type Standing,
  type TablePolicy,
} from "../conflict_policy.ts";
import type { LocalExclusion } from "../pg/relation.ts";
import type { MappedColumn, MappedRelation } from "./relation_map.ts";

/** Which of a change's tuples a parameter comes from, or that it is of the change's version. */
export type ParameterSide = "old" | "new" | "version";

/** Where a parameter's value comes from: a column of one of the change's tuples, or a {@link VersionPart}. */
export interface ParameterSource {
  readonly side: ParameterSide;
  readonly index: number;
}

/** What a change's version is made of, as parameters. */
export const VERSION_PART = {
  /** When it was committed at its origin. */
  at: 0,
  /** Its origin. */
  node: 1,
  /** What any node committed before this time the origin had seen. */
  seen: 2,
  /** `mmlite.key_hash` of the row's key, and of the one that it had before. */
  newHash: 3,
  oldHash: 4,
} as const;

/** See {@link VERSION_PART}. */
export type VersionPart = keyof typeof VERSION_PART;

/** A statement before it has a name. */
export interface StatementShape {
  readonly sql: string;
  readonly parameterTypes: readonly number[];
  readonly parameters: readonly ParameterSource[];
  /** Completes "Cannot …" in an error. */
  readonly doing: string;
}

/** How the row is found. */
export interface MatchShape {
  /** Whether the whole old row came and is compared: where there is no key, or where several rows may have it. */
  readonly byRow: boolean;
  /** Columns (their index) of the old row that are null; looked at only with `byRow`. */
  readonly nulls: ReadonlySet<number>;
}

/** What tells two updates of a relation apart, as far as their SQL goes. */
export interface UpdateShape extends MatchShape {
  /** The matching columns get other values. */
  readonly keyChanged: boolean;
  /** Columns (their index) whose value did not come. */
  readonly omitted: ReadonlySet<number>;
  /** Whether the row may be of those whose values are not all sent where they stay as they are. */
  readonly long: boolean;
}

type TupleSide = "old" | "new";
type ChangeName = "insert" | "update" | "delete";

const NO_COLUMNS: ReadonlySet<number> = new Set();
const BY_KEY: MatchShape = { byRow: false, nulls: NO_COLUMNS };
const VERSION_TYPES: Readonly<Record<VersionPart, number>> = {
  at: 1184,
  node: 25,
  seen: 1184,
  newHash: 20,
  oldHash: 20,
};
/** Pairs that one call takes: a function has 100 arguments at most. */
const JSON_PAIRS = 50;

/** Inserts a row, or overwrites the one that has its key. */
export function insertStatement(relation: MappedRelation, { long }: { long: boolean }): StatementShape {
  const sql = new Parameters();
  const doing = `insert into "${relation.label}"`;
  const columns = relation.columns.filter((column) => column.written);
  const { key } = relation;
  if (columns.length === 0) return sql.shape(`INSERT INTO ${target(relation)} DEFAULT VALUES`, doing);
  const values = columns.map((column) => sql.value("new", column)).join(", ");
  const into = insertInto(relation, columns);
  if (key === null) return sql.shape(`${into} VALUES (${values})`, doing);
  const change: Settled = { change: "insert", side: "new", remote: "new", long };
  const admitted = admits(relation, sql, change);
  if (key.arbiter) {
    const late = onConflict(relation, sql, { type: "insert_exists", ...change });
    return sql.shape(`${into} SELECT ${values} WHERE ${guarded(relation, admitted)} ${late}`, doing);
  }
  const overwritten = settable(relation, { keyChanged: false, omitted: NO_COLUMNS });
  const isHere = where(relation, sql, "new");
  const found = updateOrLock(relation, sql, {
    columns: overwritten,
    where: both(
      both(isHere, notSkipped(relation)),
      givesWay(relation, sql, { type: "insert_exists", ...change }),
    ),
  });
  return sql.shape(
    `WITH u AS (${found})${locking(relation, isHere)} ${into} SELECT ${values} WHERE CASE WHEN ${
      isFound(relation, isHere)
    } THEN false` +
      ` ELSE ${guarded(relation, admitted)} END`,
    doing,
  );
}

/** Updates a row, or inserts it where it is missing and came whole. */
export function updateStatement(relation: MappedRelation, shape: UpdateShape): StatementShape {
  const sql = new Parameters();
  const side = shape.byRow || shape.keyChanged ? "old" : "new";
  const change: Settled = { change: "update", side, remote: "new", omitted: shape.omitted, long: shape.long };
  const condition = [
    where(relation, sql, side, shape),
    notSkipped(relation),
    givesWay(relation, sql, { type: "update_origin_differs", ...change }),
    maySettleThere(relation, sql, shape),
  ].filter((one) => one !== "").join(" AND ");
  const found = updateOrLock(relation, sql, { columns: settable(relation, shape), where: condition });
  // A row whose key changes may have been left where it was: what follows sees to it.
  const doing = `update "${relation.label}"`;
  if (shape.keyChanged && isVersioned(relation)) return sql.shape(found, doing);
  const isHere = relation.key === null ? "" : where(relation, sql, side);
  const missing = insertMissing(relation, sql, { change, isHere });
  return sql.shape(`WITH u AS (${found})${locking(relation, isHere)} ${missing}`, doing);
}

/** Inserts a row whose key was changed where neither the old row nor one with the new key is here. */
export function insertMovedStatement(relation: MappedRelation, shape: UpdateShape): StatementShape {
  const sql = new Parameters();
  const { omitted, long } = shape;
  const change: Settled = { change: "update", side: "new", remote: "new", omitted, long };
  const isHere = where(relation, sql, "new");
  const missing = insertMissing(relation, sql, { change, isHere, withoutUpdate: true });
  return sql.shape(
    `WITH l AS (SELECT 1 FROM ${rows(relation)} WHERE ${isHere} FOR UPDATE) ${missing}`,
    `update "${relation.label}"`,
  );
}

/** What tells two looks for rows in the way apart. */
export interface ExclusionShape {
  readonly change: "insert" | "update";
  readonly keyChanged: boolean;
  readonly omitted: ReadonlySet<number>;
}

/**
 * Before a row is written: looks for others that it may not stand beside by a unique index or an exclusion constraint
 * other than the key. If all of them are older, they go; if one is newer, the change is passed over: what follows asks
 * for `mmlite.skip`. Either is noted, with both rows, and marks the table as diverged.
 */
export function exclusionStatement(
  relation: MappedRelation,
  shape: ExclusionShape,
): StatementShape {
  const sql = new Parameters();
  const { key, policy } = { key: relation.key!, policy: relation.settlement.policy };
  const isItself = shape.keyChanged
    ? `(${where(relation, sql, "new")} OR ${where(relation, sql, "old")})`
    : where(relation, sql, "new");
  const isBefore = where(relation, sql, shape.keyChanged ? "old" : "new");
  const values = [
    ...relation.columns.filter(({ written }) => written).map((column) =>
      shape.omitted.has(column.index)
        ? `(SELECT t.${quote(column.name)} FROM ${rows(relation)} WHERE ${isBefore}) AS ${quote(column.name)}`
        : `${sql.value("new", column)} AS ${quote(column.name)}`
    ),
    ...relation.unknownColumns.map(({ name, typeName }) => `NULL::${typeName} AS ${quote(name)}`),
  ].join(", ");
  const texts = key.columns.map(({ name }) => `t.${quote(name)}::text`).join(", ");
  const hash = `mmlite.key_hash(${literal(relation.label)}, ARRAY[${texts}])`;
  const [at, node] = [sql.version("at"), sql.version("node")];
  const standing = `mmlite.compare_version(t.xmin, ${hash}, ${at}, ${node}, '-infinity')`;
  const alike = relation.exclusions.map((one) => `(${isAlike(one, standing)})`).join(" OR ");
  const place = relation.partitioned ? "(t.tableoid, t.ctid)" : "t.ctid";
  const found = `SELECT t.tableoid, t.ctid, t.xmin AS version, ${hash} AS hash, ${standing} AS standing,` +
    ` to_jsonb(t.*) AS row FROM ${rows(relation)} WHERE NOT (${isItself}) AND (${alike}) FOR UPDATE`;
  const type = shape.change === "insert" ? "insert_exists" : "update_exists";
  const change: Settled = { change: shape.change, side: "new", remote: "new", omitted: shape.omitted };
  const { key: keyJson, remote } = described(relation, sql, change);
  const resolution = (lost: Standing) => literal(resolve(policy, type, lost));
  const noted = `mmlite.settle_exclusion(CASE WHEN (SELECT count(*) > 1 FROM other) THEN` +
    ` 'multiple_unique_conflicts' ELSE ${literal(type)} END, (SELECT resolution FROM verdict), ${
      literal(shape.change)
    }, ${literal(relation.schema)}, ${
      literal(relation.name)
    }, ${keyJson}, other.row, other.version, other.hash, ${remote}, ${node}, ${at})`;
  const places = relation.partitioned ? "other.tableoid, other.ctid" : "other.ctid";
  return sql.shape(
    `WITH v AS (SELECT ${values}), other AS (${found}), verdict AS (SELECT CASE WHEN bool_or(standing < 0) THEN ${
      resolution("older")
    } ELSE ${resolution("newer")} END AS resolution, count(*) > 0 AS any FROM other),` +
      ` noted AS (SELECT ${noted} AS applied FROM other),` +
      ` gone AS (DELETE FROM ${rows(relation)} USING other WHERE ${place} = (${places})` +
      ` AND (SELECT resolution FROM verdict) = 'applied')` +
      ` SELECT pg_catalog.set_config('mmlite.skip', CASE WHEN v.any AND v.resolution <> 'applied' THEN 'on' ELSE 'off' END,` +
      ` true), (SELECT count(applied) FROM noted) FROM verdict v`,
    `${shape.change} "${relation.label}"`,
  );
}

/** Whether the row `t` and the new one, `v`, may not stand beside each other. */
function isAlike({ parts, predicate, deferrable, nullsAlike }: LocalExclusion, standing: string): string {
  const conditions = parts.map(({ expression, operator }) => {
    const there = `(SELECT ${expression} FROM v)`;
    const alike = `(${expression}) ${operator} ${there}`;
    return nullsAlike ? `((${expression}) IS NULL AND ${there} IS NULL OR ${alike})` : alike;
  });
  if (predicate !== null) conditions.push(`(${predicate})`, `(SELECT ${predicate} FROM v)`);
  // Where it is looked at in the end only, another row of the same transaction may still move away.
  if (deferrable) conditions.push(`${standing} <> 0`);
  return conditions.join(" AND ");
}

/** Whether the row may be written at all: see {@link exclusionStatement}. Empty where nothing asks. */
function notSkipped(relation: MappedRelation): string {
  if (!isVersioned(relation) || relation.exclusions.length === 0) return "";
  return "pg_catalog.current_setting('mmlite.skip', true) IS DISTINCT FROM 'on'";
}

/** A condition that is looked at only where the row may be written. */
function guarded(relation: MappedRelation, condition: string): string {
  const guard = notSkipped(relation);
  return guard === "" ? condition : `CASE WHEN ${guard} THEN ${condition} ELSE false END`;
}

/** Before a key changes: removes another row that has the new key, if it gives way. */
export function evictStatement(relation: MappedRelation, { omitted, long }: UpdateShape): StatementShape {
  const sql = new Parameters();
  const old = where(relation, sql, "old");
  const change: Settled = { change: "update", side: "new", remote: "new", omitted, long };
  const another = both(`${where(relation, sql, "new")} AND NOT (${old})`, notSkipped(relation));
  const settled = givesWay(relation, sql, { type: "update_exists", ...change });
  // Without versions only a row that is here can drive another one away.
  const condition = isVersioned(relation)
    ? settled
    : `CASE WHEN EXISTS (SELECT 1 FROM ${rows(relation)} WHERE ${old}) THEN ${
      noted(relation, sql, { type: "update_exists", ...change, here: true })
    } ELSE false END`;
  return sql.shape(
    `DELETE FROM ${rows(relation)} WHERE ${both(another, condition)}`,
    `update "${relation.label}"`,
  );
}

/** After a key has changed: removes the row with the old key that could not move to the new one. */
export function removeUnmovedStatement(relation: MappedRelation, { omitted }: UpdateShape): StatementShape {
  const sql = new Parameters();
  const change: Settled = { change: "update", side: "old", remote: "new", omitted };
  const silently = givesWay(relation, sql, { type: "update_origin_differs", ...change, silent: true });
  // Keys may differ as texts and be equal.
  const unmoved = `${where(relation, sql, "old")} AND NOT (${where(relation, sql, "new")})`;
  return sql.shape(
    `DELETE FROM ${rows(relation)} WHERE ${both(unmoved, silently)}`,
    `update "${relation.label}"`,
  );
}

/**
 * Gives a row other values in columns that UPDATE cannot set (GENERATED ALWAYS AS IDENTITY): deletes it and
 * inserts it again, with what did not come taken from the old row. Touches nothing if they already fit.
 */
export function replaceStatement(relation: MappedRelation, shape: UpdateShape): StatementShape {
  const sql = new Parameters();
  const side = shape.byRow || shape.keyChanged ? "old" : "new";
  const differs = relation.columns.filter((column) => column.identityAlways)
    .map((column) => `t.${quote(column.name)} IS DISTINCT FROM ${sql.value("new", column)}`).join(" OR ");
  const change: Settled = { change: "update", side, remote: "new", omitted: shape.omitted };
  const silently = givesWay(relation, sql, { type: "update_origin_differs", ...change, silent: true });
  const found = both(`${where(relation, sql, side, shape)} AND (${differs})`, notSkipped(relation));
  const condition = both(found, silently);
  const came = relation.columns.filter((column) => column.written && !shape.omitted.has(column.index));
  const kept = [
    ...relation.extraColumns,
    ...relation.columns.filter((c) => c.written && shape.omitted.has(c.index)).map((c) => c.name),
  ].map(quote);
  const gone = `DELETE FROM ${rows(relation)} WHERE ${condition} RETURNING ` +
    (kept.length === 0 ? "1" : kept.map((name) => `t.${name}`).join(", "));
  const into = [...came.map((column) => quote(column.name)), ...kept].join(", ");
  const values = [...came.map((column) => sql.value("new", column)), ...kept.map((name) => `gone.${name}`)];
  const again = `INSERT INTO ${target(relation)} (${into}) OVERRIDING SYSTEM VALUE SELECT ${
    values.join(", ")
  } FROM gone`;
  const doing = `update "${relation.label}"`;
  if (relation.key !== null) return sql.shape(`WITH gone AS (${gone}) ${again}`, doing);
  const missing = noted(relation, sql, { type: "update_missing", standing: "missing", ...change });
  return sql.shape(
    `WITH gone AS (${gone}), again AS (${again} RETURNING 1)` +
      ` SELECT ${missing} WHERE NOT EXISTS (SELECT 1 FROM again)`,
    doing,
  );
}

/** Deletes one row. */
export function deleteStatement(relation: MappedRelation, match: MatchShape): StatementShape {
  const sql = new Parameters();
  const change: Settled = { change: "delete", side: "old", remote: null };
  const condition = both(
    where(relation, sql, "old", match),
    givesWay(relation, sql, { type: "delete_origin_differs", ...change }),
  );
  const isHere = relation.key === null ? "" : where(relation, sql, "old");
  const missing = noted(relation, sql, { type: "delete_missing", standing: "missing", ...change });
  return sql.shape(
    `WITH u AS (DELETE FROM ${rows(relation)} WHERE ${condition} RETURNING 1)${locking(relation, isHere)}` +
      ` SELECT CASE WHEN ${isFound(relation, isHere)} THEN false ELSE ${missing} END`,
    `delete from "${relation.label}"`,
  );
}

/** Fails where a row that was deleted has come again, written by another session meanwhile, and is the older one. */
export function stillGoneStatement(relation: MappedRelation): StatementShape {
  const sql = new Parameters();
  return sql.shape(
    `SELECT mmlite.require_rows(pg_catalog.count(*), 0) FROM ${rows(relation)} WHERE ${
      where(relation, sql, "old")
    } AND mmlite.compare_version(t.xmin, ${sql.version("oldHash")}, ${sql.version("at")}, ${
      sql.version("node")
    }, '-infinity') = 1`,
    `delete from "${relation.label}"`,
  );
}

/**
 * Writes a row that was fetched from its author, in the version that it has there: over an older one or the same, and
 * where it is missing and was not deleted since.
 */
export function fetchedStatement(relation: MappedRelation): StatementShape {
  const sql = new Parameters();
  const written = relation.columns.filter((column) => column.written);
  const isHere = where(relation, sql, "new");
  const [hash, at, node] = [sql.version("newHash"), sql.version("at"), sql.version("node")];
  const takes = `mmlite.takes_fetched(t.xmin, ${hash}, ${at}, ${node})`;
  const found = updateOrLock(relation, sql, {
    columns: settable(relation, { keyChanged: false, omitted: NO_COLUMNS }),
    where: [isHere, notSkipped(relation), takes].filter((one) => one !== "").join(" AND "),
  });
  // The author's own deletes count as well: the row was read before them, perhaps.
  const isGone = `(SELECT g.deleted_at IS NOT NULL FROM mmlite.newest_tombstone(${hash}, ${
    literal(relation.schema)
  }, ${literal(relation.name)}, ${at}, '') g)`;
  const values = written.map((column) => sql.value("new", column)).join(", ");
  const insert = `${insertInto(relation, written)} SELECT ${values} WHERE CASE WHEN ${
    isFound(relation, isHere)
  } THEN false ELSE ${guarded(relation, `NOT ${isGone}`)} END`;
  const arbiter = relation.key!.arbiter ? ` ON CONFLICT (${names(relation.key!.columns)}) DO NOTHING` : "";
  return sql.shape(
    `WITH u AS (${found})${locking(relation, isHere)} ${insert}${arbiter}`,
    `update "${relation.label}"`,
  );
}

/** After {@link fetchedStatement}: the row awaits nothing any more, unless its author has sent a later version. */
export function answeredStatement(relation: MappedRelation): StatementShape {
  const sql = new Parameters();
  const [hash, at, node] = [sql.version("newHash"), sql.version("at"), sql.version("node")];
  return sql.shape(
    `DELETE FROM mmlite.unsent u WHERE u.origin = ${node} AND u.hash = ${hash} AND u.at <= ${at}` +
      ` AND u.table_schema = ${literal(relation.schema)} AND u.table_name = ${literal(relation.name)}` +
      ` AND NOT EXISTS (SELECT 1 FROM ${rows(relation)}, mmlite.row_version(t.xmin, ${hash}) v WHERE ${
        where(relation, sql, "new")
      } AND v.node = ${node} AND v.at > ${at})`,
    `update "${relation.label}"`,
  );
}

/** Truncates tables together. Never cascades further than the publisher did, whose message names all tables. */
export function truncateStatement(
  relations: readonly MappedRelation[],
  restartIdentity: boolean,
): StatementShape {
  const tables = relations.map((r) => r.partitioned ? target(r) : `ONLY ${target(r)}`).join(", ");
  const doing = `truncate ${relations.map((relation) => `"${relation.label}"`).join(", ")}`;
  const sql = new Parameters();
  if (!relations.some((relation) => relation.settlement.versioned)) {
    return sql.shape(`TRUNCATE TABLE ${tables}${restartIdentity ? " RESTART IDENTITY" : ""}`, doing);
  }
  const list = (texts: readonly string[]) => `ARRAY[${texts.map(literal).join(", ")}]::text[]`;
  const keys = relations.map(({ key }) =>
    key === null ? "" : key.columns.map(({ name }) => `t.${quote(name)}::text`).join(", ")
  );
  return sql.shape(
    `SELECT mmlite.apply_truncate(${list(relations.map(({ schema }) => schema))}, ${
      list(relations.map(({ name }) => name))
    }, ${list(relations.map(({ partitioned }) => partitioned ? "" : "ONLY "))}, ${
      list(keys)
    }, ${restartIdentity}, ${sql.version("at")}, ${sql.version("node")})`,
    doing,
  );
}

/** A name as an SQL identifier. */
export function quote(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** A text as an SQL literal. */
export function literal(text: string): string {
  const quoted = `'${text.replaceAll("'", "''")}'`;
  return text.includes("\\") ? `E${quoted.replaceAll("\\", "\\\\")}` : quoted;
}

/** The parameters of a statement under construction; one per side and column. */
class Parameters {
  readonly #sources: ParameterSource[] = [];
  readonly #types: number[] = [];
  readonly #numbers = new Map<string, number>();

  value(side: TupleSide, column: MappedColumn): string {
    return this.#number({ side, index: column.index }, column.typeOid);
  }

  version(part: VersionPart): string {
    return this.#number({ side: "version", index: VERSION_PART[part] }, VERSION_TYPES[part]);
  }

  shape(sql: string, doing: string): StatementShape {
    return { sql, parameterTypes: this.#types, parameters: this.#sources, doing };
  }

  #number(source: ParameterSource, typeOid: number): string {
    const id = `${source.side}${source.index}`;
    let number = this.#numbers.get(id);
    if (number === undefined) {
      this.#types.push(typeOid);
      number = this.#sources.push(source);
      this.#numbers.set(id, number);
    }
    return `$${number}`;
  }
}

/** A change as conflicts with it are noted. */
interface Settled {
  readonly change: ChangeName;
  /** Of which tuple the key is that it meets another row by. */
  readonly side: TupleSide;
  /** Of which tuple its row is; null where it has none. */
  readonly remote: TupleSide | null;
  readonly omitted?: ReadonlySet<number>;
  readonly long?: boolean;
}

/** Whether rows are compared by version. */
function isVersioned({ key, settlement }: MappedRelation): boolean {
  return key !== null && settlement.versioned;
}

/**
 * Whether the row `t` gives way to the change: a condition that notes the conflict, if there is one; empty where
 * every row does. With `silent` nothing is noted.
 */
function givesWay(
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
    }, ${literal(relation.name)}, ${key}, to_jsonb(t.*), t.xmin, ${hash}, ${remote}, ${
      sql.version("node")
    }, ${sql.version("at")})`;
    return awaiting(relation, sql, { ...change, resolution, settled });
  };
  const compared = `mmlite.compare_version(t.xmin, ${hash}, ${sql.version("at")}, ${sql.version("node")}, ${
    sql.version("seen")
  })`;
  // That there is a row at all is what an insert does not expect.
  const follows = isInsert ? settle("newer") : "true";
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
  const key = relation.key!.columns;
  const texts = key.map(({ name }) => `t.${quote(name)}::text`).join(", ");
  const passedOver = `mmlite.note_passed_over(t.xmin, ${literal(relation.schema)}, ${
    literal(relation.name)
  }, ${nameArray(key)}, ARRAY[${texts}], ${sql.version(hashOf(change.side))}, ${sql.version("node")})`;
  return `CASE WHEN ${settled} THEN true ELSE ${passedOver} END`;
}

/** Notes that the row awaits values from the sender; true. */
function unsent(relation: MappedRelation, sql: Parameters): string {
  const key = relation.key!.columns;
  const texts = key.map((column) => `${sql.value("new", column)}::text`).join(", ");
  return `mmlite.note_unsent(${sql.version("node")}, ${literal(relation.schema)}, ${
    literal(relation.name)
  }, ${nameArray(key)}, ARRAY[${texts}], ${sql.version("newHash")}, ${sql.version("at")})`;
}

function nameArray(columns: readonly MappedColumn[]): string {
  return `ARRAY[${columns.map(({ name }) => literal(name)).join(", ")}]`;
}

/**
 * Whether a row that is not here may be written: no newer delete is known. Notes it if one is; that it is missing too
 * if that is a conflict of type `type`.
 */
function admits(
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
function noted(
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
    here ? "to_jsonb(t.*)" : "NULL"
  }, NULL, NULL, ${remote}, ${sql.version("node")}, ${sql.version("at")})`;
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
function described(
  relation: MappedRelation,
  sql: Parameters,
  { side, remote, omitted = NO_COLUMNS }: Settled,
): { key: string; remote: string } {
  const key = relation.key === null ? "NULL" : json(relation.key.columns, sql, side);
  const came = relation.columns.filter(({ index }) => !omitted.has(index));
  return { key, remote: remote === null ? "NULL" : json(came, sql, remote) };
}

function json(columns: readonly MappedColumn[], sql: Parameters, side: TupleSide): string {
  if (columns.length === 0) return "'{}'::jsonb";
  const pairs = columns.map((column) => `${literal(column.name)}, ${sql.value(side, column)}`);
  const objects: string[] = [];
  for (let at = 0; at < pairs.length; at += JSON_PAIRS) {
    objects.push(`jsonb_build_object(${pairs.slice(at, at + JSON_PAIRS).join(", ")})`);
  }
  return objects.join(" || ");
}

function hashOf(side: TupleSide): VersionPart {
  return side === "new" ? "newHash" : "oldHash";
}

function both(one: string, other: string): string {
  return other === "" ? one : `${one} AND ${other}`;
}

/** Whether a statement before it, `u`, has found its row, or `l` one that it has left as it is. */
function isFound(relation: MappedRelation, isHere: string): string {
  const changed = "EXISTS (SELECT 1 FROM u)";
  return isHere === "" || !isVersioned(relation) ? changed : `${changed} OR EXISTS (SELECT 1 FROM l)`;
}

/** With `l`, the row that is here: locked, because another session may just have deleted one that is still seen. */
function locking(relation: MappedRelation, isHere: string): string {
  if (isHere === "" || !isVersioned(relation)) return "";
  return `, l AS (SELECT 1 FROM ${rows(relation)} WHERE ${isHere} FOR UPDATE)`;
}

/** Inserts the new row of an update that came whole if the row is missing; of another it is noted only. */
function insertMissing(
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
function maySettleThere(relation: MappedRelation, sql: Parameters, shape: UpdateShape): string {
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

/** Whether anything of the table may have been deleted later by another node: mostly not, and this is fast. */
function mayBeDeleted({ schema, name }: MappedRelation, sql: Parameters): string {
  const [at, node] = [sql.version("at"), sql.version("node")];
  return `EXISTS (SELECT 1 FROM mmlite.tombstone d WHERE d.last_timestamp >= ${at} AND d.origin <> ${node})` +
    ` OR EXISTS (SELECT 1 FROM mmlite.truncation c WHERE c.table_schema = ${
      literal(schema)
    } AND c.table_name = ${literal(name)} AND c.commit_timestamp >= ${at} AND c.origin <> ${node})`;
}

/** The relation's local table. */
export function target({ schema, name }: MappedRelation): string {
  return `${quote(schema)}.${quote(name)}`;
}

/** The relation's own rows as `t`: without those of tables that inherit from it, which come by themselves. */
export function rows(relation: MappedRelation): string {
  return `${relation.partitioned ? "" : "ONLY "}${target(relation)} AS t`;
}

/** Columns as a list of identifiers. */
export function names(columns: readonly MappedColumn[]): string {
  return columns.map((column) => quote(column.name)).join(", ");
}

function insertInto(relation: MappedRelation, columns: readonly MappedColumn[]): string {
  const overriding = columns.some((column) => column.identityAlways) ? " OVERRIDING SYSTEM VALUE" : "";
  return `INSERT INTO ${target(relation)} AS t (${names(columns)})${overriding}`;
}

/** Overwrites the row that has the key if it gives way. One that would stay the same gets the change's version. */
function onConflict(
  relation: MappedRelation,
  sql: Parameters,
  conflict: Settled & { type: ConflictType },
): string {
  const overwritten = settable(relation, { keyChanged: false, omitted: NO_COLUMNS });
  const set = overwritten.length > 0 ? overwritten : touched(relation);
  const arbiter = names(relation.key!.columns);
  if (set.length === 0) return `ON CONFLICT (${arbiter}) DO NOTHING`;
  const assignments = set.map(({ name }) => `${quote(name)} = excluded.${quote(name)}`);
  return `ON CONFLICT (${arbiter}) DO UPDATE SET ${assignments.join(", ")} WHERE ${
    givesWay(relation, sql, conflict)
  }`;
}

/** A column that can be set to what it is, so that the row gets another version. */
function touched({ key }: MappedRelation): MappedColumn[] {
  return key?.columns.filter(({ written, identityAlways }) => written && !identityAlways).slice(0, 1) ?? [];
}

/** What an UPDATE sets: the columns that came, without those that it cannot or need not set. */
function settable(
  relation: MappedRelation,
  { keyChanged, omitted }: Pick<UpdateShape, "keyChanged" | "omitted">,
): MappedColumn[] {
  const matching = keyChanged ? [] : relation.key?.columns ?? [];
  return relation.columns.filter((column) =>
    column.written && !column.identityAlways && !omitted.has(column.index) && !matching.includes(column)
  );
}

/** An UPDATE, or where it would set nothing a touch or a lock, of the rows that `where` finds. */
function updateOrLock(
  relation: MappedRelation,
  sql: Parameters,
  options: { columns: readonly MappedColumn[]; where: string },
): string {
  const set = options.columns.map((column) => `${quote(column.name)} = ${sql.value("new", column)}`);
  if (set.length === 0 && isVersioned(relation)) {
    set.push(...touched(relation).map(({ name }) => `${quote(name)} = t.${quote(name)}`));
  }
  if (set.length === 0) return `SELECT 1 FROM ${rows(relation)} WHERE ${options.where} FOR UPDATE`;
  return `UPDATE ${rows(relation)} SET ${set.join(", ")} WHERE ${options.where} RETURNING 1`;
}

/**
 * Finds the row by its key. By row it is exactly one of those that equal the old row; or, if there is a key that
 * several rows may have for a while, one of those that have it, the old row itself before others.
 */
function where(
  relation: MappedRelation,
  sql: Parameters,
  side: TupleSide,
  { byRow, nulls }: MatchShape = BY_KEY,
): string {
  const keyed = relation.key?.columns.map((column) => equals(column, sql, side)) ?? [];
  if (!byRow) return keyed.join(" AND ");
  const rest = relation.columns.filter((column) => !relation.key?.columns.includes(column)).map((column) =>
    nulls.has(column.index) ? `t.${quote(column.name)} IS NULL` : equals(column, sql, side)
  );
  const [wanted, order] = relation.key === null
    ? [rest, ""]
    : [keyed, rest.length === 0 ? "" : ` ORDER BY (${rest.join(" AND ")}) IS TRUE DESC`];
  // Row numbers repeat between partitions.
  const [place, places] = relation.partitioned
    ? ["(t.tableoid, t.ctid)", "t.tableoid, t.ctid"]
    : ["t.ctid", "t.ctid"];
  const condition = wanted.length === 0 ? "true" : wanted.join(" AND ");
  return `${place} = (SELECT ${places} FROM ${rows(relation)} WHERE ${condition}${order} LIMIT 1 FOR UPDATE)`;
}

/** Equality by the type's own operator; without one both sides are compared as this server prints them. */
function equals(column: MappedColumn, sql: Parameters, side: TupleSide): string {
  const value = sql.value(side, column);
  const place = `t.${quote(column.name)}`;
  if (column.equality === null) return `${place}::text = ${value}::text`;
  return `${place} OPERATOR(${column.equality}) ${value}`;
}
