/**
 * The SQL that writes a row which was fetched from its author. Pure text.
 */
import type { MappedRelation } from "./relation_map.ts";
import { guarded, isFound, locking, notSkipped } from "./settling.ts";
import {
  insertInto,
  literal,
  names,
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
