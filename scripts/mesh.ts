/**
 * `deno task mesh [--seconds 60] [--clients 2]`: three PostgreSQL servers of three releases with an mmlite beside
 * each, and pgbench on all three at once.
 *
 * Afterwards all four of its tables must hold the same rows on every node. Prints what each node wrote, what each
 * link carried and how long rows took to become visible. Needs PostgreSQL's `pgbench` in PATH. The last line is
 * one sentence; the exit code is 1 if the nodes differ.
 */
import process from "node:process";
import { connectAll, type Mmlite, startMmlite } from "../tests/support/mmlite.ts";
import { eventually } from "../tests/support/poll.ts";
import { type PostgresMajor, type PostgresServer, startPostgres } from "../tests/support/postgres.ts";
import { type LinkLag, PROBE_TABLE, startLagProbe } from "./mesh/lag_probe.ts";
import {
  BRANCHES_PER_NODE,
  createPgbenchTables,
  findPgbench,
  PGBENCH_TABLES,
  type PgbenchResult,
  runPgbench,
} from "./mesh/pgbench.ts";
import { readOptions, wholeNumber } from "./options.ts";
import { percentile } from "./statistics.ts";
import { formatTable } from "./text_table.ts";

const NODES: readonly { name: string; major: PostgresMajor }[] = [
  { name: "ams", major: 18 },
  { name: "fra", major: 16 },
  { name: "nyc", major: 14 },
];
const DATABASE = "app";
/** How long the nodes may take to hold everything after the last write, milliseconds. */
const CONVERGE_TIMEOUT_MS = 300_000;

interface MeshNode {
  readonly name: string;
  readonly server: PostgresServer;
  readonly mmlite: Mmlite;
}

interface Load {
  readonly seconds: number;
  readonly clients: number;
}

/** What came of the run. */
interface Outcome {
  readonly results: readonly PgbenchResult[];
  readonly lags: readonly LinkLag[];
  /** From the last commit until every node had every row, seconds. */
  readonly convergedAfter: number;
}

async function startMesh(stack: AsyncDisposableStack, pgbench: string): Promise<MeshNode[]> {
  const servers: PostgresServer[] = [];
  for (const [index, { major }] of NODES.entries()) {
    const server = stack.use(await startPostgres({ major, settings: { shared_buffers: "256MB" } }));
    await server.createDatabase(DATABASE);
    await createPgbenchTables(pgbench, { server, database: DATABASE, share: { index, of: NODES.length } });
    await server.sql(DATABASE, PROBE_TABLE);
    servers.push(server);
  }
  const nodes = await Promise.all(NODES.map(async ({ name }, index) => {
    const server = servers[index];
    const mmlite = stack.use(await startMmlite({ name, postgres: server.url(DATABASE) }));
    return { name, server, mmlite };
  }));
  await connectAll(nodes.map(({ mmlite }) => mmlite));
  await eventually("every link to stream", async () => {
    const pages = await Promise.all(nodes.map(({ mmlite }) => mmlite.api("GET", "/v1/peers")));
    return pages.every(({ json }) =>
      json.items.every((peer: { state: string }) => peer.state === "streaming")
    );
  });
  return nodes;
}

/** Runs pgbench and the probe on all nodes, and waits until every node has every row. */
async function runLoad(pgbench: string, nodes: readonly MeshNode[], load: Load): Promise<Outcome> {
  const probe = startLagProbe(nodes, DATABASE);
  const results = await Promise.all(
    nodes.map(({ server }, index) =>
      runPgbench(pgbench, { server, database: DATABASE, share: { index, of: nodes.length }, ...load })
    ),
  );
  // The probe's last row comes after everything that its node's pgbench has committed.
  const ended = performance.now();
  await probe.stopWriting();
  const lags = await probe.finish(AbortSignal.timeout(CONVERGE_TIMEOUT_MS));
  return { results, lags, convergedAfter: (performance.now() - ended) / 1000 };
}

/** By table, in the order of {@link PGBENCH_TABLES}: how many rows, and a digest over all of their values. */
async function digestTables({ server }: MeshNode): Promise<{ rows: number; digest: string }[]> {
  const parts = Object.entries(PGBENCH_TABLES).map(([table, key]) => `
    SELECT '${table}' AS name, count(*)::int AS rows, md5(string_agg(md5(t::text), '' ORDER BY ${key})) AS digest
      FROM ${table} t`);
  const digests = await server.sql(DATABASE, parts.join(" UNION ALL "));
  return Object.keys(PGBENCH_TABLES).map((table) => digests.find(({ name }) => name === table)!);
}

/** Changes of each origin that a node has applied, from its metrics. */
async function readAppliedChanges({ mmlite }: MeshNode): Promise<Map<string, number>> {
  const { json: text } = await mmlite.api("GET", "/metrics");
  const changes = new Map<string, number>();
  for (const line of String(text).split("\n")) {
    if (!line.startsWith("mmlite_applied_changes_total{")) continue;
    const origin = /origin="([^"]+)"/.exec(line)![1];
    changes.set(origin, (changes.get(origin) ?? 0) + Number(line.slice(line.lastIndexOf(" "))));
  }
  return changes;
}

function nodeRows(nodes: readonly MeshNode[], results: readonly PgbenchResult[]): string[][] {
  return [
    ["node", "PostgreSQL", "branches", "transactions", "tx/s"],
    ...nodes.map(({ name, server }, index) => [
      name,
      String(server.major),
      `${index * BRANCHES_PER_NODE + 1}..${(index + 1) * BRANCHES_PER_NODE}`,
      String(results[index].transactions),
      results[index].rate.toFixed(0),
    ]),
  ];
}

async function linkRows(nodes: readonly MeshNode[], lags: readonly LinkLag[]): Promise<string[][]> {
  const rows = [
    ["link", "sent tx", "applied tx", "changes", "sent MB", "lag p50 ms", "p99 ms", "max ms", "probes"],
  ];
  for (const from of nodes) {
    for (const to of nodes) {
      if (from === to) continue;
      const { json: outbound } = await from.mmlite.api("GET", `/v1/peers/${to.name}`);
      const { json: { inbound } } = await to.mmlite.api("GET", `/v1/peers/${from.name}`);
      const link = lags.find((lag) => lag.from === from.name && lag.to === to.name)!;
      const changes = (await readAppliedChanges(to)).get(from.name) ?? 0;
      rows.push([
        `${from.name} -> ${to.name}`,
        String(outbound.sent_transactions),
        String(inbound.transactions),
        String(changes),
        (Number(outbound.sent_bytes) / 1e6).toFixed(1),
        ...[0.5, 0.99, 1].map((share) => percentile(link.lags, share).toFixed(1)),
        String(link.lags.length),
      ]);
    }
  }
  return rows;
}

/** Prints the digests; whether they are equal. */
async function compareTables(nodes: readonly MeshNode[]): Promise<boolean> {
  const digests = await Promise.all(nodes.map(digestTables));
  const rows = Object.keys(PGBENCH_TABLES).map((table, index) => [
    table,
    ...digests.map((node) => `${node[index].rows} rows ${node[index].digest.slice(0, 12)}`),
  ]);
  console.log("\n" + formatTable([["table", ...nodes.map(({ name }) => name)], ...rows]).join("\n"));
  return digests.every((other) => JSON.stringify(other) === JSON.stringify(digests[0]));
}

async function runMesh(pgbench: string, load: Load): Promise<number> {
  await using stack = new AsyncDisposableStack();
  const names = NODES.map(({ name, major }) => `${name} (PostgreSQL ${major})`).join(", ");
  console.log(`Starting ${names}, ${BRANCHES_PER_NODE * NODES.length} branches on each.`);
  const nodes = await startMesh(stack, pgbench);
  console.log(`pgbench writes on all of them for ${load.seconds} s, ${load.clients} clients each.\n`);
  const outcome = await runLoad(pgbench, nodes, load);
  console.log(formatTable(nodeRows(nodes, outcome.results)).join("\n") + "\n");
  console.log(formatTable(await linkRows(nodes, outcome.lags)).join("\n"));
  const equal = await compareTables(nodes);
  const transactions = outcome.results.reduce((sum, result) => sum + result.transactions, 0);
  const lags = outcome.lags.flatMap((link) => link.lags);
  const when = `${outcome.convergedAfter.toFixed(1)} s after the last of ${transactions} transactions`;
  const lag = `p50 ${percentile(lags, 0.5).toFixed(1)} ms and p99 ${percentile(lags, 0.99).toFixed(1)} ms`;
  console.log(
    equal
      ? `\nAll three nodes hold the same rows in all four tables, ${when}; from commit to visible it took ${lag}.`
      : `\nThe three nodes still differ ${when}.`,
  );
  return equal ? 0 : 1;
}

async function main(): Promise<number> {
  const { seconds, clients } = readOptions(import.meta.url, {
    seconds: { type: "string", default: "60" },
    clients: { type: "string", default: "2" },
  });
  const load = { seconds: wholeNumber(seconds, "--seconds"), clients: wholeNumber(clients, "--clients") };
  const pgbench = await findPgbench();
  if (pgbench === undefined) {
    console.error(
      "Cannot run the mesh: no pgbench in PATH (Debian has it in the server's package, such as postgresql-15).",
    );
    return 1;
  }
  return await runMesh(pgbench, load);
}

process.exit(await main());
