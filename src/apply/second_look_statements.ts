/**
 * The SQL for what a change may not have seen: rows with its key where the key is deferrable, which PostgreSQL does not
 * keep apart in a session that applies, and rows of transactions that were not over yet. Pure text.
 */
import { resolve } from "../conflict_policy.ts";
import type { MappedRelation } from "./relation_map.ts";
import {
  literal,
  Parameters,
  quote,
  rows,
  type StatementShape,
  target,
  type TupleSide,
  where,
} from "./sql_text.ts";

/** Whether several rows may come to have one key while changes of the relation are applied. */
export function mayHaveTwins({ key, settlement }: MappedRelation): boolean {
  return key !== null && key.deferrable && settlement.versioned;
}

/** Before a row is chosen among those with its key: waits for whoever changes one of them, so that what follows sees
 * what became of it. */
export function lockStatement(relation: MappedRelation): StatementShape {
  const sql = new Parameters();
  return sql.shape(
    `SELECT 1 FROM ${rows(relation)} WHERE ${where(relation, sql, "old")} FOR UPDATE`,
    `find a row of "${relation.label}"`,
  );
}

/**
 * In the end, before {@link twinStatement}: looks whether others may have written rows that are not to be seen yet.
 * Whoever writes a row with the key of one that is here already waits for it.
 */
export function othersStatement(relation: MappedRelation): StatementShape {
  return new Parameters().shape(
    `SELECT pg_catalog.set_config('mmlite.others', mmlite.others_write(${
      literal(target(relation))
    }::pg_catalog.regclass)::text, true)`,
    `look who writes to "${relation.label}"`,
  );
}

/** In the end: leaves one row with the key of one that was written. With `later` it is only looked at after the commit. */
export function twinStatement(
  relation: MappedRelation,
  { change, later }: { change: "insert" | "update"; later: boolean },
): StatementShape {
  const sql = new Parameters();
  const { policy } = relation.settlement;
  const type = change === "insert" ? "insert_exists" : "update_exists";
  const found = lookedAt(relation, sql, "new");
  const settled = `${found}, ${literal(change)}, ${literal(resolve(policy, type, "newer"))}, ${
    literal(resolve(policy, type, "older"))
  })`;
  const doing = `${change} "${relation.label}"`;
  const noted = `mmlite.note_second_look(${settled}`;
  if (later) return sql.shape(`SELECT ${noted}`, doing);
  const twins = `SELECT count(*) > 1 FROM (SELECT 1 FROM ${rows(relation)} WHERE ${
    where(relation, sql, "new")
  } LIMIT 2) AS twins`;
  return sql.shape(
    `SELECT CASE WHEN (${twins}) THEN mmlite.settle_twins(${settled} END,` +
      ` CASE WHEN pg_catalog.current_setting('mmlite.others') = 'true' THEN ${noted} END`,
    doing,
  );
}

/** Whether a row that is missing when it is deleted has to go when it comes to be seen. */
export function mayComeLate({ key, settlement }: MappedRelation): boolean {
  return key !== null && settlement.versioned &&
    resolve(settlement.policy, "update_deleted", "older") === "skipped";
}

/** Notes a delete that has found nothing: the row may be of a transaction that is not over yet. */
export function noteMissed(relation: MappedRelation, sql: Parameters): string {
  return `mmlite.note_second_look(${lookedAt(relation, sql, "old")}, 'delete', 'applied', 'skipped')`;
}

/** Before a key is changed: the same where there is no row with the old one. */
export function missedStatement(relation: MappedRelation): StatementShape {
  const sql = new Parameters();
  const isHere = `EXISTS (SELECT 1 FROM ${rows(relation)} WHERE ${where(relation, sql, "old")})`;
  return sql.shape(
    `SELECT CASE WHEN ${isHere} THEN false ELSE ${noteMissed(relation, sql)} END`,
    `update "${relation.label}"`,
  );
}

/** The first parameters of `mmlite.note_second_look` and its like: the row by a key, and the change's version. */
function lookedAt(relation: MappedRelation, sql: Parameters, side: TupleSide): string {
  const key = relation.key!.columns;
  const matches = key.map(({ name, equality, typeName }, i) =>
    equality === null
      ? `t.${quote(name)}::text = ($1)[${i + 1}]`
      : `t.${quote(name)} OPERATOR(${equality}) ($1)[${i + 1}]::${typeName}`
  ).join(" AND ");
  const columns = `ARRAY[${key.map(({ name }) => literal(name)).join(", ")}]`;
  const values = `ARRAY[${key.map((column) => `${sql.value(side, column)}::text`).join(", ")}]`;
  const hash = sql.version(side === "new" ? "newHash" : "oldHash");
  return `${literal(relation.schema)}, ${literal(relation.name)}, ${literal(rows(relation))}, ${
    literal(matches)
  }, ${columns}, ${values}, ${hash}, ${sql.version("node")}, ${sql.version("at")}`;
}
