/**
 * Acks on their way from the receiver to the slot: on our disk first, then the slot is confirmed.
 */
import { delay } from "../backoff.ts";
import type { Lsn } from "../lsn.ts";

/** Least time between two stored acks, milliseconds: each is a commit that waits for the disk. */
const STORE_INTERVAL_MS = 100;

interface AckKeeperOptions {
  /** Puts an ack on disk. */
  readonly store: (endLsn: Lsn) => Promise<void>;
  /** Called with each ack once it is on disk. */
  readonly confirm: (endLsn: Lsn) => void;
}

/** Stores the latest ack offered; those that arrive while one is being stored are passed over but for the last. */
export class AckKeeper {
  readonly #options: AckKeeperOptions;
  #offered: Lsn | undefined;
  #wake: () => void = () => {};

  constructor(options: AckKeeperOptions) {
    this.#options = options;
  }

  /** An ack arrived; positions of one session only grow. */
  offer(endLsn: Lsn): void {
    this.#offered = endLsn;
    this.#wake();
  }

  /** Stores and confirms until `signal` aborts; throws when an ack cannot be stored. */
  async run(signal: AbortSignal): Promise<void> {
    signal.addEventListener("abort", () => this.#wake(), { once: true });
    while (!signal.aborted) {
      const endLsn = this.#offered;
      if (endLsn === undefined) {
        await new Promise<void>((resolve) => void (this.#wake = resolve));
        continue;
      }
      this.#offered = undefined;
      await this.#options.store(endLsn);
      this.#options.confirm(endLsn);
      await delay(STORE_INTERVAL_MS, signal);
    }
  }
}
