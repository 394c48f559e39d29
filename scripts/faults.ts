/**
 * `deno task faults [--short] [--seed N] [--full-load]`: two nodes under an append-only load, in both directions,
 * while nodes are killed and servers crash at random moments; then the proof that every row is there once, in order.
 * Then the same, or with `--full-load` nothing else, at the speed of catching up: one direction, a deep backlog, TLS.
 *
 * Prints what it did. The moments follow from the seed, as far as the machine allows. The last line is one
 * sentence; the exit code is 1 if it is bad news.
 */
import process from "node:process";
import { type RandomInteger, seededIntegers } from "../tests/support/append_load.ts";
import {
  crashReceiver,
  type FaultNode,
  type FaultPair,
  killSoon,
  startFaultPair,
  underLoad,
} from "../tests/support/fault_pair.ts";
import { faultsAtFullLoad } from "./faults/full_load.ts";
import { readOptions, wholeNumber } from "./options.ts";

/** How often each fault happens. */
interface Counts {
  /** Kills of the mmlite of each node. */
  readonly kills: number;
  /** Crashes of each server. */
  readonly crashes: number;
  /** Each kind of fault at full load. */
  readonly fullLoad: number;
}

const LONG: Counts = { kills: 30, crashes: 5, fullLoad: 10 };
const SHORT: Counts = { kills: 5, crashes: 2, fullLoad: 2 };
const DEFAULT_SEED = 1;
/** Least and longest time between two crashes, milliseconds. */
const CALM_MS = [500, 4_000] as const;

/** Both nodes write; each is killed in turn, which makes it the receiver and the sender at once. */
async function killNodes(random: RandomInteger, { kills }: Counts): Promise<string> {
  await using pair = await startFaultPair();
  const { rows, transactions } = await underLoad(pair, { random }, async () => {
    for (let kill = 1; kill <= kills; kill++) {
      for (const node of random(0, 1) === 0 ? [pair.a, pair.b] : [pair.b, pair.a]) {
        const moment = await killSoon(node, random);
        console.log(`kill ${kill} of ${kills}: mmlite of ${node.name}, ${moment} ms after its start`);
      }
      await startBoth(pair);
    }
  });
  return `${kills} kills of each mmlite, ${rows} rows in ${transactions} transactions`;
}

async function startBoth({ a, b }: FaultPair): Promise<void> {
  await Promise.all([a.mmlite.start(), b.mmlite.start()]);
}

/** One node writes, so that nothing but the load of apply brings the receiver's commits to disk. */
async function crashReceivers(random: RandomInteger, { crashes }: Counts): Promise<string> {
  await using pair = await startFaultPair({ settings: { wal_writer_delay: "2s" } });
  let lost = 0;
  const { rows } = await underLoad(pair, { random, writers: [pair.a] }, async () => {
    for (let crash = 1; crash <= crashes; crash++) {
      await calm(random);
      const { ackedLsn, heldLsn, lostRows } = await crashReceiver(pair.b, pair.a);
      lost += lostRows;
      console.log(
        `crash ${crash} of ${crashes}: server of b, acked ${ackedLsn}, held ${heldLsn} afterwards, ` +
          `${lostRows} visible rows gone with it`,
      );
    }
  });
  return `${crashes} crashes of the receiver's server, which took ${lost} of ${rows} rows for a while`;
}

/** Both nodes write, and either server crashes. */
async function crashSenders(random: RandomInteger, { crashes }: Counts): Promise<string> {
  await using pair = await startFaultPair();
  const { rows } = await underLoad(pair, { random }, async () => {
    for (let crash = 1; crash <= crashes; crash++) {
      for (const node of [pair.a, pair.b]) {
        await calm(random);
        await crashServer(node);
        console.log(`crash ${crash} of ${crashes}: server of ${node.name}`);
      }
    }
  });
  return `${crashes} crashes of each server with writers on both, ${rows} rows`;
}

async function crashServer({ server }: FaultNode): Promise<void> {
  await server.kill();
  await server.start();
}

function atFullLoad(random: RandomInteger, { fullLoad }: Counts): Promise<string> {
  return faultsAtFullLoad(random, fullLoad);
}

async function calm(random: RandomInteger): Promise<void> {
  await new Promise((wake) => setTimeout(wake, random(...CALM_MS)));
}

async function main(): Promise<number> {
  const values = readOptions(import.meta.url, {
    short: { type: "boolean", default: false },
    seed: { type: "string", default: String(DEFAULT_SEED) },
    "full-load": { type: "boolean", default: false },
  });
  const seed = wholeNumber(values.seed, "--seed");
  const counts = values.short ? SHORT : LONG;
  const random = seededIntegers(seed);
  const done: string[] = [];
  try {
    const parts = values["full-load"] ? [atFullLoad] : [killNodes, crashReceivers, crashSenders, atFullLoad];
    for (const part of parts) {
      done.push(await part(random, counts));
      console.log(`held: ${done.at(-1)}`);
    }
  } catch (thrown) {
    console.log((thrown as Error).message);
    console.log(`Rows were lost, doubled or out of order with seed ${seed}, or a node did not come back.`);
    return 1;
  }
  console.log(`Every row is there once and in order (seed ${seed}): ${done.join("; ")}.`);
  return 0;
}

process.exit(await main());
