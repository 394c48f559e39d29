/**
 * The SQL that writes a row which was fetched from its author. Pure text.
 */
import type { MappedRelation } from "./relation_map.ts";
import { guarded, isFound, locking, notSkipped, overwriting } from "./settling.ts";
import {
  insertInto,
  literal,
  NO_COLUMNS,
  Parameters,
  rows,
  settable,
  type StatementShape,
  updateOrLock,
  where,
} from "./sql_text.ts";

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
  // The author's own deletes count as well: the row was read before them, perhaps. One at its very time was in the
  // transaction that put the row afterwards, or it would not be there.
  const isGone =
    `(SELECT g.deleted_at IS NOT NULL AND mmlite.newer(g.deleted_at, g.deleted_by, ${at}, ${node})` +
    ` FROM mmlite.newest_tombstone(${hash}, ${literal(relation.schema)}, ${
      literal(relation.name)
    }, ${at}, '') g)`;
  const values = written.map((column) => sql.value("new", column)).join(", ");
  const insert = `${insertInto(relation, written)} SELECT ${values} WHERE CASE WHEN ${
    isFound(relation, isHere)
  } THEN false ELSE ${guarded(relation, `NOT ${isGone}`)} END`;
  // An older one may come to be between the search and the insert.
  const arbiter = relation.key!.arbiter ? ` ${overwriting(relation, () => takes)}` : "";
  return sql.shape(
    `WITH u AS (${found})${locking(relation, isHere)} ${insert}${arbiter}`,
    `update "${relation.label}"`,
  );
}

/**
 * Before {@link fetchedStatement}: the row awaits nothing any more, if the version that its author had is the one that
 * it has sent last, or has given way to another node's or to another row. Where its author was ahead, what it has yet
 * to send follows the row all the same, and takes back what third nodes had written meanwhile: so the row is asked for
 * again.
 */
export function answeredStatement(relation: MappedRelation): StatementShape {
  const sql = new Parameters();
  const [hash, at, node] = [sql.version("newHash"), sql.version("at"), sql.version("node")];
  const isHere = where(relation, sql, "new");
  const awaited = (alias: string) =>
    `${alias}.origin = ${node} AND ${alias}.hash = ${hash} AND ${alias}.table_schema = ${
      literal(relation.schema)
    } AND ${alias}.table_name = ${literal(relation.name)}`;
  const versioned = `SELECT FROM ${rows(relation)}, mmlite.row_version(t.xmin, ${hash}) v WHERE ${isHere}`;
  const hasCome = `CASE WHEN EXISTS (SELECT FROM ${rows(relation)} WHERE ${isHere})` +
    ` THEN EXISTS (${versioned} AND CASE WHEN v.node = ${node} THEN v.at = ${at}` +
    ` ELSE mmlite.newer(v.at, v.node, ${at}, ${node}) END)` +
    // Nothing but what was awaited has come for a row that is missing.
    ` ELSE EXISTS (SELECT FROM mmlite.unsent n WHERE ${awaited("n")} AND n.at >= ${at}) END`;
  const written = notSkipped(relation);
  const isOver = written === "" ? hasCome : `CASE WHEN ${written} THEN ${hasCome} ELSE true END`;
  return sql.shape(
    `DELETE FROM mmlite.unsent u WHERE ${awaited("u")} AND u.at <= ${at} AND ${isOver}`,
    `update "${relation.label}"`,
  );
}
