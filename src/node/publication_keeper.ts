/**
 * Keeps the publications equal to the table patterns, and knows which tables those are.
 *
 * A table that is new since the last time is published with the rows that it has by then; of any other, what was there
 * before stays where it is. Nothing of peers is applied to a table before it is known here (`awaitKnown`): so what a new
 * table has is of this node's own clients, and what they delete of other nodes' rows is decoded.
 */
import type { TableStatus } from "../api/schemas.ts";
import { delay } from "../backoff.ts";
import { MmliteError, toMmliteError } from "../errors.ts";
import { log } from "../log.ts";
import { type CatalogStamp, readCatalogStamp } from "../pg/catalog_stamp.ts";
import { type Client, closeClient } from "../pg/client.ts";
import { readKnownTables, saveKnownTables } from "../pg/known_tables.ts";
import { markUnsent, MAX_PICKED_UP_ROWS, openPickUps, type PickedUp, pickUpTable } from "../pg/pick_up.ts";
import { ensurePublications, planPublications, publishedTables } from "../pg/publication.ts";
import type { Query } from "../pg/query.ts";
import { tableMatcher } from "../pg/table_pattern.ts";
import { formatTableName, tableKey, type TableName } from "../table_name.ts";
import { type LocalTable, readTables } from "../pg/tables.ts";
import type { Database } from "./database.ts";
import { findFresh, type Fresh, type FreshTable, haveRows, oidsOf, withoutFresh } from "./fresh_tables.ts";
import type { Patterns } from "./table_patterns.ts";

/** How often the catalog is compared with the patterns, milliseconds: how soon a new table is published. */
const SYNC_INTERVAL_MS = 5_000;
/** How old the tables that are shown may get, milliseconds: their estimated rows, and the names of key columns. */
const MAX_AGE_MS = 10 * 60_000;

/** What is known of a table because it is published. */
export type PublishedTable = Pick<
  TableStatus,
  "schema" | "name" | "state" | "hint" | "key_columns" | "estimated_rows"
>;

/** The tables that there are, and those of them that are to be published by the patterns as they are now. */
export async function planTables(
  query: Query,
  { patterns, serverVersion }: { readonly patterns: Patterns; readonly serverVersion: number },
): Promise<{ present: LocalTable[]; tables: LocalTable[] }> {
  const matches = tableMatcher(patterns);
  const present = await readTables(query);
  return { present, tables: publishedTables(present, { matches, serverVersion }) };
}

/** The publications of a running node. */
export class PublicationKeeper {
  readonly #database: Database;
  readonly #patterns: Patterns;
  readonly #logger = log("tables");
  #tables: readonly LocalTable[] = [];
  #warned = new Set<string>();
  /** OIDs of tables that may have rows of other nodes. */
  #known = new Set<number>();
  /** Why new tables are not published yet, by their OID. */
  #awaited: ReadonlyMap<number, MmliteError> = new Map();
  /** New tables that are not published yet. */
  #waiting: readonly FreshTable[] = [];
  /** OIDs of tables that were there at the last look; of others peers are told. */
  #seen: ReadonlySet<number> = new Set();
  #hasGrown = false;
  #turn: Promise<unknown> = Promise.resolve();
  /** What the catalog was at the last sync, and when; undefined after one that failed. */
  #synced: { readonly stamp: CatalogStamp; readonly time: number } | undefined;

  /** Why the publications could not be made equal to the patterns at the last try; null if they are. */
  failure: MmliteError | null = null;

  constructor({ database, patterns }: { database: Database; patterns: Patterns }) {
    this.#database = database;
    this.#patterns = patterns;
  }

  /**
   * Makes the publications equal to the patterns, unless nothing has changed since they were; with `anew` in any case. A new
   * table that is locked is left for the next time.
   */
  sync({ anew = false } = {}): Promise<void> {
    const sync = () => this.#sync(anew);
    const turn = this.#turn.then(sync, sync);
    this.#turn = turn.catch(() => {});
    return turn;
  }

  /** See {@link PublicationKeeper.sync}; returns what it failed of. */
  async trySync(options: { anew?: boolean } = {}): Promise<MmliteError | undefined> {
    try {
      await this.sync(options);
      this.failure = null;
    } catch (thrown) {
      const error = toMmliteError(thrown);
      if (this.failure?.message !== error.message) {
        this.#logger.warn("{error}; {hint}", { error: error.message, hint: error.hint });
      }
      this.failure = error;
      return error;
    }
  }

  /**
   * Resolves once a table, by its OID, may have rows of other nodes. Throws `transient` while a new one cannot be published
   * yet.
   */
  async awaitKnown(oid: number): Promise<void> {
    if (this.#known.has(oid)) return;
    const failure = await this.trySync();
    if (this.#known.has(oid)) return;
    // What another table fails of does not hide that this one waits.
    const error = this.#awaited.get(oid) ?? failure;
    // What takes an operator keeps this node from sending, and nothing from coming.
    if (error?.disposition === "retry") throw error;
  }

  async #sync(anew: boolean): Promise<void> {
    const query = this.#database.control.query("keep the publications");
    const last = this.#synced;
    this.#synced = undefined;
    const stamp = await readCatalogStamp(query, last?.stamp);
    const time = performance.now();
    const isCurrent = !anew && last !== undefined && stamp.rows === last.stamp.rows &&
      time - last.time < MAX_AGE_MS;
    // The stamp is the older: what changes while the publications are made equal is seen the next time.
    if (isCurrent) await this.#pickUp(this.#waiting);
    else await this.#makeEqual(query);
    this.#synced = { stamp, time: isCurrent ? last.time : time };
  }

  /** As far as locks allow: what waits is tried again. */
  async #makeEqual(query: Query): Promise<void> {
    const { facts } = this.#database;
    const { present, tables } = await planTables(query, {
      patterns: this.#patterns,
      serverVersion: facts.versionNumber,
    });
    const known = await readKnownTables(query);
    const { fresh, mixed } = known === undefined
      ? { fresh: [], mixed: [] }
      : await findFresh(query, { tables, known, present });
    await this.#markMixed(query, mixed);
    const old = withoutFresh(tables, fresh);
    const changes = await ensurePublications(query, {
      wanted: planPublications(old, facts.versionNumber),
      serverVersion: facts.versionNumber,
    });
    const later = new Set(fresh.flatMap(oidsOf));
    const oids = present.map(({ oid }) => oid).filter((oid) => !later.has(oid));
    if (known === undefined || !isSame(known, oids)) await saveKnownTables(query, oids);
    this.#hasGrown ||= known !== undefined &&
      present.some(({ oid }) => !known.has(oid) && !this.#seen.has(oid));
    this.#seen = new Set(present.map(({ oid }) => oid));
    this.#known = new Set(oids);
    this.#tables = old;
    await this.#pickUp(fresh);
    if (changes.length > 0) this.#logger.info("{count} tables are published", { count: old.length });
    this.#warnOfKeyless(this.#tables);
  }

  /** Before they are published: then it is known that they are new. */
  async #markMixed(query: Query, mixed: Fresh["mixed"]): Promise<void> {
    for (const { root, partitions } of mixed) {
      if (await haveRows(query, partitions)) await markUnsent(query, root, { why: "a partition had rows" });
    }
  }

  /** One after the other, so that a lock on one keeps no other waiting; throws the first error that does not go by itself. */
  async #pickUp(fresh: readonly FreshTable[]): Promise<void> {
    this.#awaited = new Map();
    this.#waiting = fresh;
    if (fresh.length === 0) return;
    const client = await openPickUps(this.#database.target);
    try {
      await this.#pickUpEach(client, fresh);
    } finally {
      await closeClient(client);
    }
  }

  async #pickUpEach(client: Client, fresh: readonly FreshTable[]): Promise<void> {
    const { facts } = this.#database;
    const server = { serverVersion: facts.versionNumber, isVersioned: facts.trackCommitTimestamp };
    const awaited = new Map<number, MmliteError>();
    const waiting: FreshTable[] = [];
    let failure: MmliteError | undefined;
    for (const table of fresh) {
      const oids = oidsOf(table);
      try {
        const done = await pickUpTable(client, { table, oids, ...server });
        for (const oid of oids) this.#known.add(oid);
        this.#tables = [...this.#tables, table].sort(byName);
        this.#tell(table, done);
      } catch (thrown) {
        const error = toMmliteError(thrown);
        if (error.disposition !== "retry") {
          failure ??= error;
          continue;
        }
        waiting.push(table);
        for (const oid of oids) awaited.set(oid, error);
      }
    }
    this.#awaited = awaited;
    this.#waiting = waiting;
    if (failure !== undefined) throw failure;
  }

  #tell(table: LocalTable, { rows, sent, refused }: PickedUp): void {
    const name = formatTableName(table);
    if (rows === 0 || sent) {
      this.#logger.info("Table {table} is new and published now, with {rows} rows", { table: name, rows });
      return;
    }
    this.#logger.warn("Table {table} is new and published now; its rows are not sent: {why}; {hint}", {
      table: name,
      why: refused === undefined
        ? `they are too many (more than ${MAX_PICKED_UP_ROWS}, or too large)`
        : `they cannot be written again (${refused})`,
      hint: `run \`mmlite tables resync ${name} --from THIS_NODE\` on the peers`,
    });
  }

  /** Syncs at an interval while `usable` says so, until `signal` aborts; calls `grown` when there are more tables. */
  async run(
    signal: AbortSignal,
    { usable, grown }: { readonly usable: () => boolean; readonly grown: () => void },
  ): Promise<void> {
    for (;;) {
      await delay(SYNC_INTERVAL_MS, signal);
      if (signal.aborted) return;
      if (usable()) await this.trySync();
      if (this.takeGrown()) grown();
    }
  }

  /** Whether there are tables that were not there when this was last asked. */
  takeGrown(): boolean {
    const hasGrown = this.#hasGrown;
    this.#hasGrown = false;
    return hasGrown;
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
        hint: "`mmlite tables list` shows those that are, and `mmlite tables add` takes more",
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
    problems.push(...new Set(this.#awaited.values()));
    if (this.#tables.length === 0) problems.push(noTables(this.#patterns));
    for (const table of this.#tables) if (table.state === "insert_only") problems.push(keyless(table));
    return problems;
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
  const why = include.length === 0 ? "there is no pattern" : `no table matches ${include.join(", ")}`;
  return new MmliteError("config", `Cannot replicate anything: ${why}`, {
    hint: "Create the tables, or run `mmlite tables add`; a new table is picked up within seconds",
  });
}

function toPublished({ schema, name, state, hint, keyColumns, estimatedRows }: LocalTable): PublishedTable {
  return { schema, name, state, hint, key_columns: [...keyColumns], estimated_rows: estimatedRows };
}

function isSame(known: ReadonlySet<number>, oids: readonly number[]): boolean {
  return known.size === oids.length && oids.every((oid) => known.has(oid));
}

function byName(a: TableName, b: TableName): number {
  return tableKey(a) < tableKey(b) ? -1 : 1;
}
