/**
 * Which applied transactions are on disk. With `synchronous_commit=off` a COMMIT returns before its WAL is
 * flushed; it is durable once the server's flush position has passed where the insert position stood after it.
 */
import { type Lsn, maxLsn, ZERO_LSN } from "../lsn.ts";

/** Most steps remembered; further ones are merged into the last, which only makes acks coarser. */
const MAX_STEPS = 256;

/** Everything up to `endLsn` is durable once the local WAL is flushed to `insertLsn`. */
interface Step {
  endLsn: Lsn;
  insertLsn: Lsn;
}

/** Follows the server's WAL positions and tells how far the sender may be acked. */
export class Durability {
  readonly #onDurable: (endLsn: Lsn) => void;
  readonly #steps: Step[] = [];
  #noted: Lsn = ZERO_LSN;

  /** `onDurable` gets ends of transactions, each later than the one before. */
  constructor(onDurable: (endLsn: Lsn) => void) {
    this.#onDurable = onDurable;
  }

  /** Whether something applied may not be on disk yet. */
  get isWaiting(): boolean {
    return this.#steps.length > 0;
  }

  /** Everything up to `endLsn` (the sender's WAL) was committed when the local positions were these. */
  note(endLsn: Lsn, local: { insertLsn: Lsn; flushLsn: Lsn }): void {
    if (endLsn > this.#noted) this.#remember(endLsn, local.insertLsn);
    this.#flushedTo(local.flushLsn);
  }

  #remember(endLsn: Lsn, insertLsn: Lsn): void {
    this.#noted = endLsn;
    const last = this.#steps.at(-1);
    if (last !== undefined && this.#steps.length >= MAX_STEPS) {
      last.endLsn = endLsn;
      last.insertLsn = maxLsn(last.insertLsn, insertLsn);
    } else {
      this.#steps.push({ endLsn, insertLsn });
    }
  }

  #flushedTo(flushLsn: Lsn): void {
    let durable = 0;
    while (durable < this.#steps.length && this.#steps[durable].insertLsn <= flushLsn) durable++;
    if (durable === 0) return;
    const { endLsn } = this.#steps[durable - 1];
    this.#steps.splice(0, durable);
    this.#onDurable(endLsn);
  }
}
