/**
 * One node more: it becomes a peer of all, the rows are copied while everybody writes, and processes are killed
 * meanwhile.
 */
import { delay } from "../../src/backoff.ts";
import { eventually } from "../../tests/support/poll.ts";
import type { GrowMesh, GrowNode } from "./mesh.ts";
import type { Fault, GrowPlan, PlannedJoin } from "./plan.ts";
import type { Writers } from "./writers.ts";

/** What came of a join. */
export interface JoinOutcome {
  readonly name: string;
  /** From its beginning until all rows had come, and of that from when the copy was asked for, milliseconds. */
  readonly joinMs: number;
  readonly copyMs: number;
  readonly rows: number;
  /** Faults that came before all rows had. */
  readonly faults: readonly Fault["kind"][];
}

/** What a join is given to work with. */
export interface JoinOptions {
  readonly plan: GrowPlan;
  readonly mesh: GrowMesh;
  readonly writers: Writers;
  /** Is told of each fault. */
  readonly say: (sentence: string) => void;
}

/** Time allowed for all rows to come, milliseconds. */
const COPY_TIMEOUT_MS = 120_000;
const LOOK_MS = 20;

/** Lets a node in and returns when it is as good as the others. */
export async function joinNode(planned: PlannedJoin, options: JoinOptions): Promise<JoinOutcome> {
  const { plan, mesh, writers } = options;
  const places = { donor: mesh.live[planned.donor], third: mesh.live[planned.third] };
  const wish = plan.nodes[planned.joiner];
  // Of its own server's making the joiner knows nothing yet.
  const joiner = plan.byToken ? undefined : await mesh.startNode(wish);
  const openBefore = async (...moments: readonly string[]) => {
    const open = planned.open.filter(({ when }) => moments.includes(when));
    for (const one of open) await writers.open(places[one.on], one);
  };
  await openBefore("join", ...(plan.byToken ? ["copy"] : []));
  const beganAt = performance.now();
  const node = joiner ?? await mesh.startJoining(wish);
  if (!plan.byToken) await mesh.introduce(node);
  const copy = new Copy(node, { ...options, ...places });
  if (!plan.byToken) {
    await openBefore("copy");
    await copy.ask();
  }
  const askedAt = performance.now();
  const hurt = planned.faults.map((fault) => copy.suffer(fault));
  hurt.forEach((one) => one.catch(() => {})); // Awaited below.
  const rows = await copy.ended();
  const endedAt = performance.now();
  await Promise.all(hurt);
  await mesh.awaitRunning(node);
  mesh.live.push(node);
  await mesh.awaitStreams();
  await writers.closed();
  const times = { joinMs: endedAt - beganAt, copyMs: endedAt - askedAt };
  return { name: node.name, ...times, rows, faults: copy.suffered };
}

class Copy {
  readonly suffered: Fault["kind"][] = [];
  readonly #node: GrowNode;
  readonly #options: JoinOptions & { readonly donor: GrowNode; readonly third: GrowNode };
  readonly #over = new AbortController();

  constructor(node: GrowNode, options: JoinOptions & { readonly donor: GrowNode; readonly third: GrowNode }) {
    this.#node = node;
    this.#options = options;
  }

  /** Asks for it as an operator does. */
  async ask(): Promise<void> {
    const input = { type: "copy", from: this.#options.donor.name };
    const { status, json } = await this.#node.mmlite.api("POST", "/v1/jobs", input);
    if (status !== 202) throw new Error(`Cannot begin the copy: ${JSON.stringify(json)}`);
  }

  /** Waits until all rows have come; how many. Processes that have ended by themselves are started again. */
  async ended(): Promise<number> {
    try {
      return await eventually(`all rows to come to ${this.#node.name}`, () => this.#look(), {
        timeoutMs: COPY_TIMEOUT_MS,
        intervalMs: LOOK_MS,
      });
    } finally {
      this.#over.abort();
    }
  }

  async #look(): Promise<number> {
    const { plan, mesh } = this.#options;
    if (plan.byToken && this.#isAway === 0 && this.#node.mmlite.pid === undefined) {
      await mesh.awaitRunning(this.#node);
    }
    const job = await this.#job();
    if (job?.state === "succeeded") return job.result.rows;
    if (job !== undefined && job.state !== "running" && job.state !== "queued") {
      throw new Error(`it ${job.state}: ${JSON.stringify(job.error)}`);
    }
    const { json } = await this.#node.mmlite.api("GET", "/v1/status");
    throw new Error(JSON.stringify([job, json.problems]));
  }

  #isAway = 0;

  // deno-lint-ignore no-explicit-any
  async #job(): Promise<any> {
    const { json } = await this.#node.mmlite.api("GET", "/v1/jobs");
    const found = json.items.find(({ type }: { type: string }) => type === "copy");
    return found && (await this.#node.mmlite.api("GET", `/v1/jobs/${found.id}`)).json;
  }

  /** Does the fault in its moment; nothing if the copy ends before. */
  async suffer(fault: Fault): Promise<void> {
    while (fault.from === "rows" && !this.#over.signal.aborted && !await this.#hasRows()) {
      await delay(LOOK_MS);
    }
    await delay(fault.afterMs, this.#over.signal);
    if (this.#over.signal.aborted) return;
    this.suffered.push(fault.kind);
    this.#options.say(`  ${fault.kind} at ${this.#node.name}, for ${fault.forMs} ms`);
    const { donor, third, mesh } = this.#options;
    if (fault.kind === "crash_joiner") return await this.#crash(fault);
    const node = { kill_joiner: this.#node, kill_donor: donor, kill_third: third }[fault.kind];
    this.#isAway++;
    if (node.mmlite.pid !== undefined) await node.mmlite.kill();
    await delay(fault.forMs);
    await mesh.awaitRunning(node);
    this.#isAway--;
  }

  async #crash({ forMs }: Fault): Promise<void> {
    const { server } = this.#node;
    this.#isAway++;
    await server.kill();
    await delay(forMs);
    await server.start();
    await this.#options.mesh.awaitRunning(this.#node);
    this.#isAway--;
  }

  async #hasRows(): Promise<boolean> {
    try {
      const job = await this.#job();
      return job?.rows > 0;
    } catch {
      return false;
    }
  }
}
