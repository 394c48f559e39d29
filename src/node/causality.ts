/**
 * Holding transactions back until what caused them is applied here, where that is wanted (`consistency: causal`).
 *
 * Two transactions never wait for each other, nor do any more in a circle. A transaction waits for those before it of
 * its own node, which were read there earlier, and for its causes, which had been read at their nodes earlier than it
 * was at its own (`applied_history.ts`): there is a first one. For the same reason what waits must not be committed
 * together with what does not (`Applier.seen`). Only what an upper bound adds can break this: after a restart of the
 * sender, or behind a backlog with more steps than are kept. Then, and while a node is away, the time runs out once,
 * and nothing waits for that node until it has caught up with what was waited for.
 */
import type { Causes } from "../apply/causes.ts";
import { delay } from "../backoff.ts";
import type { Consistency } from "../config.ts";
import { type Lsn, maxLsn, ZERO_LSN } from "../lsn.ts";
import type { SeenNode, SeenVersions } from "../seen_versions.ts";

/** How long causes are waited for, milliseconds: enough for a reconnection, too short for people to give up. */
export const CAUSE_WAIT_MS = 5_000;

interface CausalityOptions {
  readonly consistency: Consistency;
  /** Whether transactions of a node come here: what nobody sends is waited for by nobody. */
  readonly isSender: (node: string) => boolean;
  /** Transactions are let through without those of a node that caused them. */
  readonly timedOut: (node: string) => void;
  /** {@link CAUSE_WAIT_MS} unless given. */
  readonly waitMs?: number;
}

/** See the module's head. */
export class Causality implements Causes {
  readonly #options: CausalityOptions;
  /** How far each node is applied here. */
  readonly #applied = new Map<string, Lsn>();
  /** Nodes that are not waited for until they are applied up to here. */
  readonly #givenUp = new Map<string, Lsn>();
  #changed: PromiseWithResolvers<void> | undefined;

  constructor(options: CausalityOptions) {
    this.#options = options;
  }

  /** Everything of a node up to an end is applied here. */
  committed(node: string, endLsn: Lsn): void {
    this.#applied.set(node, endLsn);
    if (this.#options.consistency === "eventual") return;
    const givenUp = this.#givenUp.get(node);
    if (givenUp !== undefined && givenUp <= endLsn) this.#givenUp.delete(node);
    this.#change();
  }

  /** A node was removed. */
  forget(node: string): void {
    this.#applied.delete(node);
    this.#givenUp.delete(node);
    this.#change();
  }

  areMet(seen: SeenVersions): boolean {
    return this.#options.consistency === "eventual" || this.#missing(seen).length === 0;
  }

  async wait(seen: SeenVersions, signal: AbortSignal): Promise<void> {
    const { waitMs = CAUSE_WAIT_MS, timedOut } = this.#options;
    const deadline = performance.now() + waitMs;
    for (;;) {
      const missing = this.#missing(seen);
      if (missing.length === 0 || signal.aborted) return;
      const left = deadline - performance.now();
      if (left > 0) {
        await this.#untilChanged(left, signal);
        continue;
      }
      for (const { node, position } of missing) {
        this.#givenUp.set(node, maxLsn(position, this.#givenUp.get(node) ?? ZERO_LSN));
        timedOut(node);
      }
      return this.#change();
    }
  }

  #missing(seen: SeenVersions): SeenNode[] {
    const missing: SeenNode[] = [];
    for (const cause of seen.causes()) {
      const { node, position } = cause;
      if (position <= (this.#applied.get(node) ?? ZERO_LSN) || this.#givenUp.has(node)) continue;
      if (this.#options.isSender(node)) missing.push(cause);
    }
    return missing;
  }

  #change(): void {
    this.#changed?.resolve();
    this.#changed = undefined;
  }

  async #untilChanged(ms: number, signal: AbortSignal): Promise<void> {
    this.#changed ??= Promise.withResolvers();
    const enough = new AbortController();
    await Promise.race([this.#changed.promise, delay(ms, AbortSignal.any([signal, enough.signal]))]);
    enough.abort();
  }
}
