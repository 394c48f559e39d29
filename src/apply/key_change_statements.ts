/**
 * The SQL around an update that gives a row another key: whoever stands there goes, or the row does. Pure text.
 */
import type { MappedRelation } from "./relation_map.ts";
import { givesWay, insertMissing, noted, notSkipped, type Settled } from "./settling.ts";
import {
  both,
  isVersioned,
  Parameters,
  rows,
  type StatementShape,
  type UpdateShape,
  where,
} from "./sql_text.ts";

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
