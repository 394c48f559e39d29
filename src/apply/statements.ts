/**
 * The SQL that applies one change, for a relation and the shape of the change. Pure text.
 *
 * Every statement settles its own conflicts (`settling.ts`), so that nothing has to wait for a reply.
 */
import type { MappedRelation } from "./relation_map.ts";
import {
  admits,
  givesWay,
  guarded,
  insertMissing,
  isFound,
  locking,
  maySettleThere,
  noted,
  notSkipped,
  onConflict,
  type Settled,
} from "./settling.ts";
import {
  both,
  insertInto,
  isVersioned,
  keyHash,
  literal,
  type MatchShape,
  NO_COLUMNS,
  Parameters,
  quote,
  rows,
  settable,
  type StatementShape,
  target,
  updateOrLock,
  type UpdateShape,
  where,
} from "./sql_text.ts";
import { mayComeLate, mayHaveTwins, noteMissed } from "./second_look_statements.ts";

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
  const { omitted, long, keyChanged: moves } = shape;
  const change: Settled = { change: "update", side, remote: "new", omitted, long, moves };
  const condition = [
    where(relation, sql, side, shape),
    notSkipped(relation),
    givesWay(relation, sql, { type: "update_origin_differs", ...change }),
    maySettleThere(relation, sql, shape),
  ].filter((one) => one !== "").join(" AND ");
  const found = updateOrLock(relation, sql, { columns: settable(relation, shape), where: condition });
  // A row whose key changes may have been left where it was: what follows sees to it.
  const doing = `update "${relation.label}"`;
  if (shape.keyChanged && mayHaveTwins(relation)) {
    const silently = givesWay(relation, sql, { type: "update_origin_differs", ...change, silent: true });
    const unmoved = `DELETE FROM ${rows(relation)} WHERE NOT EXISTS (SELECT 1 FROM u) AND ${
      both(where(relation, sql, side, shape), silently)
    }`;
    const missing = insertMissing(relation, sql, { change, isHere: "" });
    return sql.shape(`WITH u AS (${found}), gone AS (${unmoved}) ${missing}`, doing);
  }
  if (shape.keyChanged && isVersioned(relation)) return sql.shape(found, doing);
  const isHere = relation.key === null ? "" : where(relation, sql, side);
  const missing = insertMissing(relation, sql, { change, isHere });
  return sql.shape(`WITH u AS (${found})${locking(relation, isHere)} ${missing}`, doing);
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
  const { omitted, keyChanged: moves } = shape;
  const change: Settled = { change: "update", side, remote: "new", omitted, moves };
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

/** Deletes one row; the result is one row where there was none, and empty otherwise. */
export function deleteStatement(relation: MappedRelation, match: MatchShape): StatementShape {
  const sql = new Parameters();
  const change: Settled = { change: "delete", side: "old", remote: null };
  const condition = both(
    where(relation, sql, "old", match),
    givesWay(relation, sql, { type: "delete_origin_differs", ...change }),
  );
  const isHere = relation.key === null ? "" : where(relation, sql, "old");
  const isNoted = noted(relation, sql, { type: "delete_missing", standing: "missing", ...change });
  const missing = mayComeLate(relation)
    ? `CASE WHEN ${isNoted} THEN true ELSE ${noteMissed(relation, sql)} END`
    : isNoted;
  return sql.shape(
    `WITH u AS (DELETE FROM ${rows(relation)} WHERE ${condition} RETURNING 1)${locking(relation, isHere)}` +
      ` SELECT ${missing} WHERE NOT (${isFound(relation, isHere)})`,
    `delete from "${relation.label}"`,
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
  return sql.shape(
    `SELECT mmlite.apply_truncate(${list(relations.map(({ schema }) => schema))}, ${
      list(relations.map(({ name }) => name))
    }, ${list(relations.map(({ partitioned }) => partitioned ? "" : "ONLY "))}, ${
      list(relations.map(keyHash))
    }, ${restartIdentity}, ${sql.version("at")}, ${sql.version("node")})`,
    doing,
  );
}
