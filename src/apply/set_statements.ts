/**
 * The SQL that applies changes of many rows of one relation at once. Pure text.
 *
 * Unlike the statements for one row these settle no conflict: a row that is there already, or is not there, is an
 * error, and what they belong to is applied again row by row. Values come as arrays of their text, one per column.
 */
import { ORIGINS_SINCE } from "../pg/server.ts";
import type { MappedColumn, MappedRelation } from "./relation_map.ts";
import { literal, names, quote, rows, type StatementShape, target } from "./sql_text.ts";

const TEXT_ARRAY_OID = 1009;
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

/** Reads rows from COPY; its parameters are the columns of a line. A key that is there already is an error. */
export function copyStatement(relation: MappedRelation): StatementShape {
  const columns = relation.columns.filter((column) => column.written);
  return {
    sql: `COPY ${target(relation)} (${names(columns)}) FROM STDIN`,
    parameterTypes: [],
    parameters: columns.map(({ index }) => ({ side: "new", index })),
    doing: `insert into "${relation.label}"`,
  };
}

/**
 * Does nothing but fail where no unique index covers the key any more: COPY would not notice. PostgreSQL looks for
 * the index whenever the table has changed.
 */
export function requireKeyStatement(relation: MappedRelation): StatementShape {
  const columns = relation.columns.filter((column) => column.written);
  const nothing = columns.map(({ typeName }) => `NULL::${typeName}`).join(", ");
  const overriding = columns.some((column) => column.identityAlways) ? " OVERRIDING SYSTEM VALUE" : "";
  return {
    sql: `INSERT INTO ${target(relation)} (${names(columns)})${overriding}` +
      ` SELECT ${nothing} WHERE false ON CONFLICT (${names(relation.key!.columns)}) DO NOTHING`,
    parameterTypes: [],
    parameters: [],
    doing: `insert into "${relation.label}"`,
  };
}

/** Whether an UPDATE sets anything, with columns (their index) whose values did not come left as they are. */
export function setsColumns(relation: MappedRelation, omitted: ReadonlySet<number>): boolean {
  return changedColumns(relation, omitted).length > 0;
}

/**
 * Updates rows that are found by their keys. The last parameters are how many there must be, and the time before which
 * another node's version gives way.
 */
export function updateSetStatement(relation: MappedRelation, omitted: ReadonlySet<number>): StatementShape {
  const columns = changedColumns(relation, omitted);
  const set = columns.map(({ name, index, typeName }) => `${quote(name)} = v.c${index}::${typeName}`).join(
    ", ",
  );
  const used = [...relation.key!.columns, ...columns];
  return setStatement({
    doing: `update "${relation.label}"`,
    side: "new",
    used,
    change: `UPDATE ${rows(relation)} SET ${set} FROM ${values(used)} WHERE ${matches(relation, used)}`,
  });
}

/** Deletes rows that are found by their keys; the last parameters are those of {@link updateSetStatement}. */
export function deleteSetStatement(relation: MappedRelation): StatementShape {
  const used = relation.key!.columns;
  return setStatement({
    doing: `delete from "${relation.label}"`,
    side: "old",
    used,
    change: `DELETE FROM ${rows(relation)} USING ${values(used)} WHERE ${matches(relation, used)}`,
  });
}

function setStatement(
  { doing, side, used, change }: {
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
    parameterTypes: [...used.map(() => TEXT_ARRAY_OID), INT8_OID, TIMESTAMPTZ_OID],
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
