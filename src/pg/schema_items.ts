/**
 * What tables of this database consist of, each thing with the statement that makes it, in an order in which they can be
 * made: for a node that is to have the same tables. Functions, triggers, rights, comments and storage settings are not
 * among it.
 */
// @ts-types="@types/pg"
import pg from "pg";
import { MmliteError } from "../errors.ts";
import { formatTableName, type TableName } from "../table_name.ts";
import type { Query, Row } from "./query.ts";

/** Kinds of things, in the order in which they are made. */
export const ITEM_KINDS = [
  ...["extension", "schema", "type", "sequence", "table", "partition", "owner"],
  ...["constraint", "index", "foreign key", "replica identity"],
] as const;
/** One of {@link ITEM_KINDS}. */
export type ItemKind = (typeof ITEM_KINDS)[number];

/** One thing. */
export interface SchemaItem {
  readonly kind: ItemKind;
  /** As an operator names it. */
  readonly name: string;
  readonly sql: string;
  /** What has to be the same where it exists already: each part by its name. */
  readonly parts: readonly { readonly name: string; readonly is: string }[];
}

/** All that some tables need. */
export interface SchemaItems {
  readonly items: readonly SchemaItem[];
  /** What was left out, in words. */
  readonly leftOut: readonly string[];
}

const IDENTITY_OF_PARTITIONS_SINCE = 170000;
const GENERATED_SINCE = 120000;

/** Reads them; `tables` are OIDs. Runs in the caller's transaction, whose `search_path` has to be empty. */
export async function readSchemaItems(
  query: Query,
  { tables, serverVersion }: { readonly tables: readonly number[]; readonly serverVersion: number },
): Promise<SchemaItems> {
  const oids = `{${tables.join(",")}}`;
  await refuseInheritance(query, oids);
  const types = await readTypes(query, { tables: oids });
  const sequences = await query(SEQUENCES, [oids]);
  const columns = await readColumns(query, oids, serverVersion);
  const rows = await query(TABLES, [oids]);
  const present = new Set(rows.map((row) => qualified(nameOf(row))));
  const { items: constraints, leftOut } = await readConstraints(query, oids);
  const items = [
    ...await readExtensions(query, oids),
    ...types,
    ...sequences.flatMap(sequenceItems),
    ...rows.map((row) => tableItem(row, columns.get(row.oid!) ?? [])),
    ...rows.filter(({ bound }) => bound !== null).filter((row) => present.has(parentOf(row))).map(
      partitionItem,
    ),
    ...constraints,
    ...await readIndexes(query, oids),
    ...rows.flatMap(replicaIdentityItem),
  ];
  const placed = [...rows, ...sequences, ...await query(TYPE_SCHEMAS, [oids])];
  const schemas = new Set(placed.map(({ schema }) => schema!));
  return { items: inOrder([...[...schemas].map(schemaItem), ...items]), leftOut };
}

/** Types of this database by their names, as {@link readSchemaItems} has them. */
export async function readTypeItems(query: Query, names: readonly string[]): Promise<SchemaItem[]> {
  return await readTypes(query, { names });
}

function inOrder(items: readonly SchemaItem[]): SchemaItem[] {
  return ITEM_KINDS.flatMap((kind) => items.filter((one) => one.kind === kind));
}

const TABLES = `SELECT c.oid::text, n.nspname AS schema, c.relname AS name, c.relreplident AS identity,
    CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END AS key, pg_get_expr(c.relpartbound, c.oid) AS bound,
    pn.nspname AS parent_schema, p.relname AS parent_name,
    (SELECT i.relname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid WHERE x.indrelid = c.oid AND x.indisreplident)
      AS identity_index
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_inherits h ON h.inhrelid = c.oid AND c.relispartition
  LEFT JOIN pg_class p ON p.oid = h.inhparent LEFT JOIN pg_namespace pn ON pn.oid = p.relnamespace
 WHERE c.oid = ANY ($1::oid[]) ORDER BY n.nspname, c.relname`;

async function refuseInheritance(query: Query, oids: string): Promise<void> {
  const rows = await query(
    `SELECT DISTINCT n.nspname AS schema, c.relname AS name FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid
       JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE NOT c.relispartition AND (h.inhrelid = ANY ($1::oid[]) OR h.inhparent = ANY ($1::oid[])) ORDER BY 1, 2`,
    [oids],
  );
  if (rows.length === 0) return;
  const names = rows.map((row) => formatTableName(nameOf(row))).join(", ");
  throw new MmliteError("schema_mismatch", `Cannot take over tables: ${names} inherits from another table`, {
    hint:
      "Create tables with inheritance by hand, by pg_dump --schema-only, or leave them out with --exclude",
  });
}

function schemaItem(schema: string): SchemaItem {
  return { kind: "schema", name: schema, sql: `CREATE SCHEMA ${quote(schema)}`, parts: [] };
}

async function readExtensions(query: Query, oids: string): Promise<SchemaItem[]> {
  const rows = await query(
    `WITH RECURSIVE ${USED_TYPES}, relation(oid) AS (
       SELECT unnest($1::oid[]) UNION SELECT i.indexrelid FROM pg_index i WHERE i.indrelid = ANY ($1::oid[])),
     thing(classid, objid) AS (
       SELECT 'pg_class'::regclass::oid, oid FROM relation
       UNION SELECT 'pg_attrdef'::regclass::oid, oid FROM pg_attrdef WHERE adrelid = ANY ($1::oid[])
       UNION SELECT 'pg_constraint'::regclass::oid, oid FROM pg_constraint WHERE conrelid = ANY ($1::oid[])),
     used(classid, objid) AS (
       SELECT d.refclassid, d.refobjid FROM thing t JOIN pg_depend d ON d.classid = t.classid AND d.objid = t.objid
       UNION SELECT 'pg_type'::regclass::oid, y.oid FROM used_type y)
     SELECT DISTINCT x.extname AS name, n.nspname AS schema FROM used u
       JOIN pg_depend e ON e.classid = u.classid AND e.objid = u.objid AND e.deptype = 'e'
        AND e.refclassid = 'pg_extension'::regclass
       JOIN pg_extension x ON x.oid = e.refobjid JOIN pg_namespace n ON n.oid = x.extnamespace ORDER BY 1`,
    [oids],
  );
  return rows.map(({ name, schema }) => ({
    kind: "extension",
    name: name!,
    sql: `CREATE EXTENSION ${quote(name!)} SCHEMA ${quote(schema!)}`,
    parts: [],
  }));
}

/** What the columns of tables are of, and whatever that is made of. */
const USED_TYPES = `used_type(oid, depth) AS (
    SELECT DISTINCT a.atttypid, 0 FROM pg_attribute a
     WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
    UNION
    SELECT x.oid, u.depth + 1 FROM used_type u JOIN pg_type t ON t.oid = u.oid CROSS JOIN LATERAL (
      SELECT t.typelem AS oid WHERE t.typelem <> 0 AND t.typlen = -1
      UNION ALL SELECT t.typbasetype WHERE t.typtype = 'd'
      UNION ALL SELECT a.atttypid FROM pg_attribute a
        WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) x
    WHERE u.depth < 100)`;

/** Not those of PostgreSQL itself or of an extension, nor arrays, which come with what they are of. */
const OWN_TYPES = `n.nspname <> 'pg_catalog' AND NOT (t.typtype = 'b' AND t.typelem <> 0 AND t.typlen = -1)
  AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_type'::regclass AND e.objid = t.oid AND e.deptype = 'e')`;

const TYPE_SCHEMAS = `WITH RECURSIVE ${USED_TYPES}
  SELECT DISTINCT n.nspname AS schema FROM used_type u JOIN pg_type t ON t.oid = u.oid
    JOIN pg_namespace n ON n.oid = t.typnamespace WHERE ${OWN_TYPES}`;

async function readTypes(
  query: Query,
  wanted: { readonly tables: string } | { readonly names: readonly string[] },
): Promise<SchemaItem[]> {
  const [from, parameter] = "tables" in wanted
    ? [
      `WITH RECURSIVE ${USED_TYPES}, wanted AS (SELECT oid, max(depth) AS depth FROM used_type GROUP BY oid)`,
      wanted.tables,
    ]
    : [
      `WITH wanted AS (SELECT t.oid, 0 AS depth FROM json_array_elements_text($1::json) AS x(name)
         JOIN pg_type t ON t.oid = to_regtype(x.name))`,
      JSON.stringify(wanted.names),
    ];
  const rows = await query(
    `${from}
     SELECT n.nspname AS schema, t.typname AS name, t.typtype AS kind, format_type(t.oid, NULL) AS shown,
       (SELECT c.relkind FROM pg_class c WHERE c.oid = t.typrelid) AS relkind,
       (SELECT json_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid)::text AS labels,
       (SELECT json_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)) ORDER BY a.attnum)
          FROM pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)::text
         AS fields,
       format_type(t.typbasetype, t.typtypmod) AS base, t.typnotnull::text AS not_null, t.typdefault AS expression,
       CASE WHEN t.typcollation <> b.typcollation THEN (SELECT format('%I.%I', cn.nspname, c.collname) FROM pg_collation c
         JOIN pg_namespace cn ON cn.oid = c.collnamespace WHERE c.oid = t.typcollation) END AS collation,
       (SELECT json_agg(format('CONSTRAINT %I %s', c.conname, pg_get_constraintdef(c.oid)) ORDER BY c.conname)
          FROM pg_constraint c WHERE c.contypid = t.oid AND c.contype = 'c')::text AS checks
       FROM wanted w JOIN pg_type t ON t.oid = w.oid JOIN pg_namespace n ON n.oid = t.typnamespace
       LEFT JOIN pg_type b ON b.oid = t.typbasetype
      WHERE ${OWN_TYPES} ORDER BY w.depth DESC, 1, 2`,
    [parameter],
  );
  return rows.map(typeItem);
}

function typeItem(row: Row): SchemaItem {
  const name = `${quote(row.schema!)}.${quote(row.name!)}`;
  const list = (text: string | null): string[] => text === null ? [] : JSON.parse(text);
  switch (row.kind) {
    case "e": {
      const labels = list(row.labels).map((label) => pg.escapeLiteral(label)).join(", ");
      return whole("type", { name, sql: `CREATE TYPE ${name} AS ENUM (${labels})` });
    }
    case "c":
      if (row.relkind !== "c") break;
      return whole("type", { name, sql: `CREATE TYPE ${name} AS (${list(row.fields).join(", ")})` });
    case "d": {
      const words = [
        `CREATE DOMAIN ${name} AS ${row.base}`,
        ...(row.collation === null ? [] : [`COLLATE ${row.collation}`]),
        ...(row.expression === null ? [] : [`DEFAULT ${row.expression}`]),
        ...(row.not_null === "true" ? ["NOT NULL"] : []),
        ...list(row.checks),
      ];
      return whole("type", { name, sql: words.join(" ") });
    }
  }
  throw new MmliteError(
    "schema_mismatch",
    `Cannot take over type ${row.shown}: it is no enum, domain or composite type`,
    { hint: "Create it by hand, with what uses it, by pg_dump --schema-only" },
  );
}

/** A thing that is the same only as a whole. */
function whole(kind: ItemKind, { name, sql }: { readonly name: string; readonly sql: string }): SchemaItem {
  return { kind, name, sql, parts: [{ name: "", is: sql }] };
}

const SEQUENCE_OPTIONS =
  `format('START %s INCREMENT %s MINVALUE %s MAXVALUE %s CACHE %s%s', q.seqstart, q.seqincrement, q.seqmin,
  q.seqmax, q.seqcache, CASE WHEN q.seqcycle THEN ' CYCLE' ELSE '' END)`;

/** Those that columns own or take their values from, but of identity columns, whose definition has them. */
const SEQUENCES =
  `SELECT DISTINCT n.nspname AS schema, s.relname AS name, format_type(q.seqtypid, NULL) AS type, ${SEQUENCE_OPTIONS} AS options,
       (SELECT format('%I.%I.%I', tn.nspname, t.relname, a.attname) FROM pg_depend o JOIN pg_class t ON t.oid = o.refobjid
          JOIN pg_namespace tn ON tn.oid = t.relnamespace
          JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = o.refobjsubid
         WHERE o.classid = 'pg_class'::regclass AND o.objid = s.oid AND o.refclassid = 'pg_class'::regclass
           AND o.deptype = 'a' AND t.oid = ANY ($1::oid[])) AS owner
       FROM pg_class s JOIN pg_namespace n ON n.oid = s.relnamespace JOIN pg_sequence q ON q.seqrelid = s.oid
      WHERE s.oid IN (
          SELECT o.objid FROM pg_depend o WHERE o.classid = 'pg_class'::regclass AND o.refclassid = 'pg_class'::regclass
             AND o.refobjid = ANY ($1::oid[]) AND o.deptype = 'a'
          UNION SELECT d.refobjid FROM pg_attrdef f JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid
           WHERE f.adrelid = ANY ($1::oid[]) AND d.refclassid = 'pg_class'::regclass) ORDER BY 1, 2`;

function sequenceItems(row: Row): SchemaItem[] {
  const name = qualified(nameOf(row));
  const made: SchemaItem = {
    kind: "sequence",
    name,
    sql: `CREATE SEQUENCE ${name} AS ${row.type} ${row.options}`,
    // Nodes have their own ranges.
    parts: [],
  };
  const owned: SchemaItem = {
    kind: "owner",
    name,
    sql: `ALTER SEQUENCE ${name} OWNED BY ${row.owner}`,
    parts: [],
  };
  return row.owner === null ? [made] : [made, owned];
}

interface Column {
  readonly name: string;
  readonly sql: string;
  readonly is: string;
}

async function readColumns(
  query: Query,
  oids: string,
  serverVersion: number,
): Promise<Map<string, Column[]>> {
  const generated = serverVersion >= GENERATED_SINCE ? "a.attgenerated" : "''";
  const rows = await query(
    `SELECT a.attrelid::text AS table, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
       CASE WHEN a.attcollation <> t.typcollation THEN (SELECT format('%I.%I', cn.nspname, c.collname) FROM pg_collation c
         JOIN pg_namespace cn ON cn.oid = c.collnamespace WHERE c.oid = a.attcollation) END AS collation,
       a.attnotnull::text AS not_null, ${generated} AS generated, pg_get_expr(d.adbin, d.adrelid) AS expression,
       CASE WHEN r.relispartition AND ${serverVersion} >= ${IDENTITY_OF_PARTITIONS_SINCE} THEN '' ELSE a.attidentity END
         AS identity,
       (SELECT format('SEQUENCE NAME %I.%I %s', sn.nspname, s.relname, ${SEQUENCE_OPTIONS}) FROM pg_depend o
          JOIN pg_class s ON s.oid = o.objid AND s.relkind = 'S' JOIN pg_namespace sn ON sn.oid = s.relnamespace
          JOIN pg_sequence q ON q.seqrelid = s.oid
         WHERE o.classid = 'pg_class'::regclass AND o.refclassid = 'pg_class'::regclass AND o.deptype = 'i'
           AND o.refobjid = a.attrelid AND o.refobjsubid = a.attnum) AS sequence
       FROM pg_attribute a JOIN pg_class r ON r.oid = a.attrelid JOIN pg_type t ON t.oid = a.atttypid
       LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
      WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum`,
    [oids],
  );
  const tables = new Map<string, Column[]>();
  for (const row of rows) {
    tables.set(row.table!, [...tables.get(row.table!) ?? [], toColumn(row)]);
  }
  return tables;
}

function toColumn(
  { name, type, collation, not_null, generated, expression, identity, sequence }: Row,
): Column {
  const isIdentity = identity !== null && identity !== "";
  const always = identity === "a" ? "ALWAYS" : "BY DEFAULT";
  const words = [
    type!,
    ...(collation === null ? [] : [`COLLATE ${collation}`]),
    ...(not_null === "true" ? ["NOT NULL"] : []),
    ...(expression === null || generated !== "" ? [] : [`DEFAULT ${expression}`]),
    ...(expression === null || generated === ""
      ? []
      : [`GENERATED ALWAYS AS (${expression}) ${generated === "v" ? "VIRTUAL" : "STORED"}`]),
    ...(isIdentity ? [`GENERATED ${always} AS IDENTITY`] : []),
  ];
  const is = words.join(" ");
  return {
    name: name!,
    is,
    sql: `${quote(name!)} ${is}${isIdentity && sequence !== null ? ` (${sequence})` : ""}`,
  };
}

function tableItem(row: Row, columns: readonly Column[]): SchemaItem {
  const name = qualified(nameOf(row));
  const key = row.key === null ? "" : ` PARTITION BY ${row.key}`;
  return {
    kind: "table",
    name,
    sql: `CREATE TABLE ${name} (${columns.map(({ sql }) => sql).join(", ")})${key}`,
    parts: [
      ...columns.map(({ name, is }) => ({ name: `column ${name}`, is })),
      { name: "partition key", is: row.key ?? "none" },
    ],
  };
}

function partitionItem(row: Row): SchemaItem {
  const name = qualified(nameOf(row));
  return whole("partition", {
    name,
    sql: `ALTER TABLE ${parentOf(row)} ATTACH PARTITION ${name} ${row.bound}`,
  });
}

function replicaIdentityItem(row: Row): SchemaItem[] {
  const name = qualified(nameOf(row));
  const is = { f: "FULL", n: "NOTHING", i: `USING INDEX ${quote(row.identity_index ?? "")}` }[row.identity!];
  if (is === undefined || (row.identity === "i" && row.identity_index === null)) return [];
  return [{
    kind: "replica identity",
    name,
    sql: `ALTER TABLE ${name} REPLICA IDENTITY ${is}`,
    parts: [],
  }];
}

/** What partitions have of the table above comes with it. */
async function readConstraints(query: Query, oids: string): Promise<SchemaItems> {
  const rows = await query(
    `SELECT n.nspname AS schema, r.relname AS name, c.conname AS constraint, c.contype AS type,
       pg_get_constraintdef(c.oid) AS definition, fn.nspname AS of_schema, f.relname AS of_name,
       (c.contype <> 'f' OR c.confrelid = ANY ($1::oid[]))::text AS taken
       FROM pg_constraint c JOIN pg_class r ON r.oid = c.conrelid JOIN pg_namespace n ON n.oid = r.relnamespace
       LEFT JOIN pg_class f ON f.oid = c.confrelid LEFT JOIN pg_namespace fn ON fn.oid = f.relnamespace
      WHERE c.conrelid = ANY ($1::oid[]) AND c.contype IN ('p', 'u', 'x', 'c', 'f') AND c.coninhcount = 0
      ORDER BY array_position(ARRAY['p', 'u', 'x', 'c', 'f'], c.contype::text), 1, 2, 3`,
    [oids],
  );
  const items = rows.filter(({ taken }) => taken === "true").map((row) => {
    const table = qualified(nameOf(row));
    return whole(row.type === "f" ? "foreign key" : "constraint", {
      name: `${quote(row.constraint!)} of ${table}`,
      sql: `ALTER TABLE ${table} ADD CONSTRAINT ${quote(row.constraint!)} ${row.definition}`,
    });
  });
  const leftOut = rows.filter(({ taken }) => taken !== "true").map((row) =>
    `foreign key ${quote(row.constraint!)} of ${qualified(nameOf(row))}: ${
      qualified({ schema: row.of_schema!, name: row.of_name! })
    } is not among the tables`
  );
  return { items, leftOut };
}

async function readIndexes(query: Query, oids: string): Promise<SchemaItem[]> {
  const rows = await query(
    `SELECT n.nspname AS schema, c.relname AS name, c.relkind AS kind, pg_get_indexdef(i.indexrelid) AS definition
       FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE i.indrelid = ANY ($1::oid[]) AND i.indisvalid
        AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))
        AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = i.indexrelid) ORDER BY 1, 2`,
    [oids],
  );
  return rows.map((row) =>
    whole("index", {
      name: qualified(nameOf(row)),
      // With those of the partitions, which are there already.
      sql: row.kind === "I" ? row.definition!.replace(" ON ONLY ", " ON ") : row.definition!,
    })
  );
}

function parentOf(row: Row): string {
  return qualified({ schema: row.parent_schema!, name: row.parent_name! });
}

function nameOf({ schema, name }: Row): TableName {
  return { schema: schema!, name: name! };
}

function qualified({ schema, name }: TableName): string {
  return `${quote(schema)}.${quote(name)}`;
}

/** As `quote_ident` does where it matters: quoted always, so that both nodes write it alike. */
function quote(name: string): string {
  return pg.escapeIdentifier(name);
}
