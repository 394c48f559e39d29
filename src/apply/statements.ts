/**
 * The SQL that applies one change, for a relation and the shape of the change. Pure text.
 *
 * Every statement settles its own conflict, so that nothing has to wait for a reply: an existing key is
 * overwritten, a missing row is inserted if the new row came whole, and a missing row on delete is nothing. What
 * happened shows in the command tag, or in the notice of `mmlite.note_conflict`.
 */
import type { MappedColumn, MappedRelation } from "./relation_map.ts";

/** A conflict that apply meets and settles, by PostgreSQL 18's name. */
export type ConflictType = "insert_exists" | "update_exists" | "update_missing" | "delete_missing";

/** Which of a change's tuples a parameter comes from. */
export type TupleSide = "old" | "new";

/** Where a parameter's value comes from: a column of one of the change's tuples. */
export interface ParameterSource {
  readonly side: TupleSide;
  readonly index: number;
}

/** A statement before it has a name. */
export interface StatementShape {
  readonly sql: string;
  readonly parameterTypes: readonly number[];
  readonly parameters: readonly ParameterSource[];
  /** Completes "Cannot …" in an error. */
  readonly doing: string;
  /** The conflict that a command tag tells of: by being `tag`, or with `unless` by being another. */
  readonly conflict?: { readonly type: ConflictType; readonly tag: string; readonly unless?: boolean };
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
}

const NO_COLUMNS: ReadonlySet<number> = new Set();
const BY_KEY: MatchShape = { byRow: false, nulls: NO_COLUMNS };

/** Inserts a row, or overwrites the one that has its key. */
export function insertStatement(relation: MappedRelation): StatementShape {
  const sql = new Parameters();
  const doing = `insert into "${relation.label}"`;
  const columns = relation.columns.filter((column) => column.written);
  const { key } = relation;
  if (columns.length === 0) return sql.shape(`INSERT INTO ${target(relation)} DEFAULT VALUES`, doing);
  const values = columns.map((column) => sql.value("new", column)).join(", ");
  const into = insertInto(relation, columns);
  if (key === null) return sql.shape(`${into} VALUES (${values})`, doing);
  const overwritten = settable(relation, { keyChanged: false, omitted: NO_COLUMNS });
  if (!key.arbiter) {
    const found = updateOrLock(relation, sql, { columns: overwritten, where: where(relation, sql, "new") });
    return sql.shape(
      `WITH u AS (${found}) ${into} SELECT ${values} WHERE NOT EXISTS (SELECT 1 FROM u)`,
      doing,
      { type: "insert_exists", tag: "INSERT 0 0" },
    );
  }
  if (overwritten.length === 0) {
    return sql.shape(`${into} VALUES (${values}) ON CONFLICT (${names(key.columns)}) DO NOTHING`, doing, {
      type: "insert_exists",
      tag: "INSERT 0 0",
    });
  }
  // The WHERE is evaluated for an existing row only: it costs nothing without a conflict, and counts exactly.
  const noted = `WHERE mmlite.note_conflict('insert_exists')`;
  return sql.shape(`${into} VALUES (${values}) ${onConflict(relation, overwritten)} ${noted}`, doing);
}

/** Updates a row, or inserts it where it is missing and came whole. */
export function updateStatement(relation: MappedRelation, shape: UpdateShape): StatementShape {
  const sql = new Parameters();
  const doing = `update "${relation.label}"`;
  const side = shape.byRow || shape.keyChanged ? "old" : "new";
  const columns = settable(relation, shape);
  const condition = where(relation, sql, side, shape);
  const written = relation.columns.filter((column) => column.written);
  if (shape.omitted.size > 0 || written.length === 0) {
    const found = updateOrLock(relation, sql, { columns, where: condition, returning: false });
    const tag = columns.length > 0 ? "UPDATE 0" : "SELECT 0";
    return sql.shape(found, doing, { type: "update_missing", tag });
  }
  const found = updateOrLock(relation, sql, { columns, where: condition });
  const values = written.map((column) => sql.value("new", column)).join(", ");
  const insert = `${insertInto(relation, written)} SELECT ${values} WHERE NOT EXISTS (SELECT 1 FROM u)`;
  // A row may come to be between the search and the insert.
  const overwritten = settable(relation, { keyChanged: false, omitted: NO_COLUMNS });
  const late = relation.key?.arbiter ? ` ${onConflict(relation, overwritten)}` : "";
  return sql.shape(`WITH u AS (${found}) ${insert}${late}`, doing, {
    type: "update_missing",
    tag: "INSERT 0 1",
  });
}

/** Before a key changes: removes another row that has the new key, if the row with the old key is there. */
export function evictStatement(relation: MappedRelation): StatementShape {
  const sql = new Parameters();
  const old = where(relation, sql, "old");
  return sql.shape(
    `DELETE FROM ${rows(relation)} WHERE ${where(relation, sql, "new")} AND NOT (${old})` +
      ` AND EXISTS (SELECT 1 FROM ${rows(relation)} WHERE ${old})`,
    `update "${relation.label}"`,
    { type: "update_exists", tag: "DELETE 0", unless: true },
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
  const condition = `${where(relation, sql, side, shape)} AND (${differs})`;
  const came = relation.columns.filter((column) => column.written && !shape.omitted.has(column.index));
  const kept = [
    ...relation.extraColumns,
    ...relation.columns.filter((c) => c.written && shape.omitted.has(c.index)).map((c) => c.name),
  ].map(quote);
  const gone = `DELETE FROM ${rows(relation)} WHERE ${condition} RETURNING ` +
    (kept.length === 0 ? "1" : kept.map((name) => `t.${name}`).join(", "));
  const into = [...came.map((column) => quote(column.name)), ...kept].join(", ");
  const values = [...came.map((column) => sql.value("new", column)), ...kept.map((name) => `gone.${name}`)];
  return sql.shape(
    `WITH gone AS (${gone}) INSERT INTO ${target(relation)} (${into}) OVERRIDING SYSTEM VALUE` +
      ` SELECT ${values.join(", ")} FROM gone`,
    `update "${relation.label}"`,
    relation.key === null ? { type: "update_missing", tag: "INSERT 0 0" } : undefined,
  );
}

/** Deletes one row. */
export function deleteStatement(relation: MappedRelation, match: MatchShape): StatementShape {
  const sql = new Parameters();
  const condition = where(relation, sql, "old", match);
  return sql.shape(`DELETE FROM ${rows(relation)} WHERE ${condition}`, `delete from "${relation.label}"`, {
    type: "delete_missing",
    tag: "DELETE 0",
  });
}

/** Truncates tables together. Never cascades further than the publisher did, whose message names all tables. */
export function truncateStatement(
  relations: readonly MappedRelation[],
  restartIdentity: boolean,
): StatementShape {
  const tables = relations.map((r) => r.partitioned ? target(r) : `ONLY ${target(r)}`).join(", ");
  const labels = relations.map((relation) => `"${relation.label}"`).join(", ");
  return new Parameters().shape(
    `TRUNCATE TABLE ${tables}${restartIdentity ? " RESTART IDENTITY" : ""}`,
    `truncate ${labels}`,
  );
}

/** A name as an SQL identifier. */
export function quote(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** The parameters of a statement under construction; one per side and column. */
class Parameters {
  readonly #sources: ParameterSource[] = [];
  readonly #types: number[] = [];
  readonly #numbers = new Map<string, number>();

  value(side: TupleSide, column: MappedColumn): string {
    const id = `${side}${column.index}`;
    let number = this.#numbers.get(id);
    if (number === undefined) {
      this.#types.push(column.typeOid);
      number = this.#sources.push({ side, index: column.index });
      this.#numbers.set(id, number);
    }
    return `$${number}`;
  }

  shape(sql: string, doing: string, conflict?: StatementShape["conflict"]): StatementShape {
    return { sql, parameterTypes: this.#types, parameters: this.#sources, doing, conflict };
  }
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

function onConflict(relation: MappedRelation, overwritten: readonly MappedColumn[]): string {
  const arbiter = names(relation.key!.columns);
  if (overwritten.length === 0) return `ON CONFLICT (${arbiter}) DO NOTHING`;
  const assignments = overwritten.map(({ name }) => `${quote(name)} = excluded.${quote(name)}`);
  return `ON CONFLICT (${arbiter}) DO UPDATE SET ${assignments.join(", ")}`;
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

/** An UPDATE, or where it would set nothing a lock, of the rows that `where` finds. */
function updateOrLock(
  relation: MappedRelation,
  sql: Parameters,
  options: { columns: readonly MappedColumn[]; where: string; returning?: boolean },
): string {
  if (options.columns.length === 0) {
    return `SELECT 1 FROM ${rows(relation)} WHERE ${options.where} FOR UPDATE`;
  }
  const set = options.columns.map((column) => `${quote(column.name)} = ${sql.value("new", column)}`);
  const returning = options.returning === false ? "" : " RETURNING 1";
  return `UPDATE ${rows(relation)} SET ${set.join(", ")} WHERE ${options.where}${returning}`;
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
