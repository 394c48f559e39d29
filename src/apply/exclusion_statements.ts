/**
 * The SQL for rows of other keys that a row may not stand beside: second unique keys and exclusion constraints. Pure text.
 */
import {
  type ConflictType,
  divergingPolicy,
  resolve,
  type Standing,
  type TablePolicy,
} from "../conflict_policy.ts";
import type { LocalExclusion } from "../pg/relation.ts";
import type { MappedRelation } from "./relation_map.ts";
import { described, type Settled } from "./settling.ts";
import {
  keyHash,
  keyMatches,
  keyTextsOf,
  literal,
  Parameters,
  quote,
  rows,
  type StatementShape,
  where,
} from "./sql_text.ts";

/** What tells two looks for rows in the way apart. */
export interface ExclusionShape {
  readonly change: "insert" | "update";
  readonly keyChanged: boolean;
  readonly omitted: ReadonlySet<number>;
}

/**
 * Before a row is written: looks for others that it may not stand beside by a unique index or an exclusion constraint
 * other than the key. If all of them are older, they go; if one is newer, the change is passed over, what follows asks
 * for `mmlite.skip`, and the older version of its own row goes, as it does where the change was made. Either is noted,
 * with both rows, and marks the table as diverged.
 *
 * It is as if all changes had been made one after the other in the order of their versions: an older row goes also where
 * the change itself is followed by a newer one of its row that is here already. Otherwise nodes would differ more often.
 */
export function exclusionStatement(
  relation: MappedRelation,
  shape: ExclusionShape,
): StatementShape {
  const sql = new Parameters();
  const { key, policy } = { key: relation.key!, policy: relation.settlement.policy };
  const isNew = where(relation, sql, "new");
  const isBefore = shape.keyChanged ? where(relation, sql, "old") : isNew;
  const isItself = shape.keyChanged ? `(${isNew} OR ${isBefore})` : isNew;
  const before = (name: string) =>
    `(SELECT t.${quote(name)} FROM ${rows(relation)} WHERE ${isBefore} LIMIT 1) AS ${quote(name)}`;
  const came = [
    ...relation.columns.filter(({ written }) => written).map((column) =>
      shape.omitted.has(column.index)
        ? before(column.name)
        : `${sql.value("new", column)} AS ${quote(column.name)}`
    ),
    ...relation.extraColumns.map(before),
  ].join(", ");
  const computed = relation.generatedColumns.map(({ name, typeName, expression }) =>
    `, (${expression ?? "NULL"})::${typeName} AS ${quote(name)}`
  ).join("");
  const hash = keyHash(relation);
  const [at, node] = [sql.version("at"), sql.version("node")];
  const standing = `mmlite.compare_version(t.xmin, ${hash}, ${at}, ${node}, '-infinity')`;
  const alike = relation.exclusions.map((one) => `(${isAlike(one, standing)})`);
  const place = (row: string) => relation.partitioned ? `(${row}.tableoid, ${row}.ctid)` : `${row}.ctid`;
  const found = `SELECT t.tableoid, t.ctid, t.xmin AS version, ${hash} AS hash, ${standing} AS standing,` +
    ` ${counted(alike)} AS met, pg_catalog.to_json(t.*) AS row FROM ${
      rows(relation)
    } WHERE NOT (${isItself}) AND (${alike.join(" OR ")})${
      stays(relation, shape, { isNew, isBefore, standing })
    } FOR UPDATE`;
  const type = shape.change === "insert" ? "insert_exists" : "update_exists";
  // That its key is taken is one of them.
  const isAnother = `${isNew} AND NOT (${isBefore})`;
  const isTaken = shape.change === "insert" ? isNew : shape.keyChanged ? isAnother : null;
  const isMultiple = `pg_catalog.sum(met)${
    isTaken === null
      ? ""
      : ` + (SELECT CASE WHEN EXISTS (SELECT FROM ${rows(relation)} WHERE ${isTaken}) THEN 1 ELSE 0 END)`
  } > 1`;
  const change: Settled = { change: shape.change, side: "new", remote: "new", omitted: shape.omitted };
  const { key: keyJson, remote } = described(relation, sql, change);
  const keys = `${keyTextsOf("new", key, sql)}, ${shape.keyChanged ? keyTextsOf("old", key, sql) : "NULL"}`;
  const noted = `mmlite.settle_exclusion(verdict.type, verdict.resolution, ${literal(shape.change)}, ${
    literal(relation.schema)
  }, ${
    literal(relation.name)
  }, ${keyJson}, other.row, other.version, other.hash, ${remote}, ${node}, ${at}, ${
    sql.version("newHash")
  }, CASE WHEN verdict.loses THEN ${literal(removal(relation, hash))} END, ${keys})`;
  return sql.shape(
    `WITH v AS (SELECT c.*${computed} FROM (SELECT ${came}) AS c), other AS (${found}), verdict AS (${
      verdict(policy, type, isMultiple)
    }),` +
      ` noted AS (SELECT ${noted} AS applied FROM other, verdict),` +
      ` gone AS (DELETE FROM ${rows(relation)} USING other WHERE ${place("t")} = ${place("other")}` +
      ` AND (SELECT resolution FROM verdict) = 'applied')` +
      ` SELECT pg_catalog.set_config('mmlite.skip', CASE WHEN EXISTS (SELECT FROM verdict WHERE resolution <> 'applied')` +
      ` THEN 'on' ELSE 'off' END, true), (SELECT count(applied) FROM noted)`,
    `${shape.change} "${relation.label}"`,
  );
}

/**
 * What is done about `other`, if there is any: the type of the conflict, how it is resolved, and whether the change loses:
 * is passed over because it is the older one.
 */
function verdict(policy: TablePolicy, type: ConflictType, isMultiple: string): string {
  const many = "multiple_unique_conflicts";
  const each = (decide: (type: ConflictType) => string) =>
    decide(many) === decide(type)
      ? decide(type)
      : `CASE WHEN is_multiple THEN ${decide(many)} ELSE ${decide(type)} END`;
  const resolution = (type: ConflictType) =>
    `CASE WHEN is_older THEN ${literal(resolve(policy, type, "older"))} ELSE ${
      literal(resolve(policy, type, "newer"))
    } END`;
  const loses = (type: ConflictType) => String((policy.types[type] ?? policy.policy) === "last_update_wins");
  return `SELECT ${each(literal)} AS type, ${each(resolution)} AS resolution, is_older AND ${
    each(loses)
  } AS loses FROM (SELECT ${isMultiple} AS is_multiple, pg_catalog.bool_or(standing < 0) AS is_older` +
    ` FROM other HAVING count(*) > 0) AS m`;
}

/**
 * A condition that no row with the key stays though the change is newer, or older, than it: under policies that let nodes
 * differ nobody gives way to what is not written. Empty where all goes by versions.
 */
function stays(
  relation: MappedRelation,
  { change, keyChanged }: ExclusionShape,
  { isNew, isBefore, standing }: { isNew: string; isBefore: string; standing: string },
): string {
  const { policy } = relation.settlement;
  if (divergingPolicy(policy) === null) return "";
  const type = change === "insert" ? "insert_exists" : keyChanged ? "update_exists" : "update_origin_differs";
  const isHere = keyChanged ? `${isNew} AND NOT (${isBefore})` : isNew;
  const staysIf = (of: Standing) => resolve(policy, type, of) !== "applied";
  const follows = type === "update_origin_differs" ? false : staysIf("newer");
  return ` AND NOT EXISTS (SELECT FROM ${
    rows(relation)
  } WHERE ${isHere} AND CASE ${standing} WHEN 0 THEN ${follows}` +
    ` WHEN 1 THEN ${staysIf("newer")} ELSE ${staysIf("older")} END)`;
}

/**
 * Removes older versions of the row that a change is of, by the key that it gives it and by the one before. Parameters: both
 * as text, when the change was made, and by which node. It is only run where a change loses.
 */
function removal(relation: MappedRelation, hash: string): string {
  const by = (parameter: string) => keyMatches(relation, (i) => `${parameter}[${i + 1}]`);
  return `DELETE FROM ${rows(relation)} WHERE (${by("$1")} OR ${by("$2")})` +
    ` AND mmlite.compare_version(t.xmin, ${hash}, $3, $4, '-infinity') >= 0`;
}

/** How many of some conditions hold. */
function counted(conditions: readonly string[]): string {
  if (conditions.length === 1) return "1";
  return conditions.map((one) => `CASE WHEN ${one} THEN 1 ELSE 0 END`).join(" + ");
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
