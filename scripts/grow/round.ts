/**
 * One round from its plan to its verdict: from two nodes to five and back, under writes.
 */
import { delay } from "../../src/backoff.ts";
import { joinNode, type JoinOptions, type JoinOutcome } from "./joining.ts";
import type { GrowMesh, GrowNode } from "./mesh.ts";
import type { GrowPlan } from "./plan.ts";
import { compareTables, type Difference, fillSql, readLog, readNotes } from "./tables.ts";
import { settle, Writers } from "./writers.ts";

/** What came of a round. */
export interface RoundOutcome {
  readonly plan: GrowPlan;
  readonly joins: readonly JoinOutcome[];
  readonly transactions: number;
  readonly longest: Writers["longest"];
  readonly versionsCompared: number;
  /** Rows, versions and transactions that are not as they ought to be, a sentence each. */
  readonly rows: readonly string[];
  readonly versions: readonly string[];
  readonly entries: readonly string[];
  readonly ms: number;
}

/** Everybody writes for this long between two steps, milliseconds. */
const CALM_MS = 800;
/** Rows that were older than this when a copy ended may have another version: clocks may be so far apart. */
const OLD_MS = 60_000;
/** Versions of rows that were applied together are kept exactly for at least this long, milliseconds. */
const EXACT_MS = 40_000;

/** Rows that differ are looked at again after this time, milliseconds: to know whether they stay so. */
const LATER_MS = 10_000;
/** Rows of which is told what nodes have noted, at most. */
const MAX_EXPLAINED = 3;

/** Runs it; throws where it does not come to an end. */
export async function runRound(
  plan: GrowPlan,
  mesh: GrowMesh,
  say: (s: string) => void,
): Promise<RoundOutcome> {
  return await new Round(plan, mesh, say).run();
}

class Round {
  readonly #plan: GrowPlan;
  readonly #mesh: GrowMesh;
  readonly #options: JoinOptions;
  readonly #writers: Writers;
  readonly #joins: JoinOutcome[] = [];
  readonly #found = { rows: [] as string[], versions: [] as string[], entries: [] as string[] };
  #versionsCompared = 0;
  #copiedAtMs = 0;

  constructor(plan: GrowPlan, mesh: GrowMesh, say: (sentence: string) => void) {
    this.#plan = plan;
    this.#mesh = mesh;
    this.#writers = new Writers(plan.seed);
    this.#options = { plan, mesh, writers: this.#writers, say };
  }

  async run(): Promise<RoundOutcome> {
    const began = performance.now();
    try {
      await this.#run();
    } finally {
      await this.#writers.stopAll().catch(() => {});
    }
    const { longest, committed } = this.#writers;
    return {
      ...{ plan: this.#plan, joins: this.#joins, longest, transactions: committed.size },
      ...{ ...this.#found, versionsCompared: this.#versionsCompared, ms: performance.now() - began },
    };
  }

  async #run(): Promise<void> {
    const { live } = this.#mesh;
    await this.#mesh.start();
    await live[0].server.sql(live[0].database, fillSql());
    await settle(live, this.#writers);
    live.forEach((node) => this.#writers.start(node));
    for (const planned of this.#plan.joins) {
      await this.#calm();
      this.#writers.during = "a join";
      this.#joins.push(await joinNode(planned, this.#options));
      this.#copiedAtMs = Date.now();
      this.#writers.start(live.at(-1)!);
    }
    await this.#calm();
    await this.#check();
    const nodes = [...live];
    live.forEach((node) => this.#writers.start(node));
    for (const place of this.#plan.leaving) {
      await this.#calm();
      await this.#removeNode(nodes[place]);
    }
    await this.#calm();
    await this.#check();
  }

  async #calm(): Promise<void> {
    this.#writers.during = "nothing else";
    await delay(CALM_MS);
  }

  async #removeNode(node: GrowNode): Promise<void> {
    this.#writers.during = "a removal";
    await this.#writers.stop(node);
    await settle(this.#mesh.live, this.#writers, [node]);
    await this.#mesh.remove(node);
  }

  /** Stops the writers and looks whether all nodes are alike. */
  async #check(): Promise<void> {
    const { live } = this.#mesh;
    const size = `with ${live.length} nodes, `;
    await this.#writers.stopAll();
    await settle(live, this.#writers);
    const after = Math.max(this.#copiedAtMs - OLD_MS, Date.now() - EXACT_MS);
    const { rows, versions, versionsCompared } = await compareTables(live, new Date(after).toISOString());
    this.#found.rows.push(...rows.map(({ text }) => size + text));
    this.#found.versions.push(...versions.map(({ text }) => size + text));
    if (rows.length > 0) {
      this.#found.rows.push(...await this.#lookLonger(rows, new Date(after).toISOString()));
    }
    this.#versionsCompared += versionsCompared;
    this.#found.entries.push(...(await this.#checkEntries(live)).map((one) => size + one));
  }

  /** What nodes know of rows that differ, and whether they stay so. */
  async #lookLonger(rows: readonly Difference[], after: string): Promise<string[]> {
    const { live } = this.#mesh;
    const found: string[] = [];
    for (const row of rows.slice(0, MAX_EXPLAINED)) {
      for (const node of live) {
        found.push(...(await readNotes(node, row)).map((note) => `of ${row.text.split(":", 1)[0]} ${note}`));
      }
    }
    await delay(LATER_MS);
    const { rows: later } = await compareTables(live, after);
    const what = later.length > 0 ? later.map(({ text }) => text).join("; ") : "all are equal";
    return [...found, `${LATER_MS / 1000} s later, ${what}`];
  }

  /** Each transaction has left one row without key at each node, or none. */
  async #checkEntries(nodes: readonly GrowNode[]): Promise<string[]> {
    const { committed, undone } = this.#writers;
    const found: string[] = [];
    for (const node of nodes) {
      const log = await readLog(node);
      for (const [id, times] of log) {
        if (times > 1) found.push(`transaction ${id} is ${times} times at ${node.name}`);
        if (undone.has(id)) found.push(`transaction ${id}, which was undone, is at ${node.name}`);
      }
      for (const id of committed) {
        if (!log.has(id)) found.push(`transaction ${id} is missing at ${node.name}`);
      }
    }
    return found;
  }
}
