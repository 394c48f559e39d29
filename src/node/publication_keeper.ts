/**
 * Keeps the publications equal to the table patterns, and knows which tables those are.
 */
import type { TableStatus } from "../api/schemas.ts";
import { delay } from "../backoff.ts";
import { MmliteError, toMmliteError } from "../errors.ts";
import { log } from "../log.ts";
import { type CatalogStamp, readCatalogStamp } from "../pg/catalog_stamp.ts";
import {
  ensurePublications,
  planPublications,
  type Publication,
  publishedTables,
} from "../pg/publication.ts";
import type { Query } from "../pg/query.ts";
import { tableMatcher } from "../pg/table_pattern.ts";
import { formatTableName, type TableName } from "../table_name.ts";
import { type LocalTable, readTables } from "../pg/tables.ts";
import type { Database } from "./database.ts";

/** How often the catalog is compared with the patterns, milliseconds: how soon a new table is published. */
const SYNC_INTERVAL_MS = 5_000;
/** How old the tables that are shown may get, milliseconds: their estimated rows, and the names of key columns. */
const MAX_AGE_MS = 10 * 60_000;

/** What is known of a table because it is published. */
export type PublishedTable = Pick<
  TableStatus,
  "schema" | "name" | "state" | "hint" | "key_columns" | "estimated_rows"
>;

interface Patterns {
  readonly include: readonly string[];
  readonly exclude: readonly string[];
}

/** The tables that the patterns match now, and the publications that follow from them. */
export async function planTables(
  query: Query,
  patterns: Patterns,
  serverVersion: number,
): Promise<{ tables: LocalTable[]; wanted: Publication[] }> {
  const matches = tableMatcher(patterns);
  const tables = publishedTables(await readTables(query), { matches, serverVersion });
  return { tables, wanted: planPublications(tables, serverVersion) };
}

/** The publications of a running node. */
export class PublicationKeeper {
  readonly #database: Database;
  readonly #patterns: Patterns;
  readonly #logger = log("tables");
  #tables: readonly LocalTable[] = [];
  #warned = new Set<string>();
  /** What the catalog was at the last sync, and when; undefined after one that failed. */
  #synced: { readonly stamp: CatalogStamp; readonly time: number } | undefined;

  /** Why the publications could not be made equal to the patterns at the last try; null if they are. */
  failure: MmliteError | null = null;

  constructor({ database, patterns }: { database: Database; patterns: Patterns }) {
    this.#database = database;
    this.#patterns = patterns;
  }

  /** Makes the publications equal to the patterns, unless nothing has changed since they were. */
  async sync(): Promise<void> {
    const query = this.#database.control.query("keep the publications");
    const last = this.#synced;
    this.#synced = undefined;
    const stamp = await readCatalogStamp(query, last?.stamp);
    const time = performance.now();
    const isCurrent = last !== undefined && stamp.rows === last.stamp.rows && time - last.time < MAX_AGE_MS;
    // The stamp is the older: what changes while the publications are made equal is seen the next time.
    if (!isCurrent) await this.#makeEqual(query);
    this.#synced = { stamp, time: isCurrent ? last.time : time };
  }

  async #makeEqual(query: Query): Promise<void> {
    const { facts } = this.#database;
    const { tables, wanted } = await planTables(query, this.#patterns, facts.versionNumber);
    const changes = await ensurePublications(query, { wanted, serverVersion: facts.versionNumber });
    this.#tables = tables;
    if (changes.length > 0) this.#logger.info("{count} tables are published", { count: tables.length });
    this.#warnOfKeyless(tables);
  }

  /** Syncs at an interval while `usable` says so, until `signal` aborts. */
  async run(signal: AbortSignal, usable: () => boolean): Promise<void> {
    for (;;) {
      await delay(SYNC_INTERVAL_MS, signal);
      if (signal.aborted) return;
      if (usable()) await this.#trySync();
    }
  }

  /** Every published table, by schema and name. */
  list(): PublishedTable[] {
    return this.#tables.map(toPublished);
  }

  /** Throws `not_found`. */
  get({ schema, name }: TableName): PublishedTable {
    const table = this.#tables.find((table) => table.schema === schema && table.name === name);
    if (table !== undefined) return toPublished(table);
    throw new MmliteError(
      "not_found",
      `Cannot find table ${formatTableName({ schema, name })}: it is not replicated`,
      {
        hint: "`mmlite tables list` shows those that are; the patterns are set with --tables",
      },
    );
  }

  counts(): { replicated: number; insert_only: number } {
    const insertOnly = this.#tables.filter(({ state }) => state === "insert_only").length;
    return { replicated: this.#tables.length - insertOnly, insert_only: insertOnly };
  }

  /** What an operator should know; none of it keeps the node from its work but a {@link failure}. */
  problems(): MmliteError[] {
    const problems = this.failure === null ? [] : [this.failure];
    if (this.#tables.length === 0) problems.push(noTables(this.#patterns));
    for (const table of this.#tables) if (table.state === "insert_only") problems.push(keyless(table));
    return problems;
  }

  async #trySync(): Promise<void> {
    try {
      await this.sync();
      this.failure = null;
    } catch (thrown) {
      const error = toMmliteError(thrown);
      if (this.failure?.message !== error.message) {
        this.#logger.warn("{error}; {hint}", { error: error.message, hint: error.hint });
      }
      this.failure = error;
    }
  }

  #warnOfKeyless(tables: readonly LocalTable[]): void {
    const keylessTables = tables.filter(({ state }) => state === "insert_only");
    for (const table of keylessTables) {
      const name = formatTableName(table);
      if (this.#warned.has(name)) continue;
      const { message, hint } = keyless(table);
      this.#logger.warn("{message}; {hint}", { message, hint });
    }
    this.#warned = new Set(keylessTables.map(formatTableName));
  }
}

function keyless(table: LocalTable): MmliteError {
  return new MmliteError(
    "server_setting",
    `Table ${
      formatTableName(table)
    } has no usable key: only its inserts are replicated, updates and deletes stay here`,
    { hint: table.hint ?? undefined },
  );
}

function noTables({ include }: Patterns): MmliteError {
  return new MmliteError("config", `Cannot replicate anything: no table matches ${include.join(", ")}`, {
    hint: "Create the tables, or correct --tables; a new table is picked up within seconds",
  });
}

function toPublished({ schema, name, state, hint, keyColumns, estimatedRows }: LocalTable): PublishedTable {
  return { schema, name, state, hint, key_columns: [...keyColumns], estimated_rows: estimatedRows };
}
