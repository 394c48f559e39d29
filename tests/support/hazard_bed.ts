/**
 * What tests of hazards share: writers whose rows are known one by one, links looked at by state, the commands that
 * heal, and whether nodes hold the same.
 */
import assert from "node:assert/strict";
import { delay } from "../../src/backoff.ts";
import type { PeerStatus } from "../../src/api/schemas.ts";
import type { Mmlite } from "./mmlite.ts";
import { eventually } from "./poll.ts";
import type { PostgresServer } from "./postgres.ts";

/** A node with its database. */
export interface HazardNode {
  readonly server: PostgresServer;
  readonly database: string;
  readonly node: Mmlite;
}

/** The tables of all nodes. */
export const HAZARD_SCHEMA =
  `CREATE TABLE item (id bigint PRIMARY KEY, who text NOT NULL, v text); CREATE TABLE other (id int PRIMARY KEY)`;

/** Ids over all writers, so that no two insert the same row. */
let nextId = 1;

/** Writes at one node, and knows which rows it has left there. */
export class LedgerWriter {
  readonly who: string;
  readonly rows = new Map<number, string>();
  readonly #at: HazardNode;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;

  constructor(at: HazardNode, who: string = at.node.name) {
    this.#at = at;
    this.who = who;
    this.#running = this.#run();
    this.#running.catch(() => {});
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { server, database } = this.#at;
    const client = await server.connect(database);
    try {
      for (let round = 0; !this.#stop.signal.aborted; round++) {
        await this.#write(client, round);
        await delay(10, this.#stop.signal);
      }
    } finally {
      await client.end();
    }
  }

  async #write(client: { query(text: string): Promise<unknown> }, round: number): Promise<void> {
    const id = nextId++;
    await client.query(`INSERT INTO item VALUES (${id}, '${this.who}', 'new')`);
    this.rows.set(id, "new");
    const [some] = [...this.rows.keys()].slice(Math.floor(this.rows.size / 2));
    if (round % 3 === 0) {
      await client.query(`UPDATE item SET v = 'u${round}' WHERE id = ${some}`);
      this.rows.set(some, `u${round}`);
    }
    if (round % 4 === 0 && some !== id) {
      await client.query(`DELETE FROM item WHERE id = ${some}`);
      this.rows.delete(some);
    }
  }
}

/** Writes one set of rows at a node, deletes and changes included; the writer, stopped. */
export async function writeSome(at: HazardNode, who?: string, rows = 20): Promise<LedgerWriter> {
  const writer = new LedgerWriter(at, who);
  await eventually(`${rows} rows of ${writer.who}`, () => writer.rows.size >= rows);
  await writer.stop();
  return writer;
}

/** The rows of all tables at a node. */
export async function rowsOf({ server, database }: HazardNode): Promise<string[]> {
  const rows = await server.sql(
    database,
    "SELECT 'item ' || i::text AS row FROM item i UNION ALL SELECT 'other ' || id FROM other ORDER BY 1",
  );
  return rows.map(({ row }) => row);
}

/** Waits until all nodes hold the same rows; each writer's are exactly those that it has left. */
export async function requireSame(
  nodes: readonly HazardNode[],
  writers: readonly LedgerWriter[],
): Promise<void> {
  await eventually("all nodes to hold the same rows", async () => {
    const [first, ...others] = await Promise.all(nodes.map(rowsOf));
    for (const [i, other] of others.entries()) {
      const [a, b] = [new Set(first), new Set(other)];
      const differing = [...a.symmetricDifference(b)];
      if (differing.length > 0) {
        throw new Error(
          `${nodes[i + 1].node.name}: ${differing.length} differ, such as ${
            differing.slice(0, 5).join("; ")
          }`,
        );
      }
    }
    return true;
  });
  for (const { server, database, node } of nodes) {
    for (const { who, rows } of writers) {
      const found = await server.sql(database, "SELECT id::int, v FROM item WHERE who = $1", [who]);
      assert.deepEqual(
        new Map(found.map(({ id, v }): [number, string] => [id, v]).sort(([a], [b]) => a - b)),
        new Map([...rows].sort(([a], [b]) => a - b)),
        `rows of ${who} at ${node.name}`,
      );
    }
  }
}

/** A peer as a node sees it, once a condition holds. */
export async function peerOnce(
  at: Mmlite,
  peer: string,
  { what, holds }: { readonly what: string; readonly holds: (status: PeerStatus) => boolean },
): Promise<PeerStatus> {
  return await eventually(`${at.name}'s peer ${peer} to be ${what}`, async () => {
    const { json } = await at.api("GET", `/v1/peers/${peer}`);
    if (holds(json)) return json;
    throw new Error(JSON.stringify(json));
  });
}

/** The link from a node to a peer once it is in a state. */
export function linkOnce(at: Mmlite, peer: string, state: PeerStatus["state"]): Promise<PeerStatus> {
  return peerOnce(at, peer, { what: state, holds: (status) => status.state === state });
}

/** Runs a command that has to succeed; what it printed. */
export async function run({ node }: HazardNode, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await node.cli(...args);
  assert.equal(code, 0, `${node.name}: mmlite ${args.join(" ")}: ${code} ${stdout} ${stderr}`);
  return stdout + stderr;
}

/** Runs the commands that a hint names, each on the node that it names, in their order; which they were. */
export async function runHint(nodes: readonly HazardNode[], hint: string): Promise<string[]> {
  const commands = [...hint.matchAll(/`mmlite ([^`]+)` on "(\w+)"/g)];
  assert.ok(commands.length > 0, hint);
  for (const [, command, on] of commands) {
    const at = nodes.find(({ node }) => node.name === on);
    assert.ok(at, on);
    // Rows that were written to meanwhile are left: it is to be run again.
    await eventually(`${on}: mmlite ${command}`, async () => {
      const { code, stdout, stderr } = await at.node.cli(...command.split(" "));
      assert.ok(code === 0 || code === 75, `${on}: mmlite ${command}: ${code} ${stdout} ${stderr}`);
      return code === 0;
    }, { timeoutMs: 60_000 });
  }
  return commands.map(([, command, on]) => `${on}: ${command}`);
}

/** Says nothing of rows that may differ any more. */
export async function requireNothingDue(nodes: readonly HazardNode[]): Promise<void> {
  for (const { node } of nodes) {
    const { json: { peers } } = await node.api("GET", "/v1/status");
    for (const { name, repair_due_since: due } of peers) assert.equal(due, null, `${name} at ${node.name}`);
  }
}
