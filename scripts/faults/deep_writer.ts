/**
 * An append-only load of small transactions that keeps far ahead of its receiver, so that this applies as fast as it
 * can and many of them at once.
 */
// @ts-types="@types/pg"
import type pg from "pg";
import type { Appending } from "../../tests/support/append_load.ts";
import { arrivedRows, type FaultNode } from "../../tests/support/fault_pair.ts";

/** Rows that the receiver is kept behind by: some seconds of its work. */
export const DEPTH_ROWS = 150_000;
/** Rows of a transaction in each of the two tables: one or two in turn. */
export const ROWS_PER_TRANSACTION = 1.5;
/** Transactions that the server writes at one call. */
const CHUNK_TRANSACTIONS = 5_000;
/** Between two looks at a receiver that is behind enough, milliseconds. */
const LOOK_INTERVAL_MS = 100;

/** Appends at one node, whose server must not crash, for another one. */
export function startDeepWriter(from: FaultNode, to: FaultNode): Appending {
  const ending = new AbortController();
  const written: Written = { rows: 0, transactions: 0 };
  const ended = writeUntil(ending.signal, { from, to, written });
  ended.catch(() => {}); // Whoever stops the writer is told.
  return {
    get committedSequence() {
      return written.rows;
    },
    async stop() {
      ending.abort();
      await ended;
    },
  };
}

/** What is committed, rows counted in one table. */
interface Written {
  rows: number;
  transactions: number;
}

async function writeUntil(
  signal: AbortSignal,
  { from, to, written }: { from: FaultNode; to: FaultNode; written: Written },
): Promise<void> {
  const client = await from.server.connect(from.database);
  // A receiver whose server is down stays as far behind as it is.
  const isFarBehind = async () =>
    written.rows - await arrivedRows(to, from.name).catch(() => -Infinity) > DEPTH_ROWS;
  try {
    await client.query("SET synchronous_commit = off"); // It does not crash, and only has to be fast.
    while (!signal.aborted) {
      if (await isFarBehind()) await new Promise((wake) => setTimeout(wake, LOOK_INTERVAL_MS));
      else await writeChunk(client, { origin: from.name, written });
    }
  } finally {
    await client.end();
  }
}

async function writeChunk(
  client: pg.Client,
  { origin, written }: { origin: string; written: Written },
): Promise<void> {
  const [first, last] = [written.transactions + 1, written.transactions + CHUNK_TRANSACTIONS];
  const insert = (table: string) =>
    `INSERT INTO public.${table}
       SELECT '${origin}', g, t, md5(g::text) FROM generate_series(ended - t % 2, ended) g`;
  await client.query(`DO $$ DECLARE ended bigint := ${written.rows}; BEGIN
    FOR t IN ${first}..${last} LOOP
      ended := ended + 1 + t % 2;
      ${insert("entry")}; ${insert("entry_without_key")}; COMMIT;
    END LOOP;
  END $$`);
  written.transactions = last;
  written.rows += CHUNK_TRANSACTIONS * ROWS_PER_TRANSACTION;
}
