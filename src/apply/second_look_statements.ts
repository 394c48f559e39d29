/**
 * The SQL for what a change may not have seen: rows with its key where the key is deferrable, which PostgreSQL does not
 * keep apart in a session that applies, and rows of transactions that were not over yet. Pure text.
 */
import { resolve } from "../conflict_policy.ts";
import { takeKept } from "./gone_statements.ts";
import type { MappedRelation } from "./relation_map.ts";
import {
  keyMatches,
  keyTextsOf,
  literal,
  Parameters,
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

/**
 * Before a row is chosen among those with its key: waits for whoever changes one of them, so that what follows sees what
 * became of it.
 */
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

/** In the end: removes what has the key of a row that was deleted and is older, which may be another one than was. */
export function removeOlderStatement(relation: MappedRelation): StatementShape {
  const sql = new Parameters();
  const found = lookedAt(relation, sql, "old");
  const isOlder = `mmlite.compare_version(t.xmin, ${sql.version("oldHash")}, ${sql.version("at")}, ${
    sql.version("node")
  }, '-infinity') = 1`;
  return sql.shape(
    `SELECT CASE WHEN EXISTS (SELECT 1 FROM ${rows(relation)} WHERE ${
      where(relation, sql, "old")
    } AND ${isOlder}) THEN mmlite.remove_older(${found}) END`,
    `delete from "${relation.label}"`,
  );
}

/** As {@link removeOlderStatement} for every row that was kept in the server, and forgets these. */
export function removeOlderKeptStatement(relation: MappedRelation): StatementShape {
  const sql = new Parameters();
  const isOlder = `mmlite.compare_version(t.xmin, g.hash, ${sql.version("at")}, ${
    sql.version("node")
  }, '-infinity') = 1`;
  return sql.shape(
    `WITH g AS (${takeKept(relation)}) SELECT mmlite.remove_older(${
      lookedAtBy(relation, sql, { values: "g.key", hash: "g.hash" })
    }) FROM g WHERE EXISTS (SELECT 1 FROM ${rows(relation)} WHERE ${
      keyMatches(relation, (i) => `g.key[${i + 1}]`)
    } AND ${isOlder})`,
    `delete from "${relation.label}"`,
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

/** How a row is found: the table in SQL as `t`, and a condition on it in which `$1` are the texts of its key. */
export function foundBy(relation: MappedRelation): { readonly in: string; readonly by: string } {
  return { in: rows(relation), by: keyMatches(relation, (i) => `($1)[${i + 1}]`) };
}

/** The first parameters of `mmlite.note_second_look` and its like: the row by a key, and the change's version. */
function lookedAt(relation: MappedRelation, sql: Parameters, side: TupleSide): string {
  const hash = sql.version(side === "new" ? "newHash" : "oldHash");
  return lookedAtBy(relation, sql, { values: keyTextsOf(side, relation.key!, sql), hash });
}

function lookedAtBy(
  relation: MappedRelation,
  sql: Parameters,
  { values, hash }: { values: string; hash: string },
): string {
  const columns = `ARRAY[${relation.key!.columns.map(({ name }) => literal(name)).join(", ")}]`;
  const found = foundBy(relation);
  return `${literal(relation.schema)}, ${literal(relation.name)}, ${literal(found.in)}, ${
    literal(found.by)
  }, ${columns}, ${values}, ${hash}, ${sql.version("node")}, ${sql.version("at")}`;
}
