/**
 * An append-only load on several nodes, and the proof of what became of it: every row once, in the order of its
 * origin, every transaction whole, nothing lost that its writer was told is committed.
 *
 * One of the two tables has no key, so that a row applied twice would be there twice. A trigger on each node notes
 * in which order rows came and in which local transaction.
 */
import assert from "node:assert/strict";
// @ts-types="@types/pg"
import type pg from "pg";
import { eventually, EVENTUALLY_TIMEOUT_MS } from "./poll.ts";
import type { PostgresServer } from "./postgres.ts";

/** What a database needs before its node starts. `local` is not replicated. */
export const APPEND_SCHEMA = `
  CREATE TABLE public.entry (
    origin text, sequence bigint, transaction bigint NOT NULL, body text NOT NULL, PRIMARY KEY (origin, sequence)
  );
  CREATE TABLE public.entry_without_key (origin text, sequence bigint, transaction bigint, body text);
  CREATE SCHEMA local;
  CREATE TABLE local.arrival (
    arrived bigint GENERATED ALWAYS AS IDENTITY, origin text, sequence bigint, transaction bigint, xid bigint
  );
  CREATE FUNCTION local.note_arrival() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    INSERT INTO local.arrival (origin, sequence, transaction, xid)
      VALUES (NEW.origin, NEW.sequence, NEW.transaction, txid_current());
    RETURN NULL;
  END $$;
  CREATE TRIGGER note_arrival AFTER INSERT ON public.entry FOR EACH ROW EXECUTE PROCEDURE local.note_arrival();
  ALTER TABLE public.entry ENABLE ALWAYS TRIGGER note_arrival;
`;

/** One transaction in this many is a large one. */
const LARGE_EVERY = 40;
/** Rows of a large transaction: more than a receiver holds back before it begins to apply. */
const LARGE_ROWS = 2_000;
const SMALL_ROWS = 50;
/** Pause between two transactions unless told, milliseconds. */
const PAUSE_MS = 25;
/** Pause before a writer connects again, milliseconds. */
const RECONNECT_MS = 50;

/** A whole number from `low` to `high`. */
export type RandomInteger = (low: number, high: number) => number;

/** Numbers that follow from a seed alone (mulberry32). */
export function seededIntegers(seed: number): RandomInteger {
  let state = seed >>> 0;
  return (low, high) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return low + ((mixed ^ (mixed >>> 14)) >>> 0) % (high - low + 1);
  };
}

/** A database under load. */
export interface AppendPlace {
  /** Name of its node: the origin of its rows. */
  readonly name: string;
  readonly server: Pick<PostgresServer, "connect" | "sql">;
  readonly database: string;
}

/** What appends, and knows what must not be lost. */
export interface Appending {
  /** Of the last transaction that the server said is committed. */
  readonly committedSequence: number;
  /** Waits for the last transaction; throws what ended the writer before. */
  stop(): Promise<void>;
}

/** Appends transactions until stopped; goes on after crashes of its server. */
export class AppendWriter implements Appending {
  committedSequence = 0;
  transactions = 0;
  readonly #place: AppendPlace;
  readonly #random: RandomInteger;
  readonly #pauseMs: number;
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;

  /** `pauseMs` is that between two transactions, milliseconds. */
  constructor(place: AppendPlace, random: RandomInteger, { pauseMs = PAUSE_MS }: { pauseMs?: number } = {}) {
    this.#place = place;
    this.#random = random;
    this.#pauseMs = pauseMs;
    this.#done = this.#run();
    this.#done.catch(() => {}); // Whoever stops the writer is told.
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#done;
  }

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      let client: pg.Client | undefined;
      try {
        client = await this.#place.server.connect(this.#place.database);
        await this.#append(client);
      } catch (thrown) {
        if (!isOutage(thrown)) throw thrown;
        await pause(RECONNECT_MS);
      } finally {
        await client?.end().catch(() => {});
      }
    }
  }

  /** After a crash nobody knows whether the last transaction was committed, so it goes on where the table ends. */
  async #append(client: pg.Client): Promise<void> {
    const { rows: [last] } = await client.query(
      "SELECT coalesce(max(sequence), 0) AS sequence, coalesce(max(transaction), 0) AS transaction " +
        "FROM public.entry WHERE origin = $1",
      [this.#place.name],
    );
    let sequence = Number(last.sequence);
    let transaction = Number(last.transaction);
    while (!this.#stop.signal.aborted) {
      const rows = this.#random(1, LARGE_EVERY) === 1 ? LARGE_ROWS : this.#random(1, SMALL_ROWS);
      const values = [this.#place.name, sequence + 1, sequence + rows, ++transaction];
      await client.query("BEGIN");
      for (const table of ["entry", "entry_without_key"]) {
        await client.query(
          `INSERT INTO public.${table} SELECT $1, g, $4, md5(g::text) ` +
            "FROM generate_series($2::bigint, $3::bigint) g",
          values,
        );
      }
      await client.query("COMMIT");
      sequence += rows;
      this.committedSequence = sequence;
      this.transactions++;
      await pause(this.#pauseMs);
    }
  }
}

/** The server is down, going down, or not up yet. */
function isOutage(thrown: unknown): boolean {
  const { code = "", message = "" } = thrown as { code?: string; message?: string };
  return /^(57P0[123]|08...|ECONN\w+|ENOENT|EPIPE)$/.test(code) ||
    /Connection terminated|connection error/.test(message);
}

/**
 * Waits until every place holds the rows of all origins, and asserts what the module's head promises.
 *
 * Returns how many rows and transactions there are of each origin.
 */
export async function assertAppended(
  places: readonly AppendPlace[],
  committed: ReadonlyMap<string, number>,
  timeoutMs = EVENTUALLY_TIMEOUT_MS,
): Promise<Map<string, { rows: number; transactions: number }>> {
  const written = new Map<string, { rows: number; transactions: number }>();
  for (const place of places) {
    const [row] = await place.server.sql(
      place.database,
      "SELECT count(*)::int AS rows, count(DISTINCT transaction)::int AS transactions " +
        "FROM public.entry WHERE origin = $1",
      [place.name],
    );
    assert(row.rows >= (committed.get(place.name) ?? 0), `${place.name} lost rows that it had committed`);
    written.set(place.name, row);
  }
  for (const at of places) {
    for (const [origin, { rows }] of written) {
      await eventually(`${rows} rows of ${origin} at ${at.name}`, () => hasSequence(at, origin, rows), {
        timeoutMs,
        intervalMs: 200,
      });
      await assertOrigin(at, origin, rows);
    }
  }
  return written;
}

async function hasSequence(at: AppendPlace, origin: string, sequence: number): Promise<boolean> {
  const [{ highest }] = await at.server.sql(
    at.database,
    "SELECT coalesce(max(sequence), 0) AS highest FROM public.entry WHERE origin = $1",
    [origin],
  );
  if (Number(highest) >= sequence) return true;
  throw new Error(`sequence ${highest}`);
}

async function assertOrigin(at: AppendPlace, origin: string, rows: number): Promise<void> {
  const where = `rows of ${origin} at ${at.name}`;
  for (const table of ["public.entry", "public.entry_without_key", "local.arrival"]) {
    const [found] = await at.server.sql(
      at.database,
      "SELECT count(*)::int AS rows, count(DISTINCT sequence)::int AS numbers, coalesce(max(sequence), 0)::int AS highest " +
        `FROM ${table} WHERE origin = $1`,
      [origin],
    );
    assert.deepEqual(found, { rows, numbers: rows, highest: rows }, `${where}, ${table}: each exactly once`);
  }
  const [{ jumps }] = await at.server.sql(
    at.database,
    `SELECT count(*)::int AS jumps FROM (
       SELECT sequence - lag(sequence, 1, 0::bigint) OVER (ORDER BY arrived) AS step FROM local.arrival WHERE origin = $1
     ) steps WHERE step <> 1`,
    [origin],
  );
  assert.equal(jumps, 0, `${where}: in the order of their origin`);
  const [{ torn }] = await at.server.sql(
    at.database,
    `SELECT count(*)::int AS torn FROM (
       SELECT FROM local.arrival WHERE origin = $1 GROUP BY transaction HAVING count(DISTINCT xid) > 1
     ) transactions`,
    [origin],
  );
  assert.equal(torn, 0, `${where}: every transaction whole`);
}

function pause(ms: number): Promise<void> {
  return new Promise((wake) => setTimeout(wake, ms));
}
