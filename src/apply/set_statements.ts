/**
 * The SQL that applies changes of many rows of one relation at once. Pure text.
 *
 * Unlike the statements for one row these settle no conflict: a row that is there already, or is not there, is an
 * error, and what they belong to is applied again row by row. Values come as arrays, one per column: of their text, or
 * of the column's type where they came in binary form.
 */
import { ORIGINS_SINCE } from "../pg/server.ts";
import type { MappedColumn, MappedRelation } from "./relation_map.ts";
import { literal, names, quote, rows, type StatementShape, target } from "./sql_text.ts";

const TEXT_ARRAY_OID = 1009;
/** Arrays of the types that may come in binary form, by the OID of the element. */
const ARRAY_OIDS: Readonly<Record<number, number>> = {
  // bool, bytea, name, int8, int2, int4, text, oid, json
  ...{ 16: 1000, 17: 1001, 19: 1003, 20: 1016, 21: 1005, 23: 1007, 25: 1009, 26: 1028, 114: 199 },
  // float4, float8
  ...{ 700: 1021, 701: 1022 },
  // bpchar, varchar, date, time, timestamp, timestamptz
  ...{ 1042: 1014, 1043: 1015, 1082: 1182, 1083: 1183, 1114: 1115, 1184: 1185 },
  // numeric, uuid, jsonb
  ...{ 1700: 1231, 2950: 2951, 3802: 3807 },
};
const INT8_OID = 20;
const TIMESTAMPTZ_OID = 1184;

/** See `Settlement.isOwn`; `originId` is the OID of the sender's replication origin, `origin` its name. */
export function ownVersionCondition(
  { serverVersion, originId }: { serverVersion: number; originId: number },
  origin: string,
): string {
  if (serverVersion >= ORIGINS_SINCE) {
    return `(SELECT x."timestamp" IS NULL OR x.roident = ${originId}` +
      ` FROM pg_catalog.pg_xact_commit_timestamp_origin(t.xmin) AS x)`;
  }
  return `(pg_catalog.pg_xact_commit_timestamp(t.xmin) IS NULL OR mmlite.is_noted_of(t.xmin, ${
    literal(origin)
  }))`;
}

/** In which form the values of a set came. */
interface SetForm {
  readonly isBinary: boolean;
}

/** Reads rows from COPY; its parameters are the columns of a row. A key that is there already is an error. */
export function copyStatement(relation: MappedRelation, { isBinary }: SetForm): StatementShape {
  const columns = relation.columns.filter((column) => column.written);
  return {
    sql: `COPY ${target(relation)} (${names(columns)}) FROM STDIN${isBinary ? " (FORMAT binary)" : ""}`,
    parameterTypes: [],
    parameters: columns.map(({ index }) => ({ side: "new", index })),
    doing: `insert into "${relation.label}"`,
  };
}

/**
 * Does nothing but fail where COPY would not notice that the table has changed: no unique index covers the key any more,
 * or a column has another type, as which binary values would be read. PostgreSQL looks at both anew whenever the table
 * has changed; arrays are alike only if their elements have the same type.
 */
export function requireTableStatement(relation: MappedRelation, { isBinary }: SetForm): StatementShape {
  const columns = relation.columns.filter((column) => column.written);
  const nothing = columns.map(({ typeName }) => `NULL::${typeName}`).join(", ");
  const overriding = columns.some((column) => column.identityAlways) ? " OVERRIDING SYSTEM VALUE" : "";
  const types = isBinary ? columns.map((column) => hasItsType(relation, column)).join("") : "";
  const byKey = relation.key === null ? "" : ` ON CONFLICT (${names(relation.key.columns)}) DO NOTHING`;
  return {
    sql: `INSERT INTO ${target(relation)} (${names(columns)})${overriding}` +
      ` SELECT ${nothing} WHERE false${types}${byKey}`,
    parameterTypes: [],
    parameters: [],
    doing: `insert into "${relation.label}"`,
  };
}

function hasItsType(relation: MappedRelation, { name, typeName }: MappedColumn): string {
  const own = `(NULL::${target(relation)}).${quote(name)}`;
  return ` AND ARRAY[${own}] OPERATOR(pg_catalog.=) NULL::${typeName}[]`;
}

/** Whether an UPDATE sets anything, with columns (their index) whose values did not come left as they are. */
export function setsColumns(relation: MappedRelation, omitted: ReadonlySet<number>): boolean {
  return changedColumns(relation, omitted).length > 0;
}

/**
 * Updates rows that are found by their keys. The last parameters are how many there must be, and the time before which
 * another node's version gives way.
 */
export function updateSetStatement(
  relation: MappedRelation,
  { omitted, isBinary }: SetForm & { omitted: ReadonlySet<number> },
): StatementShape {
  const columns = changedColumns(relation, omitted);
  const set = columns.map(({ name, index, typeName }) => `${quote(name)} = v.c${index}::${typeName}`).join(
    ", ",
  );
  const used = [...relation.key!.columns, ...columns];
  return setStatement({
    isBinary,
    doing: `update "${relation.label}"`,
    side: "new",
    used,
    change: `UPDATE ${rows(relation)} SET ${set} FROM ${values(used)} WHERE ${matches(relation, used)}`,
  });
}

/** Deletes rows that are found by their keys; the last parameters are those of {@link updateSetStatement}. */
export function deleteSetStatement(relation: MappedRelation, { isBinary }: SetForm): StatementShape {
  const used = relation.key!.columns;
  return setStatement({
    isBinary,
    doing: `delete from "${relation.label}"`,
    side: "old",
    used,
    change: `DELETE FROM ${rows(relation)} USING ${values(used)} WHERE ${matches(relation, used)}`,
  });
}

function setStatement(
  { isBinary, doing, side, used, change }: {
    isBinary: boolean;
    doing: string;
    side: "old" | "new";
    used: readonly MappedColumn[];
    change: string;
  },
): StatementShape {
  return {
    sql: `WITH u AS (${change} RETURNING 1)` +
      // The time is named here as well, so that it has its place without versions too.
      ` SELECT mmlite.require_rows(pg_catalog.count(*), $${used.length + 1}) FROM u WHERE $${
        used.length + 2
      } IS NOT NULL`,
    parameterTypes: [
      ...used.map(({ typeOid }) => isBinary ? ARRAY_OIDS[typeOid] : TEXT_ARRAY_OID),
      INT8_OID,
      TIMESTAMPTZ_OID,
    ],
    parameters: used.map(({ index }) => ({ side, index })),
    doing,
  };
}

/** The arrays side by side, as rows: in a list of results functions are read in step, which in FROM would be kept. */
function values(used: readonly MappedColumn[]): string {
  const arrays = used.map(({ index }, i) => `pg_catalog.unnest($${i + 1}) AS c${index}`);
  return `(SELECT ${arrays.join(", ")}) AS v`;
}

/** The row by its key, if it gives way: a version of another node's that is not older for sure is left to statements
 * for one row. */
function matches({ key, settlement }: MappedRelation, used: readonly MappedColumn[]): string {
  const keyed = key!.columns.map(({ name, index, typeName, equality }) =>
    `t.${quote(name)} OPERATOR(${equality}) v.c${index}::${typeName}`
  ).join(" AND ");
  if (!settlement.versioned) return keyed;
  return `${keyed} AND CASE WHEN pg_catalog.pg_xact_commit_timestamp(t.xmin) < $${
    used.length + 2
  } THEN true ELSE ${settlement.isOwn} END`;
}

function changedColumns({ columns, key }: MappedRelation, omitted: ReadonlySet<number>): MappedColumn[] {
  return columns.filter((column) =>
    column.written && !omitted.has(column.index) && !key!.columns.includes(column)
  );
}
