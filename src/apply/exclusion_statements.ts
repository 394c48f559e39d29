/**
 * The SQL for rows of other keys that a row may not stand beside: second unique keys and exclusion constraints. Pure text.
 */
import { type ConflictType, resolve } from "../conflict_policy.ts";
import type { LocalExclusion } from "../pg/relation.ts";
import type { MappedRelation } from "./relation_map.ts";
import { described, type Settled } from "./settling.ts";
import { literal, Parameters, quote, rows, type StatementShape, where } from "./sql_text.ts";

/** What tells two looks for rows in the way apart. */
export interface ExclusionShape {
  readonly change: "insert" | "update";
  readonly keyChanged: boolean;
  readonly omitted: ReadonlySet<number>;
}

/**
 * Before a row is written: looks for others that it may not stand beside by a unique index or an exclusion constraint
 * other than the key. If all of them are older, they go; if one is newer, the change is passed over: what follows asks
 * for `mmlite.skip`. Either is noted, with both rows, and marks the table as diverged.
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
  const texts = key.columns.map(({ name }) => `t.${quote(name)}::text`).join(", ");
  const hash = `mmlite.key_hash(${literal(relation.hashedAs)}, ARRAY[${texts}])`;
  const [at, node] = [sql.version("at"), sql.version("node")];
  const standing = `mmlite.compare_version(t.xmin, ${hash}, ${at}, ${node}, '-infinity')`;
  const alike = relation.exclusions.map((one) => `(${isAlike(one, standing)})`);
  const place = relation.partitioned ? "(t.tableoid, t.ctid)" : "t.ctid";
  const found = `SELECT t.tableoid, t.ctid, t.xmin AS version, ${hash} AS hash, ${standing} AS standing,` +
    ` ${counted(alike)} AS met, pg_catalog.to_json(t.*) AS row FROM ${
      rows(relation)
    } WHERE NOT (${isItself}) AND (${alike.join(" OR ")}) FOR UPDATE`;
  const type = shape.change === "insert" ? "insert_exists" : "update_exists";
  // That its key is taken is one of them.
  const isTaken = shape.change === "insert"
    ? isNew
    : shape.keyChanged
    ? `${isNew} AND NOT (${isBefore})`
    : "false";
  const isMultiple = `(SELECT pg_catalog.sum(met) FROM other) + (SELECT CASE WHEN EXISTS (SELECT FROM ${
    rows(relation)
  } WHERE ${isTaken}) THEN 1 ELSE 0 END) > 1`;
  const resolution = (type: ConflictType) =>
    `CASE WHEN m.is_older THEN ${literal(resolve(policy, type, "older"))} ELSE ${
      literal(resolve(policy, type, "newer"))
    } END`;
  const verdict =
    `SELECT CASE WHEN m.is_multiple THEN 'multiple_unique_conflicts' ELSE ${
      literal(type)
    } END AS type, CASE WHEN m.is_multiple THEN ${resolution("multiple_unique_conflicts")} ELSE ${
      resolution(type)
    } END AS resolution FROM (SELECT ${isMultiple} AS is_multiple, pg_catalog.bool_or(standing < 0) AS is_older` +
    ` FROM other HAVING count(*) > 0) AS m`;
  const change: Settled = { change: shape.change, side: "new", remote: "new", omitted: shape.omitted };
  const { key: keyJson, remote } = described(relation, sql, change);
  const noted = `mmlite.settle_exclusion(verdict.type, verdict.resolution, ${literal(shape.change)}, ${
    literal(relation.schema)
  }, ${literal(relation.name)}, ${keyJson}, other.row, other.version, other.hash, ${remote}, ${node}, ${at})`;
  const places = relation.partitioned ? "other.tableoid, other.ctid" : "other.ctid";
  return sql.shape(
    `WITH v AS (SELECT c.*${computed} FROM (SELECT ${came}) AS c), other AS (${found}), verdict AS (${verdict}),` +
      ` noted AS (SELECT ${noted} AS applied FROM other, verdict),` +
      ` gone AS (DELETE FROM ${rows(relation)} USING other WHERE ${place} = (${places})` +
      ` AND (SELECT resolution FROM verdict) = 'applied')` +
      ` SELECT pg_catalog.set_config('mmlite.skip', CASE WHEN EXISTS (SELECT FROM verdict WHERE resolution <> 'applied')` +
      ` THEN 'on' ELSE 'off' END, true), (SELECT count(applied) FROM noted)`,
    `${shape.change} "${relation.label}"`,
  );
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
