/**
 * The SQL for rows of other keys that a row may not stand beside: second unique keys and exclusion constraints. Pure text.
 */
import { resolve, type Standing } from "../conflict_policy.ts";
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
  const isItself = shape.keyChanged
    ? `(${where(relation, sql, "new")} OR ${where(relation, sql, "old")})`
    : where(relation, sql, "new");
  const isBefore = where(relation, sql, shape.keyChanged ? "old" : "new");
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
  const alike = relation.exclusions.map((one) => `(${isAlike(one, standing)})`).join(" OR ");
  const place = relation.partitioned ? "(t.tableoid, t.ctid)" : "t.ctid";
  const found = `SELECT t.tableoid, t.ctid, t.xmin AS version, ${hash} AS hash, ${standing} AS standing,` +
    ` pg_catalog.to_json(t.*) AS row FROM ${
      rows(relation)
    } WHERE NOT (${isItself}) AND (${alike}) FOR UPDATE`;
  const type = shape.change === "insert" ? "insert_exists" : "update_exists";
  const change: Settled = { change: shape.change, side: "new", remote: "new", omitted: shape.omitted };
  const { key: keyJson, remote } = described(relation, sql, change);
  const resolution = (lost: Standing) => literal(resolve(policy, type, lost));
  const noted = `mmlite.settle_exclusion(CASE WHEN (SELECT count(*) > 1 FROM other) THEN` +
    ` 'multiple_unique_conflicts' ELSE ${literal(type)} END, (SELECT resolution FROM verdict), ${
      literal(shape.change)
    }, ${literal(relation.schema)}, ${
      literal(relation.name)
    }, ${keyJson}, other.row, other.version, other.hash, ${remote}, ${node}, ${at})`;
  const places = relation.partitioned ? "other.tableoid, other.ctid" : "other.ctid";
  return sql.shape(
    `WITH v AS (SELECT c.*${computed} FROM (SELECT ${came}) AS c), other AS (${found}), verdict AS (SELECT CASE WHEN bool_or(standing < 0) THEN ${
      resolution("older")
    } ELSE ${resolution("newer")} END AS resolution, count(*) > 0 AS any FROM other),` +
      ` noted AS (SELECT ${noted} AS applied FROM other),` +
      ` gone AS (DELETE FROM ${rows(relation)} USING other WHERE ${place} = (${places})` +
      ` AND (SELECT resolution FROM verdict) = 'applied')` +
      ` SELECT pg_catalog.set_config('mmlite.skip', CASE WHEN v.any AND v.resolution <> 'applied' THEN 'on' ELSE 'off' END,` +
      ` true), (SELECT count(applied) FROM noted) FROM verdict v`,
    `${shape.change} "${relation.label}"`,
  );
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
