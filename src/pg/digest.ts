/**
 * What a table holds as a count and one hash, comparable between servers of any two releases, 10 to 18.
 *
 * Order of rows and columns does not count: columns are taken by name, and row hashes are added up. Values are taken
 * as the text that replication would send, in UTF-8. Generated columns are left out, as replication does.
 */
import { createHash } from "node:crypto";
// @ts-types="@types/pg"
import pg from "pg";
import { MmliteError } from "../errors.ts";
import { closeClient, destroyClient, openClient, passAnyBytes } from "./client.ts";
import { mapPostgresError } from "./errors.ts";
import { type Query, queryWith } from "./query.ts";
import { VALUE_SETTINGS } from "./replication.ts";
import { formatTableName, type TableName } from "../table_name.ts";
import type { LocalTable } from "./tables.ts";
import { describeTarget, type PostgresTarget } from "./target.ts";

/** What a table holds. */
export interface TableDigest extends TableName {
  /** Names of the columns that count, sorted. */
  readonly columns: readonly string[];
  /** How many rows, a 64-bit integer as text. */
  readonly rows: string;
  /** SHA-256 over columns and rows, hex; null where only the rows were counted. */
  readonly hash: string | null;
}

/** What {@link digestTables} needs. */
export interface DigestOptions {
  readonly target: PostgresTarget;
  readonly tables: readonly LocalTable[];
  /** Tables whose rows are hashed, not only counted. */
  readonly isHashed: (table: TableName) => boolean;
  readonly signal: AbortSignal;
}

/** A column of a table, and the OID of its type. */
interface Column {
  readonly name: string;
  readonly type: number;
}

const DIGEST_SETTINGS: Readonly<Record<string, string>> = {
  ...VALUE_SETTINGS,
  // For floats within other types: up to 11, more digits mean all 17, from 12 on as many as it takes. 15 are alike.
  extra_float_digits: "0",
  quote_all_identifiers: "off",
  // An error instead of the rows that a policy leaves.
  row_security: "off",
  statement_timeout: "0",
};

/** From 14 on the server notices while it reads or waits that nobody wants it any more, and lets go of the locks. */
const NOTICE_LEAVING = `SELECT set_config(name, '1s', false) FROM pg_settings
  WHERE name = 'client_connection_check_interval'`;

/** Built-in types of floats by OID, whose binary form is hashed: it is exact, and the same in every release. */
const SEND_FUNCTIONS: Readonly<Record<number, string>> = {
  600: "point_send",
  601: "lseg_send",
  602: "path_send",
  603: "box_send",
  604: "poly_send",
  628: "line_send",
  700: "float4send",
  701: "float8send",
  718: "circle_send",
  1021: "array_send",
  1022: "array_send",
};
/** The OID of bytea, whose bytes are hashed as they are: their text would be twice as long. */
const BYTEA = 17;

/**
 * Reads every row of the tables, and returns their digests in the same order. Each table is read in a transaction of
 * its own, so that locks and snapshot are held for one only.
 *
 * It takes as long as reading them does, on a connection of its own that `signal` breaks off (`aborted`); before
 * PostgreSQL 14 the server reads the table that it is at to its end.
 */
export async function digestTables(options: DigestOptions): Promise<TableDigest[]> {
  const { target, tables, isHashed, signal } = options;
  const client = await openClient(target, {
    applicationName: "mmlite digest",
    settings: DIGEST_SETTINGS,
    signal,
  });
  const stop = () => destroyClient(client);
  signal.addEventListener("abort", stop, { once: true });
  let doing = `read the tables of ${describeTarget(target)}`;
  try {
    await passAnyBytes(client);
    const query = queryWith(client);
    // Some servers' platforms cannot.
    await query(NOTICE_LEAVING).catch(() => {});
    const digests: TableDigest[] = [];
    for (const table of tables) {
      doing = `read table ${formatTableName(table)}`;
      await query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
      digests.push(await digestTable(query, table, { hashed: isHashed(table) }));
      await query("COMMIT");
    }
    return digests;
  } catch (thrown) {
    throw signal.aborted
      ? new MmliteError("aborted", `Cannot ${doing}: stopped`)
      : mapPostgresError(thrown, doing);
  } finally {
    signal.removeEventListener("abort", stop);
    await closeClient(client);
  }
}

async function digestTable(
  query: Query,
  table: LocalTable,
  { hashed }: { readonly hashed: boolean },
): Promise<TableDigest> {
  const { schema, name } = table;
  const columns = await readColumns(query, table);
  const names = columns.map((column) => column.name);
  const only = table.partitioned ? "" : "ONLY ";
  const from = `${only}${pg.escapeIdentifier(schema)}.${pg.escapeIdentifier(name)}`;
  if (!hashed) {
    const [row] = await query(`SELECT count(*)::text AS rows FROM ${from}`);
    return { schema, name, columns: names, rows: row!.rows!, hash: null };
  }
  // Sums, because they do not depend on the order and, unlike XOR, tell how often a row is there.
  const [row] = await query(
    `SELECT count(*)::text AS rows,
       COALESCE(sum(('x' || left(hash, 16))::bit(64)::bigint), 0)::text AS high,
       COALESCE(sum(('x' || right(hash, 16))::bit(64)::bigint), 0)::text AS low
     FROM (SELECT md5(array_to_string(ARRAY[${
      columns.map(hashOf).join(", ")
    }]::text[], ',', '-')) AS hash FROM ${from} t) hashes`,
  );
  const { rows, high, low } = row!;
  const hash = createHash("sha256").update(JSON.stringify([names, rows, high, low])).digest("hex");
  return { schema, name, columns: names, rows: rows!, hash };
}

/**
 * The hash of one value, NULL of NULL. `concat` takes the type's output function as replication does, not a cast that
 * somebody may have made; a composite of NULLs is not NULL to `num_nulls`.
 */
function hashOf({ name, type }: Column): string {
  const column = `t.${pg.escapeIdentifier(name)}`;
  if (type === BYTEA) return `md5(${column})`;
  if (type in SEND_FUNCTIONS) return `md5(${SEND_FUNCTIONS[type]}(${column}))`;
  return `CASE num_nulls(${column}) WHEN 0 THEN md5(textsend(concat(${column}))) END`;
}

async function readColumns(query: Query, { oid }: LocalTable): Promise<Column[]> {
  const rows = await query(
    `SELECT attname, atttypid::text FROM pg_attribute a
      WHERE attrelid = ${oid} AND attnum > 0 AND NOT attisdropped
        AND COALESCE(to_jsonb(a) ->> 'attgenerated', '') = ''`,
  );
  return rows.map(({ attname, atttypid }) => ({ name: attname!, type: Number(atttypid) }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}
