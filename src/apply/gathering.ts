/**
 * What has come and is not handed on yet: whole transactions that are to be written alike, and behind them the changes
 * of one that has not ended.
 *
 * Decides which transactions go together and how they are written; when they go, and what becomes of them, is for the
 * applier to say.
 */
import type { Lsn } from "../lsn.ts";
import type { OriginBegin } from "./causes.ts";
import { HeldTransactions, isTruncate, type Targets } from "./held.ts";
import type { WriteMode } from "./transaction_writer.ts";
import type { Trust } from "./trust.ts";
import type { Unit } from "./units.ts";

/** A transaction is held until its Commit has come, which tells its end, up to this many bytes of messages. */
const HOLD_BYTES = 0x10_0000;
/** And up to this many changes, as many as are written at a time (`set_writer.ts`). */
const HOLD_CHANGES = 16_384;
/** As many as are under way and held at a time. */
const MAX_SPARE = 3;

/** What decides how transactions are written, and who takes them. */
export interface GatheringOptions {
  readonly trust: Trust;
  /** Whether the versions of more groups may be kept; if not, transactions are applied one by one. */
  readonly mayGroup: () => boolean;
  readonly offer: (unit: Unit) => void;
}

/** See the module's head. */
export class Gathering {
  readonly #options: GatheringOptions;
  #held = new HeldTransactions();
  readonly #spare: HeldTransactions[] = [];
  /** How the whole transactions held are to be written. */
  #mode: WriteMode = "sets";
  /** Whether sets can take all changes of the transaction that comes. */
  #bySets = true;

  constructor({ trust, mayGroup, offer }: GatheringOptions) {
    this.#options = { trust, mayGroup, offer };
  }

  /** A transaction begins. */
  begin(): void {
    this.#bySets = true;
  }

  /** Adds a change, which lies from `start` to `end` in `bytes`; false if its transaction is too large to hold now. */
  add(targets: Targets, bytes: Uint8Array, { start, end }: { start: number; end: number }): boolean {
    const held = this.#held;
    held.add(targets, bytes, start, end);
    if (isTruncate(targets) || !targets.map.bySets) this.#bySets = false;
    return held.openCount < HOLD_CHANGES && held.openBytes < HOLD_BYTES;
  }

  /**
   * Ends the transaction. It goes with those before it if all are to be written alike; otherwise these are handed on.
   * Returns whether no more should be added.
   */
  end(begin: OriginBegin, endLsn: Lsn): boolean {
    const held = this.#held;
    const isEmpty = held.openCount === 0;
    held.end(begin, endLsn);
    const mode = isEmpty ? this.#mode : this.#nextMode(begin);
    if (mode !== this.#mode && held.transactions.length > 1) {
      const last = this.#takeSpare();
      held.moveLast(last);
      this.#options.offer({ held, mode: this.#mode });
      this.#held = last;
    }
    this.#mode = mode;
    return this.#held.isFull;
  }

  /** Hands on the whole transactions, and keeps the beginning of another. */
  offerWhole(): void {
    const held = this.#held;
    if (held.transactions.length === 0) return;
    this.#held = this.#takeSpare();
    held.moveRest(this.#held);
    this.#options.offer({ held, mode: this.#mode });
  }

  /** Gives away the changes of the transaction that has not ended, after the whole ones were handed on. */
  takeOpen(): HeldTransactions {
    const held = this.#held;
    this.#held = this.#takeSpare();
    return held;
  }

  /** Takes back what was handed on and is committed, to use it again. */
  recycle(held: HeldTransactions): void {
    held.clear();
    if (this.#spare.length < MAX_SPARE) this.#spare.push(held);
  }

  #nextMode({ commitLsn }: OriginBegin): WriteMode {
    const { trust, mayGroup } = this.#options;
    return this.#bySets && mayGroup() ? trust.nextMode(commitLsn) : "rows";
  }

  #takeSpare(): HeldTransactions {
    return this.#spare.pop() ?? new HeldTransactions();
  }
}
