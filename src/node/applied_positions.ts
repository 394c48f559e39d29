/**
 * How far each other node is applied here, visibly, and who waits for that to move.
 *
 * Applying tells of every commit, so what is done for each is little however many wait: those of a node stand in the
 * order of the positions that they wait for.
 */
import type { Lsn } from "../lsn.ts";

/** Where a node stands here. */
export interface Standing {
  /** Which life of its database. */
  readonly life: string;
  /** Everything of it that ends up to here is visible. */
  readonly lsn: Lsn;
}

interface Waiter {
  readonly lsn: Lsn;
  readonly wake: () => void;
}

/** See the module's head. */
export class AppliedPositions {
  readonly #standings = new Map<string, Standing>();
  /** By the node, those that wait for the lowest position first. */
  readonly #waiters = new Map<string, Waiter[]>();

  /** Where a node stands, if that is known. */
  of(node: string): Standing | undefined {
    return this.#standings.get(node);
  }

  /** How many wait. */
  get waiting(): number {
    return [...this.#waiters.values()].reduce((sum, { length }) => sum + length, 0);
  }

  /** A node stands where the database says. */
  set(node: string, standing: Standing): void {
    this.#standings.set(node, standing);
    this.#wakeAll(node);
  }

  /** Everything of a node that ends up to here is visible. */
  reached(node: string, lsn: Lsn): void {
    const standing = this.#standings.get(node);
    if (standing === undefined) return;
    if (lsn > standing.lsn) this.#standings.set(node, { ...standing, lsn });
    const waiters = this.#waiters.get(node);
    while (waiters !== undefined && waiters.length > 0 && waiters[0].lsn <= lsn) waiters.shift()!.wake();
  }

  /** A node was removed. */
  forget(node: string): void {
    this.#standings.delete(node);
    this.#wakeAll(node);
  }

  /** Nothing is known any more: the database may have lost what it had. */
  forgetAll(): void {
    this.#standings.clear();
  }

  /** Resolves once a node has reached a position, once that has to be looked at again, or at the signal. */
  async changed(node: string, lsn: Lsn, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const wake = () => resolve();
    const waiter = { lsn, wake };
    const waiters = this.#waiters.get(node) ?? [];
    this.#waiters.set(node, waiters);
    waiters.splice(placeOf(lsn, waiters), 0, waiter);
    signal.addEventListener("abort", wake, { once: true });
    await promise;
    signal.removeEventListener("abort", wake);
    // Who was woken by the signal stands there still.
    const at = waiters.indexOf(waiter);
    if (at >= 0) waiters.splice(at, 1);
  }

  #wakeAll(node: string): void {
    const waiters = this.#waiters.get(node);
    this.#waiters.delete(node);
    waiters?.forEach(({ wake }) => wake());
  }
}

/** Behind those that wait for the same position or a lower one. */
function placeOf(lsn: Lsn, waiters: readonly Waiter[]): number {
  let [low, high] = [0, waiters.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (waiters[middle].lsn <= lsn) low = middle + 1;
    else high = middle;
  }
  return low;
}
