/**
 * `deno task memory [--only CASE]`: how much memory two nodes take in the worst cases, and how much time an idle one.
 *
 * Two PostgreSQL servers and two mmlite processes for each case, sampled from /proc, so Linux only. Not a part of
 * the tests: it takes minutes and gigabytes of disk. The last line is one sentence; the exit code is 1 if a
 * limit was passed.
 */
import process from "node:process";
import { eventually } from "../tests/support/poll.ts";
import { type Mmlite, startMmlite } from "../tests/support/mmlite.ts";
import { type PostgresServer, startPostgres } from "../tests/support/postgres.ts";
import { readOptions, refuseOptions } from "./options.ts";
import { cpuSeconds, MemoryWatch } from "./memory_watch.ts";

const DATABASE = "app";
const MB = 1_000_000;
/** Resident memory of one mmlite may stay under this, bytes. */
const RESIDENT_LIMIT = 200 * MB;
/** The bytes of the one long value. */
const VALUE_BYTES = 100 * MB;
/** What a value may cost on top of what the process had before it. */
const VALUE_LIMIT = 4 * VALUE_BYTES;
/** Length of the look at idle nodes, milliseconds, and the share of a core that one may use. */
const IDLE_MS = 60_000;
const IDLE_LIMIT = 0.01;
const TRANSACTION_ROWS = 3_000_000;
const BACKLOG_TRANSACTIONS = 100;
const BACKLOG_ROWS = 10_000;
/** Time allowed for a case to be delivered, milliseconds. */
const DELIVERY_TIMEOUT_MS = 900_000;

interface Pair {
  readonly servers: readonly [PostgresServer, PostgresServer];
  readonly nodes: readonly [Mmlite, Mmlite];
}

/** One line of the report. */
interface Result {
  readonly what: string;
  readonly measured: string;
  readonly ok: boolean;
}

type Case = (pair: Pair) => Promise<Result[]>;

const SCHEMA = `
  CREATE TABLE item (id bigint PRIMARY KEY, body text NOT NULL);
  CREATE TABLE long_text (id int PRIMARY KEY, body text NOT NULL);
  CREATE TABLE long_bytes (id int PRIMARY KEY, body bytea NOT NULL);
  ALTER TABLE long_text ALTER body SET STORAGE EXTERNAL;
  ALTER TABLE long_bytes ALTER body SET STORAGE EXTERNAL;
`;

async function openPair(): Promise<Pair & AsyncDisposable> {
  const stack = new AsyncDisposableStack();
  const server = async () => {
    const settings = { wal_sender_timeout: "10s", max_wal_size: "2GB" };
    const started = stack.use(await startPostgres({ major: 18, settings }));
    await started.createDatabase(DATABASE);
    await started.sql(DATABASE, SCHEMA);
    return started;
  };
  const servers = [await server(), await server()] as const;
  const node = async (name: string, server: PostgresServer) =>
    stack.use(await startMmlite({ name, postgres: server.url(DATABASE) }));
  const nodes = [await node("a", servers[0]), await node("b", servers[1])] as const;
  await nodes[0].api("PUT", "/v1/peers/b", { url: nodes[1].peerUrl });
  await eventually("both links to stream", async () => (await states(nodes)).every((s) => s === "streaming"));
  return { servers, nodes, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

async function states(nodes: readonly Mmlite[]): Promise<string[]> {
  const pages = await Promise.all(nodes.map((node) => node.api("GET", "/v1/peers")));
  return pages.map(({ json }) => json.items[0]?.state);
}

/** Waits until everything that node a committed is durable at node b and acked. */
async function delivered({ servers: [sender] }: Pair): Promise<void> {
  const [{ lsn }] = await sender.sql(DATABASE, "SELECT pg_current_wal_flush_lsn()::text AS lsn");
  await eventually("everything to be acked", async () => {
    const [{ done }] = await sender.sql(
      DATABASE,
      "SELECT confirmed_flush_lsn >= $1::pg_lsn AS done FROM pg_replication_slots WHERE slot_name = 'mmlite_b'",
      [lsn],
    );
    return done;
  }, { timeoutMs: DELIVERY_TIMEOUT_MS, intervalMs: 500 });
}

async function requireEqual({ servers }: Pair, sql: string): Promise<void> {
  const [left, right] = await Promise.all(servers.map((server) => server.sql(DATABASE, sql)));
  if (JSON.stringify(left) !== JSON.stringify(right)) {
    throw new Error(`The nodes differ: ${JSON.stringify([left, right])}`);
  }
}

/** Runs a load and watches both nodes until it is delivered. */
async function watched(pair: Pair, run: (watches: MemoryWatch[]) => Promise<void>): Promise<MemoryWatch[]> {
  const watches = pair.nodes.map((node) => new MemoryWatch(() => node.pid));
  try {
    await run(watches);
    await delivered(pair);
  } finally {
    for (const watch of watches) watch.stop();
  }
  return watches;
}

function residentResults(what: string, watches: readonly MemoryWatch[]): Result[] {
  return watches.map(({ baseline, peak }, index) => ({
    what: `${what}, ${index === 0 ? "sender" : "receiver"}`,
    measured: `${inMb(peak)} MB at most (${inMb(baseline)} MB before)`,
    ok: peak < RESIDENT_LIMIT,
  }));
}

async function transactionCase(pair: Pair): Promise<Result[]> {
  const watches = await watched(pair, async () => {
    await pair.servers[0].sql(
      DATABASE,
      `INSERT INTO item SELECT g, repeat(md5(g::text), 4) FROM generate_series(1, ${TRANSACTION_ROWS}) g`,
    );
  });
  await requireEqual(pair, "SELECT count(*), sum(id), sum(hashtext(body)) FROM item");
  const { json } = await pair.nodes[0].api("GET", "/v1/peers/b");
  const what = `one transaction of ${TRANSACTION_ROWS} rows, ${
    inMb(Number(json.sent_message_bytes))
  } MB of pgoutput`;
  return residentResults(what, watches);
}

/** Transactions of ten megabytes each, a gigabyte in all. */
async function makeBacklog({ servers: [sender] }: Pair): Promise<void> {
  for (let i = 0; i < BACKLOG_TRANSACTIONS; i++) {
    await sender.sql(
      DATABASE,
      `INSERT INTO item SELECT ${
        i * BACKLOG_ROWS
      } + g, repeat(md5(g::text), 31) FROM generate_series(1, ${BACKLOG_ROWS}) g`,
    );
  }
}

async function stoppedCase(pair: Pair): Promise<Result[]> {
  const watches = await watched(pair, async () => {
    pair.nodes[1].signal("SIGSTOP");
    await makeBacklog(pair);
    pair.nodes[1].signal("SIGCONT");
  });
  await requireEqual(pair, "SELECT count(*), sum(id), sum(hashtext(body)) FROM item");
  return residentResults("a gigabyte of backlog, peer stopped (SIGSTOP), then drained", watches);
}

async function killedCase(pair: Pair): Promise<Result[]> {
  const watches = await watched(pair, async () => {
    await pair.nodes[1].kill();
    await makeBacklog(pair);
    await pair.nodes[1].start();
  });
  await requireEqual(pair, "SELECT count(*), sum(id), sum(hashtext(body)) FROM item");
  return residentResults("a gigabyte of backlog, peer killed, then started and drained", watches);
}

/** `table`'s value of 100 MB, made at the server and not compressible. */
function longValue(table: "long_text" | "long_bytes"): string {
  const digits = (length: number) =>
    `(SELECT string_agg(md5(g::text || random()), '') FROM generate_series(1, ${length / 32}) g)`;
  return table === "long_text" ? digits(VALUE_BYTES) : `decode(${digits(2 * VALUE_BYTES)}, 'hex')`;
}

function valueCase(table: "long_text" | "long_bytes"): Case {
  return async (pair) => {
    const results: Result[] = [];
    for (
      const [verb, sql] of [
        ["inserted", `INSERT INTO ${table} VALUES (1, ${longValue(table)})`],
        ["updated", `UPDATE ${table} SET body = ${longValue(table)}`],
      ]
    ) {
      const watches = await watched(pair, async () => void await pair.servers[0].sql(DATABASE, sql));
      results.push(...watches.map(({ baseline, peak }, index) => ({
        what: `100 MB of ${table === "long_text" ? "text" : "bytea"} ${verb}, ${
          index === 0 ? "sender" : "receiver"
        }`,
        measured: `${inMb(peak - baseline)} MB on top of ${inMb(baseline)} MB`,
        ok: peak - baseline <= VALUE_LIMIT,
      })));
    }
    await requireEqual(pair, `SELECT id, md5(body) FROM ${table}`);
    return results;
  };
}

async function idleCase({ nodes }: Pair): Promise<Result[]> {
  const before = await Promise.all(nodes.map((node) => cpuSeconds(node.pid!)));
  await new Promise((wake) => setTimeout(wake, IDLE_MS));
  const after = await Promise.all(nodes.map((node) => cpuSeconds(node.pid!)));
  return nodes.map((node, index) => {
    const share = (after[index] - before[index]) / (IDLE_MS / 1000);
    return {
      what: `idle for ${IDLE_MS / 1000} s, node ${node.name}`,
      measured: `${(after[index] - before[index]).toFixed(2)} s of processor time, ${
        (share * 100).toFixed(2)
      } % of a core`,
      ok: share < IDLE_LIMIT,
    };
  });
}

const CASES: Readonly<Record<string, Case>> = {
  idle: idleCase,
  transaction: transactionCase,
  stopped: stoppedCase,
  killed: killedCase,
  text: valueCase("long_text"),
  bytea: valueCase("long_bytes"),
};

async function runCase(run: Case): Promise<Result[]> {
  await using pair = await openPair();
  const results = await run(pair);
  // The receiver's own walsender may time out while its mmlite is stopped: the sender's never may.
  const timeouts = (await pair.servers[0].log()).match(
    /terminating walsender process due to replication timeout/g,
  );
  results.push({
    what: "the sender's walsender, with wal_sender_timeout = 10s",
    measured: `timed out ${timeouts?.length ?? 0} times`,
    ok: timeouts === null,
  });
  return results;
}

async function main(): Promise<number> {
  const { only } = readOptions(import.meta.url, { only: { type: "string", multiple: true } });
  const wanted = only ?? Object.keys(CASES);
  const unknown = wanted.find((name) => !(name in CASES));
  if (unknown !== undefined) {
    refuseOptions(`No case is called "${unknown}"; there are ${Object.keys(CASES).join(", ")}`);
  }
  let failed = 0;
  for (const name of wanted) {
    for (const { what, measured, ok } of await runCase(CASES[name])) {
      console.log(`${ok ? "ok  " : "FAIL"} ${what}: ${measured}`);
      if (!ok) failed++;
    }
  }
  console.log(failed === 0 ? "Every limit held." : `${failed} limits did not hold.`);
  return failed === 0 ? 0 : 1;
}

function inMb(bytes: number): string {
  return (bytes / MB).toFixed(0);
}

process.exit(await main());
