/**
 * How long after its commit on one node a row is visible on another, measured by one clock: the servers run on
 * the same machine.
 *
 * A writer on each node inserts a row now and then; a reader on each node looks how far the others' rows have
 * come. The commit's time is the server's own, of its commit record; the time of visibility is the server's
 * clock in the query that saw the row first, so up to one look late and never early.
 */
import type pg from "pg";
import type { PostgresServer } from "../../tests/support/postgres.ts";

/** Pause of a writer between two rows, milliseconds. */
const WRITE_INTERVAL_MS = 20;
/** Pause of a reader between two looks, milliseconds: what the result may be too high by. */
const LOOK_INTERVAL_MS = 2;

/** A node with its database. */
export interface ProbedNode {
  readonly name: string;
  readonly server: PostgresServer;
}

/** The lags of one link in the order of their rows, milliseconds. */
export interface LinkLag {
  readonly from: string;
  readonly to: string;
  readonly lags: readonly number[];
}

/** To be created in every database before anything is replicated. */
export const PROBE_TABLE = "CREATE TABLE probe (node text, number int, PRIMARY KEY (node, number))";

/** A running probe. */
export interface LagProbe {
  /** Ends the writers; each node's last row, by node. */
  stopWriting(): Promise<ReadonlyMap<string, number>>;
  /** Waits until every reader has seen every row, or `signal` aborts; the lags of every link. */
  finish(signal: AbortSignal): Promise<LinkLag[]>;
}

/** When rows up to a number became visible, milliseconds since 1970. */
interface Sighting {
  readonly number: number;
  readonly at: number;
}

/** Starts a writer and a reader on every node. */
export function startLagProbe(nodes: readonly ProbedNode[], database: string): LagProbe {
  const writing = new AbortController();
  const reading = new AbortController();
  const last = new Map<string, number>();
  const writers = nodes.map((node) => write(node, { database, last, signal: writing.signal }));
  const sightings = new Map<string, Sighting[]>();
  const readers = nodes.map((node) => read(node, { nodes, database, sightings, signal: reading.signal }));
  for (const running of [...writers, ...readers]) running.catch(() => {});
  return {
    async stopWriting() {
      writing.abort();
      await Promise.all(writers);
      return last;
    },
    async finish(signal) {
      while (!signal.aborted && !hasSeenAll(sightings, { nodes, last })) {
        await Promise.race([...readers, pause(LOOK_INTERVAL_MS)]);
      }
      reading.abort();
      await Promise.all(readers);
      return await toLags(nodes, { database, sightings });
    },
  };
}

async function write(
  { name, server }: ProbedNode,
  { database, last, signal }: { database: string; last: Map<string, number>; signal: AbortSignal },
): Promise<void> {
  const client = await server.connect(database);
  try {
    for (let number = 1; !signal.aborted; number++) {
      await client.query("INSERT INTO probe VALUES ($1, $2)", [name, number]);
      last.set(name, number);
      await pause(WRITE_INTERVAL_MS);
    }
  } finally {
    await client.end();
  }
}

interface Reading {
  readonly nodes: readonly ProbedNode[];
  readonly database: string;
  readonly sightings: Map<string, Sighting[]>;
  readonly signal: AbortSignal;
}

async function read(self: ProbedNode, { nodes, database, sightings, signal }: Reading): Promise<void> {
  const others = nodes.filter((node) => node !== self);
  const lists = others.map((from) => {
    const list: Sighting[] = [];
    sightings.set(linkKey(from, self), list);
    return list;
  });
  const client = await self.server.connect(database);
  try {
    while (!signal.aborted) {
      const { at, numbers } = await look(client, others);
      numbers.forEach((number, index) => {
        if (number > (lists[index].at(-1)?.number ?? 0)) lists[index].push({ number, at });
      });
      await pause(LOOK_INTERVAL_MS);
    }
  } finally {
    await client.end();
  }
}

async function look(
  client: pg.Client,
  others: readonly ProbedNode[],
): Promise<{ at: number; numbers: number[] }> {
  const columns = others.map((_, index) =>
    `coalesce((SELECT max(number) FROM probe WHERE node = $${index + 1}), 0)`
  );
  const { rows: [[at, ...numbers]] } = await client.query({
    name: "look",
    text: `SELECT extract(epoch FROM clock_timestamp())::float8 * 1000, ${columns.join(", ")}`,
    values: others.map(({ name }) => name),
    rowMode: "array",
  });
  return { at, numbers };
}

function hasSeenAll(
  sightings: ReadonlyMap<string, Sighting[]>,
  { nodes, last }: { nodes: readonly ProbedNode[]; last: ReadonlyMap<string, number> },
): boolean {
  return pairs(nodes).every(([from, to]) =>
    (sightings.get(linkKey(from, to))?.at(-1)?.number ?? 0) >= (last.get(from.name) ?? 0)
  );
}

async function toLags(
  nodes: readonly ProbedNode[],
  { database, sightings }: { database: string; sightings: ReadonlyMap<string, Sighting[]> },
): Promise<LinkLag[]> {
  const commits = new Map<string, number[]>();
  for (const { name, server } of nodes) {
    commits.set(name, await readCommits(server, { database, node: name }));
  }
  return pairs(nodes).map(([from, to]) => ({
    from: from.name,
    to: to.name,
    lags: lagsOf(commits.get(from.name)!, sightings.get(linkKey(from, to))!),
  }));
}

/** When each row of a node was committed there, milliseconds since 1970, in the order of their numbers. */
async function readCommits(
  server: PostgresServer,
  { database, node }: { database: string; node: string },
): Promise<number[]> {
  const rows = await server.sql(
    database,
    `SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 * 1000 AS at
       FROM probe WHERE node = $1 ORDER BY number`,
    [node],
  );
  return rows.map(({ at }) => at);
}

/** `commits[i]` is that of row `i + 1`; one sighting may be the first of several rows. */
export function lagsOf(commits: readonly number[], sightings: readonly Sighting[]): number[] {
  const lags: number[] = [];
  for (const { number, at } of sightings) {
    while (lags.length < number) lags.push(at - commits[lags.length]);
  }
  return lags;
}

function pairs(nodes: readonly ProbedNode[]): [ProbedNode, ProbedNode][] {
  return nodes.flatMap((from) =>
    nodes.filter((to) => to !== from).map((to): [ProbedNode, ProbedNode] => [from, to])
  );
}

function linkKey(from: ProbedNode, to: ProbedNode): string {
  return `${from.name} -> ${to.name}`;
}

function pause(ms: number): Promise<void> {
  return new Promise((wake) => setTimeout(wake, ms));
}
