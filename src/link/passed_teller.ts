/**
 * Tells the receiver how far this server's WAL has been read where the rest of it was for nobody, a while apart.
 */
import { delay } from "../backoff.ts";
import type { Lsn } from "../lsn.ts";

/** Least time between two positions that are told, milliseconds: on a node that only receives they move all the time. */
export const TELL_INTERVAL_MS = 50;

/** Tells the latest position offered, at once where none was told lately. */
export class PassedTeller {
  readonly #write: (walLsn: Lsn) => Promise<void>;
  #offered: Lsn | undefined;
  #wake: () => void = () => {};

  constructor(write: (walLsn: Lsn) => Promise<void>) {
    this.#write = write;
  }

  /** Everything that ends up to here has been pushed; undefined where the last transaction pushed says so by itself. */
  offer(walLsn: Lsn | undefined): void {
    this.#offered = walLsn;
    if (walLsn !== undefined) this.#wake();
  }

  /** Tells until `signal` aborts; throws when that cannot be written. */
  async run(signal: AbortSignal): Promise<void> {
    signal.addEventListener("abort", () => this.#wake(), { once: true });
    while (!signal.aborted) {
      const walLsn = this.#offered;
      if (walLsn === undefined) {
        await new Promise<void>((resolve) => void (this.#wake = resolve));
        continue;
      }
      this.#offered = undefined;
      await this.#write(walLsn);
      await delay(TELL_INTERVAL_MS, signal);
    }
  }
}
