/**
 * What the catalog says about one local table, as far as applying changes to it needs to know.
 */
import type { ColumnType, ColumnTypes } from "./column_types.ts";
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
  /** What the server computes it by, in SQL: never written; null where it is. */
  readonly generated: string | null;
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

/** What no two rows may have in common, by a unique index or an exclusion constraint. */
export interface LocalExclusion {
  /** Columns or expressions, in SQL, under the collation of the index, and the operator by which two of them are alike,
   * such as `OPERATOR(pg_catalog.=)`. */
  readonly parts: readonly { readonly expression: string; readonly operator: string }[];
  /** Rows that it is about, in SQL; null for all. */
  readonly predicate: string | null;
  /** Whether it may be checked at the end of a transaction: then it is not checked at all for what a replica applies. */
  readonly deferrable: boolean;
  readonly nullsAlike: boolean;
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
  /** Of all unique indexes and exclusion constraints, those over a plain key included. */
  readonly exclusions: readonly LocalExclusion[];
  /** Whether a trigger or rule of it, or of a partition, runs for what a replica applies (`ENABLE REPLICA` or
   * `ALWAYS`). */
  readonly firesOnApply: boolean;
  /** Of a partition, the table that it is part of in the end; null for what is no partition. */
  readonly root: LocalRoot | null;
}

/** The root of a tree of partitions. */
export interface LocalRoot {
  readonly schema: string;
  readonly name: string;
  /** Names of its columns, in its order, which may be another one than that of a partition. */
  readonly columns: readonly string[];
}

const TEXT = 25;
/** `"char"`, whose cast from text takes the first byte and is not its input function. */
const CHAR = 18;

/**
 * Reads a table by schema and name; undefined where there is none. One query for servers of 10 and newer, and one
 * more where it has types that `types` has not met.
 */
export async function readLocalTable(
  query: Query,
  { schema, name, serverVersion, types }: {
    schema: string;
    name: string;
    serverVersion: number;
    types: ColumnTypes;
  },
): Promise<LocalTable | undefined> {
  const [row] = await query(tableSql(serverVersion), [schema, name]);
  if (row === undefined) return undefined;
  const columns: ColumnRow[] = JSON.parse(row.columns ?? "[]");
  const indexes: IndexRow[] = JSON.parse(row.indexes ?? "[]");
  await types.meet(query, columns.map(([, , typeOid]) => typeOid));
  const castTargets: number[] = JSON.parse(row.casts ?? "[]");
  return {
    oid: Number(row.oid),
    schema,
    name,
    kind: row.kind!,
    columns: columns.map((column) => toColumn(column, { type: types.get(column[2]), castTargets })),
    uniqueIndexes: indexes.map((index) => toIndex(index, columns)),
    exclusions: (JSON.parse(row.exclusions ?? "[]") as ExclusionRow[]).map(toExclusion),
    firesOnApply: row.fires === "true",
    root: JSON.parse(row.root ?? "null"),
  };
}

/** As {@link tableSql} returns them. */
type ColumnRow = [
  number: number,
  name: string,
  typeOid: number,
  typeModifier: number,
  typeName: string,
  deterministic: boolean,
  generated: string | null,
  identityAlways: boolean,
];
type IndexRow = [
  columnNumbers: string,
  primary: boolean,
  replicaIdentity: boolean,
  immediate: boolean,
  exclusion: boolean,
];

type ExclusionRow = [
  parts: [expression: string, operator: string][],
  predicate: string | null,
  deferrable: boolean,
  nullsAlike: boolean,
];

function toExclusion([parts, predicate, deferrable, nullsAlike]: ExclusionRow): LocalExclusion {
  return {
    parts: parts.map(([expression, operator]) => ({ expression, operator })),
    ...{ predicate, deferrable, nullsAlike },
  };
}

/** `castTargets` are the types to which people have made casts of text. */
function toColumn(
  [_, name, typeOid, typeModifier, typeName, deterministic, generated, identityAlways]: ColumnRow,
  { type, castTargets }: { type: ColumnType | undefined; castTargets: readonly number[] },
): LocalColumn {
  // A type that was dropped since the table was read has no parts; so has the column then, and its statements fail.
  const castIsInput = typeOid !== CHAR && !type?.parts.some((part) => castTargets.includes(part));
  const equality = type?.equality ?? null;
  return {
    ...{ name, typeOid, typeModifier, typeName, castIsInput, deterministic, generated, identityAlways },
    equality,
  };
}

function toIndex(
  [numbers, primary, replicaIdentity, immediate, exclusion]: IndexRow,
  table: readonly ColumnRow[],
): LocalUniqueIndex {
  // Below 12 one system column can be in an index.
  const nameOf = (number: number) => table.find(([other]) => other === number)?.[1] ?? "oid";
  const columns = numbers.split(" ").map((number) => nameOf(Number(number)));
  return { columns, primary, replicaIdentity, immediate, exclusion };
}

/**
 * Every part is found by an index, however many tables there are. No lock is asked for but by `pg_get_indexdef`, for
 * indexes over expressions.
 *
 * A cast of text is the type's input function unless somebody made one (OIDs from 16384 on), or the type is "char".
 * A type named with modifier -1 is one without: `character` alone would mean `character(1)`.
 */
function tableSql(serverVersion: number): string {
  const generated = serverVersion >= 120000
    ? "(SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d" +
      " WHERE a.attgenerated <> '' AND d.adrelid = a.attrelid AND d.adnum = a.attnum)"
    : "NULL::text";
  const deterministic = serverVersion >= 120000
    ? "coalesce((SELECT k.collisdeterministic FROM pg_collation k WHERE k.oid = a.attcollation), true)"
    : "true";
  // Where all collations take different bytes for different values it does not matter which one is asked.
  const collation = serverVersion >= 120000
    ? ` || coalesce((SELECT format(' COLLATE %I.%I', s.nspname, k.collname)
             FROM pg_collation k JOIN pg_namespace s ON s.oid = k.collnamespace
            WHERE k.oid = i.indcollation[n - 1] AND k.oid IS DISTINCT FROM (SELECT a.attcollation FROM pg_attribute a
                    WHERE a.attrelid = i.indrelid AND a.attnum = i.indkey[n - 1])
              AND (NOT k.collisdeterministic OR EXISTS (SELECT FROM pg_attribute a JOIN pg_collation c ON c.oid = a.attcollation
                    WHERE a.attrelid = i.indrelid AND NOT c.collisdeterministic))), '')`
    : "";
  const keyColumns = serverVersion >= 110000
    ? "array_to_string((i.indkey::int2[])[0:i.indnkeyatts - 1], ' ')"
    : "i.indkey::text";
  return `WITH RECURSIVE target AS (
  SELECT c.oid, c.relkind, c.relispartition FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname = $1 AND c.relname = $2
), member(oid) AS (
  SELECT oid FROM target
  UNION
  SELECT i.inhrelid FROM target, member, pg_inherits i WHERE target.relkind = 'p' AND i.inhparent = member.oid
), ancestor(oid, is_partition) AS (
  SELECT oid, relispartition FROM target WHERE relispartition
  UNION
  SELECT p.oid, p.relispartition FROM ancestor, pg_inherits i, pg_class p
   WHERE ancestor.is_partition AND i.inhrelid = ancestor.oid AND p.oid = i.inhparent
)
SELECT target.oid::text AS oid, target.relkind::text AS kind,
  (SELECT json_agg(json_build_array(a.attnum, a.attname, a.atttypid::bigint, a.atttypmod, format_type(a.atttypid, -1),
      ${deterministic}, ${generated}, a.attidentity = 'a') ORDER BY a.attnum)
     FROM pg_attribute a
    WHERE a.attrelid = target.oid AND a.attnum > 0 AND NOT a.attisdropped)::text AS columns,
  (SELECT json_agg(json_build_array(${keyColumns}, i.indisprimary, i.indisreplident,
      i.indimmediate, i.indisexclusion) ORDER BY i.indexrelid)
     FROM pg_index i
    WHERE i.indrelid = target.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
      AND i.indexprs IS NULL)::text AS indexes,
  (SELECT json_agg(json_build_array(parts.list, pg_get_expr(i.indpred, i.indrelid), NOT i.indimmediate,
      coalesce((to_jsonb(i)->>'indnullsnotdistinct')::boolean, false)) ORDER BY i.indexrelid)
     FROM pg_index i LEFT JOIN pg_constraint e ON e.conindid = i.indexrelid AND e.contype IN ('p', 'u', 'x')
          AND e.conrelid = i.indrelid,
    LATERAL (SELECT json_agg(json_build_array(
          CASE WHEN i.indkey[n - 1] = 0 THEN pg_get_indexdef(i.indexrelid, n, false) ELSE (SELECT quote_ident(a.attname)
             FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum = i.indkey[n - 1]) END${collation},
          (SELECT format('OPERATOR(%I.%s)', s.nspname, o.oprname) FROM pg_operator o JOIN pg_namespace s ON s.oid = o.oprnamespace
            WHERE o.oid = coalesce(e.conexclop[n], (SELECT a.amopopr FROM pg_opclass c JOIN pg_amop a
                ON a.amopfamily = c.opcfamily AND a.amoplefttype = c.opcintype AND a.amoprighttype = c.opcintype
             WHERE c.oid = i.indclass[n - 1] AND a.amopstrategy = 3)))) ORDER BY n) AS list
       FROM generate_series(1, ${serverVersion >= 110000 ? "i.indnkeyatts" : "i.indnatts"}) AS n) AS parts
    WHERE i.indrelid = target.oid AND (i.indisunique OR i.indisexclusion) AND i.indisvalid)::text AS exclusions,
  (SELECT json_agg(k.casttarget::bigint) FROM pg_cast k
    WHERE k.castsource = ${TEXT} AND k.castmethod = 'f' AND k.oid >= 16384)::text AS casts,
  (EXISTS (SELECT FROM pg_trigger g JOIN member ON member.oid = g.tgrelid WHERE g.tgenabled IN ('R', 'A'))
    OR EXISTS (SELECT FROM pg_rewrite w JOIN member ON member.oid = w.ev_class WHERE w.ev_enabled IN ('R', 'A')))::text
    AS fires,
  (SELECT json_build_object('schema', n.nspname, 'name', c.relname, 'columns', (SELECT json_agg(a.attname ORDER BY a.attnum)
       FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped))
     FROM ancestor JOIN pg_class c ON c.oid = ancestor.oid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE NOT ancestor.is_partition)::text AS root
  FROM target`;
}
