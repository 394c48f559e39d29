/**
 * A full mesh of mmlite processes, each direction of a pair through a proxy of its own.
 */
import { type Mmlite, startMmlite } from "../../tests/support/mmlite.ts";
import { eventually } from "../../tests/support/poll.ts";
import { parseLsn } from "../../src/lsn.ts";
import { type LinkProxy, startLinkProxy } from "./link_proxy.ts";
import { type Conflicts, createMembers, type Mark, type Member, type Mesh } from "./member.ts";
import type { Plan } from "./plan.ts";
import type { ServerPool } from "./server_pool.ts";
import { skewEnvironment } from "./skew.ts";
import { LOG_TABLE } from "./tables.ts";

/** Time allowed for all nodes to have applied everything once all is whole again, milliseconds. */
const SETTLE_TIMEOUT_MS = 60_000;

/** Starts the mesh of a plan; returns once every link streams. */
export async function startMmliteMesh(
  pool: ServerPool,
  plan: Plan,
  faketime: string | undefined,
): Promise<Mesh> {
  await using stack = new AsyncDisposableStack();
  const members = await createMembers(stack, pool, plan);
  const nodes = await Promise.all(members.map(async ({ planned, server, database }) => {
    const env = faketime === undefined ? {} : skewEnvironment(faketime, planned.mmliteSkewMs);
    const node = await startMmlite({ name: planned.name, postgres: server.url(database), env });
    stack.defer(async () => {
      if (node.pid) await node.kill();
      await node[Symbol.asyncDispose]();
    });
    return node;
  }));
  const links = await startLinks(stack, nodes);
  await connect(nodes, links);
  const tally = new ConflictTally(nodes);
  const owned = stack.move();
  return {
    members,
    link: (from, to) => links[from][to]!,
    async kill(place) {
      await tally.keep(place);
      await nodes[place].kill();
    },
    start: (place) => nodes[place].start(),
    settle: (marks) => settle(members, nodes, marks),
    conflicts: () => tally.sum(),
    logs: async () =>
      new Map(await Promise.all(nodes.map(async (node) => [node.name, await node.log()] as const))),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

type Links = readonly (readonly (LinkProxy | undefined)[])[];

async function startLinks(stack: AsyncDisposableStack, nodes: readonly Mmlite[]): Promise<Links> {
  return await Promise.all(
    nodes.map((from) =>
      Promise.all(nodes.map(async (to) => {
        if (from === to) return undefined;
        const port = Number(new URL(to.peerUrl).port);
        return stack.use(await startLinkProxy(() => port));
      }))
    ),
  );
}

async function connect(nodes: readonly Mmlite[], links: Links): Promise<void> {
  const put = async (from: number, to: number) => {
    const url = `http://127.0.0.1:${links[from][to]!.port}`;
    const { status, json } = await nodes[from].api("PUT", `/v1/peers/${nodes[to].name}`, { url });
    if (status === 201 || status === 200) return true;
    throw new Error(`Cannot make ${nodes[to].name} a peer of ${nodes[from].name}: ${JSON.stringify(json)}`);
  };
  await Promise.all(nodes.map(async (_, from) => {
    for (const to of nodes.keys()) {
      if (to !== from) await eventually("the peer to be taken", () => put(from, to));
    }
  }));
  await Promise.all(
    nodes.map((node) => eventually(`${node.name} to stream`, () => streams(node), { intervalMs: 20 })),
  );
}

async function streams(node: Mmlite): Promise<boolean> {
  const { json } = await node.api("GET", "/v1/peers");
  for (const { name, state, last_error: error } of json.items) {
    if (state !== "streaming") throw new Error(`${name} is ${state}, last error ${JSON.stringify(error)}`);
  }
  return true;
}

async function settle(
  members: readonly Member[],
  nodes: readonly Mmlite[],
  marks: readonly Mark[],
): Promise<string[]> {
  const deadline = performance.now() + SETTLE_TIMEOUT_MS;
  const look = async (place: number) => {
    const missing = await missingAcks(nodes[place], marks[place]);
    const { server, database, name } = members[place];
    const rows = await server.sql(database, `SELECT id FROM public.${LOG_TABLE} WHERE id = ANY ($1)`, [
      marks.map(({ id }) => id),
    ]);
    const held = new Set(rows.map(({ id }) => Number(id)));
    for (const [from, { id }] of marks.entries()) {
      if (!held.has(id)) missing.push(`${name} lacks the last transaction of ${members[from].name}`);
    }
    const awaiting = await server.sql(database, "SELECT DISTINCT origin FROM mmlite.unsent");
    for (const { origin } of awaiting) missing.push(`${name} awaits rows of ${origin}`);
    if (missing.length > 0) throw new Error(missing.join("\n"));
    return true;
  };
  const standing = await Promise.all(members.map(async (_, place) => {
    const timeoutMs = Math.ceil(deadline - performance.now());
    try {
      await eventually("everything to be applied", () => look(place), { timeoutMs, intervalMs: 25 });
      return [];
    } catch (thrown) {
      return (thrown as Error).message.split("\n");
    }
  }));
  return standing.flat();
}

/** Peers that have not acked a node's last local transaction. */
async function missingAcks(node: Mmlite, { lsn }: Mark): Promise<string[]> {
  const { json } = await node.api("GET", "/v1/status");
  const missing: string[] = [];
  for (const { name, state, acked_lsn: acked, last_error: error } of json.peers) {
    if (acked !== null && parseLsn(acked) >= parseLsn(lsn)) continue;
    missing.push(`${name} has acked ${node.name} up to ${acked}, not ${lsn}: ${state}, ${error?.message}`);
  }
  return missing;
}

/** Sums what nodes count, whose counters begin anew with each start. */
class ConflictTally {
  readonly #kept = new Map<string, number>();
  readonly #nodes: readonly Mmlite[];

  constructor(nodes: readonly Mmlite[]) {
    this.#nodes = nodes;
  }

  /** Reads the counters of a node that is about to be killed. */
  async keep(place: number): Promise<void> {
    this.#add(this.#kept, await this.#read(place));
  }

  async sum(): Promise<Conflicts> {
    const sum = new Map(this.#kept);
    for (const place of this.#nodes.keys()) this.#add(sum, await this.#read(place));
    return Object.fromEntries(sum);
  }

  async #read(place: number): Promise<Conflicts> {
    const answer = await this.#nodes[place].api("GET", "/v1/status").catch(() => undefined);
    return answer?.json.conflicts.since_start ?? {};
  }

  #add(sum: Map<string, number>, conflicts: Conflicts): void {
    for (const [type, count] of Object.entries(conflicts)) sum.set(type, (sum.get(type) ?? 0) + count);
  }
}
