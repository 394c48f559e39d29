/**
 * What the catalog says about one local table, as far as applying changes to it needs to know.
 */
import type { Query } from "./query.ts";

/** A column of a local table. */
export interface LocalColumn {
  readonly name: string;
  readonly typeOid: number;
  /** `pg_attribute.atttypmod`, -1 for none. */
  readonly typeModifier: number;
  /** The type as a cast names it, without its modifier: `integer`, `public.mood`. */
  readonly typeName: string;
  /** Whether a cast of text to the type is its input function, and no other one's. */
  readonly castIsInput: boolean;
  /** Whether equal values are the same bytes, as far as the collation goes. */
  readonly deterministic: boolean;
  /** Computed by the server: never written. */
  readonly generated: boolean;
  /** `GENERATED ALWAYS AS IDENTITY`: an INSERT must override it, an UPDATE cannot set it. */
  readonly identityAlways: boolean;
  /** The operator that tells whether two values are equal, such as `pg_catalog.=`; null for types such as json
   * and point that have none that could serve a unique key. */
  readonly equality: string | null;
}

/** A unique index over plain columns and all rows. */
export interface LocalUniqueIndex {
  /** In the order of the index. */
  readonly columns: readonly string[];
  readonly primary: boolean;
  readonly replicaIdentity: boolean;
  /** Whether it is checked at once; a deferrable one cannot decide ON CONFLICT and is not enforced on apply. */
  readonly immediate: boolean;
  /** A key WITHOUT OVERLAPS (18 and later): enforced as an exclusion constraint, which cannot decide ON CONFLICT. */
  readonly exclusion: boolean;
}

/** A local table. */
export interface LocalTable {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  /** `pg_class.relkind`: `r` and `p` (partitioned) take changes. */
  readonly kind: string;
  readonly columns: readonly LocalColumn[];
  readonly uniqueIndexes: readonly LocalUniqueIndex[];
  /** Whether a trigger or rule of it, or of a partition, runs for what a replica applies (`ENABLE REPLICA` or
   * `ALWAYS`). */
  readonly firesOnApply: boolean;
}

/** Reads a table by schema and name; undefined where there is none. One query for servers of 10 and newer. */
export async function readLocalTable(
  query: Query,
  { schema, name, serverVersion }: { schema: string; name: string; serverVersion: number },
): Promise<LocalTable | undefined> {
  const [row] = await query(tableSql(serverVersion), [schema, name]);
  if (row === undefined) return undefined;
  return {
    oid: Number(row.oid),
    schema,
    name,
    kind: row.kind!,
    columns: JSON.parse(row.columns ?? "[]"),
    uniqueIndexes: JSON.parse(row.indexes ?? "[]"),
    firesOnApply: row.fires === "true",
  };
}

/**
 * `part` holds every type that a column's type is made of: a domain's base, an array's elements, a composite's
 * columns. `leaf` gives those that are made of nothing else the operator of their default B-tree (strategy 3) or
 * hash (strategy 1) class; a type without one (varchar) takes that of a type to which it is binary-coercible
 * without being asked. Arrays, composites, enums and ranges compare by pg_catalog's own operator if all their
 * leaves have one. Operators are named with their schema, because apply sessions have no search path.
 *
 * A cast of text is the type's input function unless somebody made one, or the type is "char". A type named with
 * modifier -1 is one without: `character` alone would mean `character(1)`.
 */
function tableSql(serverVersion: number): string {
  const generated = serverVersion >= 120000 ? "a.attgenerated <> ''" : "false";
  const deterministic = serverVersion >= 120000
    ? "coalesce((SELECT k.collisdeterministic FROM pg_collation k WHERE k.oid = a.attcollation), true)"
    : "true";
  const keyColumns = serverVersion >= 110000 ? "i.indnkeyatts" : "i.indnatts";
  return `WITH RECURSIVE target AS (
  SELECT c.oid, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname = $1 AND c.relname = $2
), member(oid) AS (
  SELECT oid FROM target
  UNION
  SELECT i.inhrelid FROM pg_inherits i JOIN member ON member.oid = i.inhparent JOIN target ON target.relkind = 'p'
), part(whole, oid) AS (
  SELECT a.atttypid, a.atttypid FROM target JOIN pg_attribute a ON a.attrelid = target.oid
   WHERE a.attnum > 0 AND NOT a.attisdropped
  UNION
  SELECT part.whole, inside.oid
    FROM part JOIN pg_type t ON t.oid = part.oid JOIN LATERAL (
      SELECT t.typbasetype AS oid WHERE t.typtype = 'd'
      UNION ALL SELECT t.typelem WHERE t.typcategory = 'A' AND t.typtype = 'b' AND t.typelem <> 0
      UNION ALL SELECT a.atttypid FROM pg_attribute a
       WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    ) inside ON true
), class AS (
  SELECT DISTINCT ON (oc.opcintype) oc.opcintype AS type, quote_ident(n.nspname) || '.' || o.oprname AS operator
    FROM pg_opclass oc
    JOIN pg_am am ON am.oid = oc.opcmethod
    JOIN pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amoplefttype = oc.opcintype
     AND ao.amoprighttype = oc.opcintype AND ao.amopstrategy = CASE am.amname WHEN 'btree' THEN 3 ELSE 1 END
    JOIN pg_operator o ON o.oid = ao.amopopr
    JOIN pg_namespace n ON n.oid = o.oprnamespace
   WHERE oc.opcdefault AND am.amname IN ('btree', 'hash')
   ORDER BY oc.opcintype, am.amname
), kind AS (
  SELECT part.whole, t.oid, t.typtype IN ('e', 'r', 'm') AS generic,
         t.typtype = 'c' OR (t.typcategory = 'A' AND t.typtype = 'b' AND t.typelem <> 0) AS nested
    FROM part JOIN pg_type t ON t.oid = part.oid WHERE t.typtype <> 'd'
), leaf AS (
  SELECT kind.whole, CASE WHEN kind.generic THEN 'pg_catalog.=' ELSE coalesce(
      (SELECT operator FROM class WHERE class.type = kind.oid),
      (SELECT min(operator) FROM pg_cast JOIN class ON class.type = casttarget
        WHERE castsource = kind.oid AND castmethod = 'b' AND castcontext = 'i')) END AS operator
    FROM kind WHERE NOT kind.nested
), equality AS (
  SELECT whole, CASE
      WHEN NOT (SELECT bool_and(operator IS NOT NULL) FROM leaf WHERE leaf.whole = kind.whole) THEN NULL
      WHEN bool_or(nested) THEN 'pg_catalog.='
      ELSE (SELECT operator FROM leaf WHERE leaf.whole = kind.whole) END AS operator
    FROM kind GROUP BY whole
)
SELECT target.oid::text AS oid, target.relkind::text AS kind,
  (SELECT json_agg(json_build_object('name', a.attname, 'typeOid', a.atttypid::bigint,
      'typeModifier', a.atttypmod, 'typeName', format_type(a.atttypid, -1),
      'castIsInput', a.atttypid <> '"char"'::regtype AND NOT EXISTS (
        SELECT FROM part JOIN pg_cast k ON k.casttarget = part.oid AND k.castsource = 'text'::regtype
         WHERE part.whole = a.atttypid AND k.castmethod = 'f' AND k.oid >= 16384),
      'deterministic', ${deterministic},
      'generated', ${generated}, 'identityAlways', a.attidentity = 'a', 'equality', e.operator) ORDER BY a.attnum)
     FROM pg_attribute a LEFT JOIN equality e ON e.whole = a.atttypid
    WHERE a.attrelid = target.oid AND a.attnum > 0 AND NOT a.attisdropped)::text AS columns,
  (SELECT json_agg(json_build_object(
      'columns', (SELECT json_agg(a.attname ORDER BY k.position)
                    FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, position)
                    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                   WHERE k.position <= ${keyColumns}),
      'primary', i.indisprimary, 'replicaIdentity', i.indisreplident, 'immediate', i.indimmediate,
      'exclusion', i.indisexclusion)
      ORDER BY i.indexrelid)
     FROM pg_index i
    WHERE i.indrelid = target.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
      AND i.indexprs IS NULL)::text AS indexes,
  (EXISTS (SELECT FROM pg_trigger g JOIN member ON member.oid = g.tgrelid WHERE g.tgenabled IN ('R', 'A'))
    OR EXISTS (SELECT FROM pg_rewrite w JOIN member ON member.oid = w.ev_class WHERE w.ev_enabled IN ('R', 'A')))::text
    AS fires
  FROM target`;
}
