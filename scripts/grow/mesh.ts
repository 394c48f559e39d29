/**
 * The nodes that are there at a moment of a round, each with a server of its own and a client that writes, and what it
 * takes to let another one in, or one go.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { delay } from "../../src/backoff.ts";
import { inviteAt, printedRunLine } from "../../tests/support/join_bed.ts";
import { connectAll, type Mmlite, runMmlite, startMmlite } from "../../tests/support/mmlite.ts";
import { eventually } from "../../tests/support/poll.ts";
import { type PostgresServer, startPostgres } from "../../tests/support/postgres.ts";
import { makeScratch, removeScratch } from "../../tests/support/scratch.ts";
import type { GrowPlan, PlannedNode } from "./plan.ts";
import { growSchemaSql } from "./tables.ts";

/** A database with its node. */
export interface GrowNode {
  readonly name: string;
  readonly planned: PlannedNode;
  readonly server: PostgresServer;
  readonly database: string;
  readonly mmlite: Mmlite;
}

/** Time allowed for a node to run, milliseconds: its slots wait for open transactions. */
const START_TIMEOUT_MS = 90_000;
/** Time allowed for every link to stream, milliseconds. */
const STREAM_TIMEOUT_MS = 90_000;
/** Time allowed for a node to have everything before it is removed, milliseconds. */
const DRAIN_TIMEOUT_MS = 60_000;
const RESTART_MS = 300;

const DATABASE = "grow";
const CLUSTER = "mmlite";

/** See the module's head. */
export class GrowMesh implements AsyncDisposable {
  readonly live: GrowNode[] = [];
  readonly #plan: GrowPlan;
  readonly #stack = new AsyncDisposableStack();
  #directory = "";

  constructor(plan: GrowPlan) {
    this.#plan = plan;
  }

  /** Starts the first two nodes, without rows. */
  async start(): Promise<void> {
    const [first, second] = this.#plan.nodes;
    if (this.#plan.byToken) {
      this.#directory = await makeScratch("grow");
      this.#stack.defer(() => removeScratch(this.#directory));
      const tls = join(this.#directory, "tls");
      const { code, stderr } = await runMmlite(["cert", "ca", "--cluster", CLUSTER, "--out", tls]);
      if (code !== 0) throw new Error(stderr);
      this.live.push(await this.#startNode(first, { tls, extraArgs: ["--cluster", CLUSTER] }));
      this.live.push(await this.startJoining(second));
      await this.awaitRunning(this.live[1]);
    } else {
      for (const node of [first, second]) this.live.push(await this.startNode(node));
      await connectAll(this.live.map(({ mmlite }) => mmlite));
    }
    await this.awaitStreams();
  }

  /** Starts a node without peers. */
  startNode(planned: PlannedNode): Promise<GrowNode> {
    return this.#startNode(planned, {});
  }

  /** Starts `mmlite join` with a token of the first node; it has not joined when this returns. */
  async startJoining(planned: PlannedNode): Promise<GrowNode> {
    const token = await inviteAt(this.live[0].mmlite);
    let command: readonly string[] = ["join", token];
    const node = await this.#startNode(planned, {
      tables: [],
      command: () => command,
      awaitReady: false,
    });
    this.#joining.set(node, async () => {
      const { mmlite } = node;
      if (existsSync(join(mmlite.stateDir, "join.json"))) return;
      if ((await mmlite.log()).includes("\nmmlite run ")) command = await printedRunLine(mmlite);
    });
    return node;
  }
  readonly #joining = new Map<GrowNode, () => Promise<void>>();

  /** Starts a node that has ended, as often as it takes. */
  async awaitRunning(node: GrowNode): Promise<void> {
    const ended = performance.now() + START_TIMEOUT_MS;
    for (;;) {
      await this.#joining.get(node)?.();
      try {
        return await node.mmlite.start();
      } catch (thrown) {
        if (performance.now() > ended) throw thrown;
        await delay(RESTART_MS);
      }
    }
  }

  /** Makes a node and all that are there peers of each other. */
  async introduce({ mmlite }: GrowNode): Promise<void> {
    for (const { mmlite: other } of this.live) {
      await connectAll([other, mmlite]);
    }
  }

  /** Waits until every link streams. */
  async awaitStreams(): Promise<void> {
    for (const { mmlite } of this.live) {
      await eventually(`${mmlite.name} to stream`, async () => {
        const { json } = await mmlite.api("GET", "/v1/peers");
        if (json.items.length !== this.live.length - 1) throw new Error(`${json.items.length} peers`);
        for (const { name, state, last_error: error } of json.items) {
          if (state !== "streaming") {
            throw new Error(`${name} is ${state}, last error ${JSON.stringify(error)}`);
          }
        }
        return true;
      }, { timeoutMs: STREAM_TIMEOUT_MS });
    }
  }

  /** Removes a node that nobody writes on any more, and whose changes have arrived everywhere. */
  async remove(node: GrowNode): Promise<void> {
    this.live.splice(this.live.indexOf(node), 1);
    for (const { mmlite } of this.live) {
      const { status, json } = await mmlite.api("DELETE", `/v1/peers/${node.name}`);
      if (status !== 202 && status !== 204) {
        throw new Error(`Cannot remove ${node.name} from ${mmlite.name}: ${JSON.stringify(json)}`);
      }
    }
    for (const { mmlite } of this.live) {
      await eventually(`${node.name} to have left ${mmlite.name}`, async () => {
        const { status, json } = await mmlite.api("GET", `/v1/peers/${node.name}`);
        if (status === 404) return true;
        throw new Error(JSON.stringify(json));
      }, { timeoutMs: DRAIN_TIMEOUT_MS });
      await node.mmlite.api("DELETE", `/v1/peers/${mmlite.name}?force=true`);
    }
    await node.mmlite.stop();
    await node.server.stop("immediate");
  }

  /** What each node has printed, those that have left included. */
  async logs(): Promise<ReadonlyMap<string, string>> {
    return new Map(
      await Promise.all(this.#started.map(async ({ name, mmlite }) => [name, await mmlite.log()] as const)),
    );
  }
  readonly #started: GrowNode[] = [];

  async #startNode(
    planned: PlannedNode,
    options: Partial<Parameters<typeof startMmlite>[0]>,
  ): Promise<GrowNode> {
    const server = this.#stack.use(
      await startPostgres({
        major: planned.major,
        settings: {
          // A killed process takes nothing with it that was written; only a machine that loses power would.
          fsync: "off",
          max_wal_senders: "30",
          max_replication_slots: "30",
          max_prepared_transactions: planned.prepares ? "10" : "0",
        },
      }),
    );
    await server.createDatabase(DATABASE);
    await server.sql(DATABASE, growSchemaSql());
    const { name } = planned;
    const mmlite = await startMmlite({ name, postgres: server.url(DATABASE), ...options });
    const node = { name, planned, server, database: DATABASE, mmlite };
    this.#stack.defer(async () => {
      if (mmlite.pid) await mmlite.kill();
      await mmlite[Symbol.asyncDispose]();
    });
    this.#started.push(node);
    return node;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}
