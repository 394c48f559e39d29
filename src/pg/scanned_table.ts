/**
 * What a table is compared by: its columns, the key that its rows are looked up by, and the tables that they lie in.
 */
import { Buffer } from "node:buffer";
// @ts-types="@types/pg"
import pg from "pg";
import { formatTableName, type TableName } from "../table_name.ts";
import { ColumnTypes } from "./column_types.ts";
import type { Query } from "./query.ts";
import { type LocalRoot, readLocalTable } from "./relation.ts";
import { type HashedColumn, readHashedColumns } from "./row_hash.ts";
import { sentText } from "./sent_text.ts";
import type { LocalTable } from "./tables.ts";

/** A column that rows are looked up by. */
export interface KeyColumn extends HashedColumn {
  readonly typeName: string;
  /** Such as `pg_catalog.=`. */
  readonly equality: string;
}

/** A table that can be scanned. */
export interface ScannedTable {
  readonly table: LocalTable;
  /** By name. */
  readonly columns: readonly HashedColumn[];
  /** By name; empty where rows cannot be looked up. */
  readonly key: readonly KeyColumn[];
  /** The same in the order of the columns of {@link ScannedTable.hashedAs}, by which rows are known in `mmlite`. */
  readonly keyOrder: readonly KeyColumn[];
  /** Names of columns that no UPDATE can set. */
  readonly identityAlways: readonly string[];
  /** By what the planner knows, or by what was counted of changes where it knows nothing. */
  readonly estimatedRows: number;
  /** By which its rows are known in `mmlite`: a partition's by its root. */
  readonly hashedAs: LocalRoot;
}

/** Types of floats by OID, and what makes the bytes of one that are exact. */
const FLOAT_KEYS: Readonly<Record<number, string>> = { 700: "float4send", 701: "float8send" };

/**
 * Reads how a table can be compared. Keys of composites, arrays and shapes are left out, whose text does not tell a
 * float from its neighbours.
 */
export async function readScannedTable(
  query: Query,
  table: LocalTable,
  serverVersion: number,
): Promise<ScannedTable> {
  const columns = await readHashedColumns(query, table.oid);
  const { schema, name } = table;
  const local = await readLocalTable(query, { schema, name, serverVersion, types: new ColumnTypes() });
  const safe = await readSafeTypes(query, table.oid);
  const primary = local?.uniqueIndexes.find((index) => index.primary)?.columns ?? [];
  const names = table.keyColumns.length > 0 ? table.keyColumns : primary;
  const key = columns.filter((column) => names.includes(column.name)).flatMap((column) => {
    const found = local?.columns.find((one) => one.name === column.name);
    if (found === undefined || found.equality === null || !safe.has(column.name)) return [];
    return [{ ...column, typeName: found.typeName, equality: found.equality }];
  });
  const isWhole = key.length === names.length;
  const hashedAs = local?.root ??
    { schema, name, columns: local?.columns.map((column) => column.name) ?? [] };
  const keyOrder = hashedAs.columns.flatMap((name) => key.filter((column) => column.name === name));
  return {
    ...{ table, columns, key: isWhole ? key : [], keyOrder: isWhole ? keyOrder : [] },
    identityAlways: local?.columns.filter((column) => column.identityAlways).map(({ name }) => name) ?? [],
    estimatedRows: await estimateRows(query, table),
    hashedAs,
  };
}

/** How many rows a table has, by what the planner knows, or by what was counted of changes where it knows nothing. */
export async function estimateRows(query: Query, table: LocalTable): Promise<number> {
  const [{ rows }] = await query(
    `${leavesOf(table)}
     SELECT sum(CASE WHEN reltuples > 0 THEN reltuples ELSE pg_stat_get_live_tuples(oid) END)::bigint::text AS rows FROM leaf`,
  );
  return Number(rows ?? 0);
}

/** The tables that a table's rows lie in: itself, or the partitions beneath it; as `leaf` for a query. */
export function leavesOf({ oid }: LocalTable): string {
  return `WITH RECURSIVE part(oid) AS (
      SELECT ${oid}::oid
      UNION ALL
      SELECT i.inhrelid FROM part JOIN pg_class c ON c.oid = part.oid AND c.relkind = 'p'
        JOIN pg_inherits i ON i.inhparent = part.oid
    ), leaf AS (
      SELECT c.oid, n.nspname AS schema, c.relname AS name, c.reltuples
        FROM part JOIN pg_class c ON c.oid = part.oid AND c.relkind <> 'p' JOIN pg_namespace n ON n.oid = c.relnamespace
    )`;
}

async function readSafeTypes(query: Query, oid: number): Promise<Set<string>> {
  const rows = await query(
    `SELECT a.attname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
       LEFT JOIN pg_type b ON b.oid = t.typbasetype
      WHERE a.attrelid = ${oid} AND a.attnum > 0 AND NOT a.attisdropped
        AND t.typtype IN ('b', 'd', 'e', 'r') AND t.typcategory NOT IN ('A', 'C', 'G')
        AND coalesce(b.typtype = 'b' AND b.oid NOT IN (700, 701), true)`,
  );
  return new Set(rows.map(({ attname }) => attname!));
}

/** The bytes of a value's text in hexadecimal digits; of a float the bytes that are exact. */
export function keyText({ name, type }: KeyColumn): string {
  const column = `t.${pg.escapeIdentifier(name)}`;
  if (type in FLOAT_KEYS) return `encode(${FLOAT_KEYS[type]}(${column}), 'hex')`;
  return `encode(convert_to(${sentText(column)}, pg_client_encoding()), 'hex')`;
}

/** What {@link keyText} is of, as the hexadecimal digits of its text's bytes. */
export function keyOfText({ type }: KeyColumn, hex: string): string {
  if (!(type in FLOAT_KEYS)) return hex;
  const bytes = Buffer.from(hex, "hex");
  const value = bytes.length === 4 ? bytes.readFloatBE() : bytes.readDoubleBE();
  return Buffer.from(String(value)).toString("hex");
}

/** Keys that are looked for, as `q` in FROM: `n` counts them from 1. Parameters: {@link keyParameters}. */
export function wantedKeys(key: readonly KeyColumn[]): string {
  const arrays = key.map((_, i) => `$${i + 1}::text[]`).join(", ");
  return `unnest(${arrays}) WITH ORDINALITY AS q(${key.map((_, i) => `k${i}`).join(", ")}, n)`;
}

/** Whether a row `t` has the key `q`. */
export function keyMatches(key: readonly KeyColumn[]): string {
  return key.map((column, i) =>
    `t.${pg.escapeIdentifier(column.name)} OPERATOR(${column.equality}) ${keyValue(column, i)}`
  ).join(" AND ");
}

/** A value of a key `q` in its own type. */
export function keyValue({ typeName }: KeyColumn, place: number): string {
  return `(convert_from(decode(q.k${place}, 'hex'), pg_client_encoding()))::${typeName}`;
}

/** What {@link wantedKeys} takes: one array for each column. */
export function keyParameters({ key }: ScannedTable, keys: readonly (readonly string[])[]): string[] {
  return key.map((_, i) => `{${keys.map((values) => values[i] === "" ? '""' : values[i]).join(",")}}`);
}

/** A column of a key of a row `t` as text. */
export function textOf({ name }: HashedColumn): string {
  return sentText(`t.${pg.escapeIdentifier(name)}`);
}

/** The hash by which a row is known in `mmlite`, of the texts of its key. */
export function keyHash(table: TableName, texts: readonly string[]): string {
  return `mmlite.key_hash(${pg.escapeLiteral(`${table.schema}.${table.name}`)}, ARRAY[${texts.join(", ")}])`;
}

/**
 * What {@link versionHash} needs of a row `t`, as columns: its `xmin`, whose transaction that is, and the texts of its
 * key.
 */
export function versionColumns({ keyOrder }: ScannedTable): string {
  const texts = keyOrder.map((column, i) => `, ${textOf(column)} AS h${i}`).join("");
  return `t.xmin AS xmin, mmlite.full_xid(t.xmin) AS xid${texts}`;
}

/** The hash by which a row is known in `mmlite`, out of the columns of {@link versionColumns} in `from`. */
export function hashOfKey({ hashedAs, keyOrder }: ScannedTable, from: string): string {
  return keyHash(hashedAs, keyOrder.map((_, i) => `${from}.h${i}`));
}

/** The same where versions are noted by it; it takes longer than all the rest, so it is 0 where they are not. */
export function versionHash(scanned: ScannedTable, from: string): string {
  return `CASE WHEN EXISTS (SELECT FROM mmlite.apply_group g WHERE g.xid = ${from}.xid) THEN ${
    hashOfKey(scanned, from)
  } ELSE 0 END`;
}

/** Completes "Cannot …" of an error about a table. */
export function readingTable(table: TableName): string {
  return `read table ${formatTableName(table)}`;
}
