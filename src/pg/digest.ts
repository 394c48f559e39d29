/**
 * What a table holds as a count and one hash, comparable between servers of any two releases, 10 to 18.
 *
 * Order of rows and columns does not count: columns are taken by name, and row hashes are added up. Values are taken
 * as the text that replication would send, in UTF-8. Generated columns are left out, as replication does.
 */
import { createHash } from "node:crypto";
import { MmliteError } from "../errors.ts";
import { cancelClient } from "./cancel.ts";
import { closeClient } from "./client.ts";
import { mapPostgresError } from "./errors.ts";
import { type Query, queryWith } from "./query.ts";
import { hashOf, openHashClient, readHashedColumns, rowsOf } from "./row_hash.ts";
import { formatTableName, type TableName } from "../table_name.ts";
import type { LocalTable } from "./tables.ts";
import { describeTarget, type PostgresTarget } from "./target.ts";

const APPLICATION_NAME = "mmlite digest";

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

/**
 * Reads every row of the tables, and returns their digests in the same order. Each table is read in a transaction of
 * its own, so that locks and snapshot are held for one only.
 *
 * It takes as long as reading them does, on a connection of its own that `signal` breaks off (`aborted`), and
 * what runs on it.
 */
export async function digestTables(options: DigestOptions): Promise<TableDigest[]> {
  const { target, tables, isHashed, signal } = options;
  const client = await openHashClient(target, { applicationName: APPLICATION_NAME, signal });
  let cancelled: Promise<void> | undefined;
  const stop = () => void (cancelled = cancelClient(client, { target, applicationName: APPLICATION_NAME }));
  signal.addEventListener("abort", stop, { once: true });
  let doing = `read the tables of ${describeTarget(target)}`;
  try {
    const query = queryWith(client);
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
    await cancelled;
  }
}

async function digestTable(
  query: Query,
  table: LocalTable,
  { hashed }: { readonly hashed: boolean },
): Promise<TableDigest> {
  const { schema, name } = table;
  const columns = await readHashedColumns(query, table.oid);
  const names = columns.map((column) => column.name);
  const from = rowsOf(table);
  if (!hashed) {
    const [row] = await query(`SELECT count(*)::text AS rows FROM ${from}`);
    return { schema, name, columns: names, rows: row!.rows!, hash: null };
  }
  // Sums, because they do not depend on the order and, unlike XOR, tell how often a row is there.
  const [row] = await query(
    `SELECT count(*)::text AS rows,
       COALESCE(sum(('x' || left(hash, 16))::bit(64)::bigint), 0)::text AS high,
       COALESCE(sum(('x' || right(hash, 16))::bit(64)::bigint), 0)::text AS low
     FROM (SELECT ${hashOf(columns)} AS hash FROM ${from} t OFFSET 0) hashes`,
  );
  const { rows, high, low } = row!;
  const hash = createHash("sha256").update(JSON.stringify([names, rows, high, low])).digest("hex");
  return { schema, name, columns: names, rows: rows!, hash };
}
