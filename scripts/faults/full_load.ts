/**
 * Faults while the receiver catches up as fast as it can, under TLS: either mmlite is killed, or the receiver's
 * server crashes, at random moments.
 */
import type { RandomInteger } from "../../tests/support/append_load.ts";
import {
  arrivedRows,
  crashReceiver,
  type FaultPair,
  startFaultPair,
  streaming,
  underLoad,
} from "../../tests/support/fault_pair.ts";
import { eventually } from "../../tests/support/poll.ts";
import { request } from "../bench/sidecars.ts";
import { openAuthority } from "../certificates.ts";
import { median } from "../statistics.ts";
import { DEPTH_ROWS, ROWS_PER_TRANSACTION, startDeepWriter } from "./deep_writer.ts";

/** Least and longest time at full speed before a fault, milliseconds. */
const SPEED_MS = [200, 3_000] as const;
/** Nothing but the load of apply is to bring commits to disk; the rest makes the servers as fast as in the bench. */
const SETTINGS = { wal_writer_delay: "2s", shared_buffers: "256MB", max_wal_size: "16GB" };

const FAULTS: readonly [name: string, befall: (pair: FaultPair) => Promise<unknown>][] = [
  ["sending mmlite killed", async ({ a }) => void await a.mmlite.kill()],
  ["receiving mmlite killed", async ({ b }) => void await b.mmlite.kill()],
  ["receiving server crashed", ({ a, b }) => crashReceiver(b, a)],
];

/** Runs each kind of fault so often, in an order that is random; what it came to. */
export async function faultsAtFullLoad(random: RandomInteger, each: number): Promise<string> {
  await using stack = new AsyncDisposableStack();
  const pair = stack.use(
    await startFaultPair({ settings: SETTINGS, authority: await openAuthority(stack) }),
  );
  const rates: number[] = [];
  const startWriter = () => startDeepWriter(pair.a, pair.b);
  const order = shuffled(Array.from({ length: each }, () => FAULTS).flat(), random);
  const runFaults = async () => {
    await fallBehind(pair);
    for (const [index, [name, befall]] of order.entries()) {
      const { ms, rate, behind } = await atFullSpeed(pair, random);
      rates.push(rate);
      await befall(pair);
      await Promise.all([pair.a.mmlite.start(), pair.b.mmlite.start()]);
      const speed = `at ${rate.toFixed(0)} transactions/s, ${behind} rows behind`;
      console.log(`fault ${index + 1} of ${order.length}: ${name} after ${ms} ms ${speed}`);
    }
  };
  const { rows, transactions } = await underLoad(
    pair,
    { random, writers: [pair.a], startWriter },
    runFaults,
  );
  return `${order.length} faults at ${median(rates).toFixed(0)} transactions/s (median), ` +
    `${rows} rows in ${transactions} transactions`;
}

/** Holds the link until there is much to catch up with. */
async function fallBehind({ a, b }: FaultPair): Promise<void> {
  await request(a.mmlite, "POST", `/v1/peers/${b.name}/pause`);
  await eventually("a deep backlog", async () => await arrivedRows(a, a.name) >= DEPTH_ROWS);
  await request(a.mmlite, "POST", `/v1/peers/${b.name}/resume`);
}

/**
 * Lets it run for a random time once it streams; transactions a second in that time, and
 * the rows that were still to come.
 */
async function atFullSpeed(
  { a, b }: FaultPair,
  random: RandomInteger,
): Promise<{ ms: number; rate: number; behind: number }> {
  await streaming(a, b);
  const ms = random(...SPEED_MS);
  const [before, began] = [await arrivedRows(b, a.name), performance.now()];
  await new Promise((wake) => setTimeout(wake, ms));
  const [after, ended] = [await arrivedRows(b, a.name), performance.now()];
  const rate = (after - before) / ROWS_PER_TRANSACTION / ((ended - began) / 1000);
  return { ms, rate, behind: await arrivedRows(a, a.name) - after };
}

/** The same in a random order (Fisher and Yates). */
function shuffled<T>(items: readonly T[], random: RandomInteger): T[] {
  const order = [...items];
  for (let last = order.length - 1; last > 0; last--) {
    const other = random(0, last);
    [order[last], order[other]] = [order[other], order[last]];
  }
  return order;
}
