/**
 * What the catalog says about the types of columns, kept for as long as a session: the same few types are in
 * every table, and to find their operators is most of the work of reading one.
 *
 * Nothing here is ever forgotten, for nothing of it changes under a type that is in use: what an array, a domain, a
 * range or an enum is made of is set when it is made, and a new type has a new OID. Two rare things do change it, and
 * the next session sees them. A composite type may get another attribute: one without an operator makes comparing
 * its rows fail, which ends this session. A superuser may give a type another default operator class, or move its
 * extension to another schema: the old operator still tells equal values apart, or is not found, which ends this
 * session too. Names of types and casts of text, which anybody may change, are not here but in `relation.ts`.
 */
import type { Query } from "./query.ts";

/** What does not change about a type. */
export interface ColumnType {
  /** Every type that it is made of, itself included: a domain's base, an array's elements, a composite's columns. */
  readonly parts: readonly number[];
  /** See `LocalColumn.equality`. */
  readonly equality: string | null;
}

/** The types that a session has met. */
export class ColumnTypes {
  readonly #known = new Map<number, ColumnType>();

  /** Reads those of `oids` that have not been met before, by one query or none. */
  async meet(query: Query, oids: readonly number[]): Promise<void> {
    const unknown = oids.filter((oid) => !this.#known.has(oid));
    if (unknown.length === 0) return;
    for (const { oid, parts, equality } of await query(TYPES, [`{${unknown.join(",")}}`])) {
      this.#known.set(Number(oid), { parts: JSON.parse(parts!), equality });
    }
  }

  /** A type that {@link ColumnTypes.meet} was asked for; undefined if it is gone. */
  get(oid: number): ColumnType | undefined {
    return this.#known.get(oid);
  }
}

/**
 * `class` gives a type the operator of its default B-tree (strategy 3) or hash (strategy 1) class, and `leaf` to
 * those that are made of nothing else; a type without one (varchar) takes that of a type to which it is
 * binary-coercible without being asked. Arrays, composites, enums and ranges compare by pg_catalog's own operator
 * if all their leaves have one. Operators are named with their schema, because apply sessions have no search path.
 */
const TYPES = `WITH RECURSIVE part(whole, oid) AS (
  SELECT asked.oid, asked.oid FROM unnest($1::oid[]) AS asked(oid)
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
)
SELECT whole::text AS oid,
  (SELECT json_agg(part.oid::bigint ORDER BY part.oid) FROM part WHERE part.whole = kind.whole)::text AS parts,
  CASE
    WHEN NOT (SELECT bool_and(operator IS NOT NULL) FROM leaf WHERE leaf.whole = kind.whole) THEN NULL
    WHEN bool_or(nested) THEN 'pg_catalog.='
    ELSE (SELECT operator FROM leaf WHERE leaf.whole = kind.whole) END AS equality
  FROM kind GROUP BY whole`;
