/**
 * The beginning of a copy of rows to this node: applications are kept from writing, durably, before anything else is done.
 */
import { MmliteError } from "../errors.ts";
import { closeClient, destroyClient, openClient } from "../pg/client.ts";
import { hasOwnRows, noteCopy, readCopy, shutTables } from "../pg/copy_target.ts";
import { mapPostgresError } from "../pg/errors.ts";
import { type Query, queryWith } from "../pg/query.ts";
import { leavesOf, type LocalTable, partitionsByParent, readTables } from "../pg/tables.ts";
import { formatTableName } from "../table_name.ts";
import type { Database } from "./database.ts";
import { readComparableTables } from "./digest_jobs.ts";
import type { Patterns } from "./table_patterns.ts";

interface ComingCopyOptions {
  readonly database: Database;
  /** This node's name. */
  readonly self: string;
  readonly patterns: Patterns;
  readonly signal: AbortSignal;
}

/** How many tables an error names. */
const MAX_NAMED_TABLES = 10;

/**
 * Notes that the rows of this node are to be copied from another one, and keeps applications from writing meanwhile, in
 * one transaction. Throws `conflict` where there are rows that no other node may have, unless they are given up, and
 * `aborted` at the signal, which breaks off what may take as long as reading all rows; then nothing is changed.
 */
export async function noteComingCopy(
  { database, signal, ...options }: ComingCopyOptions,
  { from, isGivenUp }: { readonly from: string; readonly isGivenUp: boolean },
): Promise<void> {
  const client = await openClient(database.target, {
    applicationName: "mmlite copy",
    settings: { lock_timeout: "10s", row_security: "off", statement_timeout: "0" },
    signal,
  });
  const breakOff = () => destroyClient(client);
  signal.addEventListener("abort", breakOff, { once: true });
  try {
    const query = queryWith(client);
    await query("BEGIN");
    const isAnew = await readCopy(query) === undefined;
    const all = partitionsByParent(await readTables(query));
    const tables = await readComparableTables(query, options.patterns);
    await shutTables(
      query,
      tables.flatMap((table) => table.partitioned ? [table, ...leavesOf(table, all)] : [table]),
    );
    if (isAnew && !isGivenUp) {
      await requireNoOwnRows(query, { tables, self: options.self, facts: database.facts });
    }
    await noteCopy(query, from);
    await query("COMMIT");
  } catch (thrown) {
    const doing = "keep applications from writing to the tables";
    if (signal.aborted) throw new MmliteError("aborted", `Cannot ${doing}: stopped`);
    throw mapPostgresError(thrown, doing);
  } finally {
    signal.removeEventListener("abort", breakOff);
    await closeClient(client);
  }
}

/** Throws `conflict` where rows would be lost that no other node may have. */
async function requireNoOwnRows(
  query: Query,
  { tables, self, facts }: {
    readonly tables: readonly LocalTable[];
    readonly self: string;
    readonly facts: Database["facts"];
  },
): Promise<void> {
  const own: string[] = [];
  for (const table of tables) {
    const options = { isVersioned: facts.trackCommitTimestamp, self };
    if (await hasOwnRows(query, table, options)) own.push(formatTableName(table));
  }
  if (own.length === 0) return;
  const named = own.slice(0, MAX_NAMED_TABLES).join(", ");
  const more = own.length > MAX_NAMED_TABLES ? ` and ${own.length - MAX_NAMED_TABLES} more` : "";
  throw new MmliteError(
    "conflict",
    `Cannot copy rows to this node: there are rows already in ${named}${more}`,
    {
      hint:
        "Say what is to become of them: with `--mode replace` they are given up, with keep they must be equal, with merge " +
        "both nodes get the newer one of each",
    },
  );
}
