/**
 * Transactions that have come and are not committed here: in their order, each change a place in what came.
 */
import type { Lsn } from "../lsn.ts";
import type { OriginBegin } from "./causes.ts";
import { grown } from "./grown.ts";
import type { TargetRelation } from "./target_relation.ts";

/** A transaction whose end is known; its changes are those from `from` to `to`. */
export interface HeldTransaction {
  readonly begin: OriginBegin;
  readonly endLsn: Lsn;
  readonly from: number;
  readonly to: number;
}

/** What a change is applied to: one relation, or those that are truncated together. */
export type Targets = TargetRelation | readonly TargetRelation[];

/** Whether they are truncated. */
export function isTruncate(targets: Targets): targets is readonly TargetRelation[] {
  return Array.isArray(targets);
}

/** Held together, at most: changes, as many as are written at a time (`set_writer.ts`), bytes of their messages, and
 * transactions. */
const FULL_CHANGES = 16_384;
const FULL_BYTES = 0x10_0000;
const FULL_TRANSACTIONS = 4_096;

const NOTHING = new Uint8Array();
/** Room for so many changes at the start. */
const MIN_CHANGES = 64;

/**
 * Whole transactions, and behind them the changes of one that has not ended. Used again once it is cleared: arrays
 * that grow anew for every few thousand changes would be most of what a collector has to do.
 */
export class HeldTransactions {
  readonly transactions: HeldTransaction[] = [];
  /** Changes; the arrays may be longer. */
  count = 0;
  readonly bytes: Uint8Array[] = [];
  starts = new Int32Array(MIN_CHANGES);
  ends = new Int32Array(MIN_CHANGES);
  readonly targets: Targets[] = [];
  /** Bytes of the messages. */
  byteLength = 0;
  /** Those of whole transactions. */
  #wholeBytes = 0;

  /** End of the last whole transaction; undefined before the first. */
  get endLsn(): Lsn | undefined {
    return this.transactions.at(-1)?.endLsn;
  }

  /** When the latest of the transactions committed, microseconds since 2000-01-01 UTC; there must be one. */
  get latestTimestamp(): bigint {
    let latest = this.transactions[0].begin.commitTimestamp;
    for (const { begin } of this.transactions) {
      if (begin.commitTimestamp > latest) latest = begin.commitTimestamp;
    }
    return latest;
  }

  /** Whether no more should be added. */
  get isFull(): boolean {
    return this.count >= FULL_CHANGES || this.byteLength >= FULL_BYTES ||
      this.transactions.length >= FULL_TRANSACTIONS;
  }

  /** Where the transaction that has not ended begins. */
  get wholeCount(): number {
    return this.transactions.at(-1)?.to ?? 0;
  }

  /** Changes of the transaction that has not ended. */
  get openCount(): number {
    return this.count - this.wholeCount;
  }

  /** Bytes of their messages. */
  get openBytes(): number {
    return this.byteLength - this.#wholeBytes;
  }

  /** Adds a change, which lies from `start` to `end` in `bytes`. */
  add(targets: Targets, bytes: Uint8Array, start: number, end: number): void {
    const at = this.count++;
    if (at === this.starts.length) this.#grow();
    this.bytes[at] = bytes;
    this.starts[at] = start;
    this.ends[at] = end;
    this.targets[at] = targets;
    this.byteLength += end - start;
  }

  /** Ends the transaction that the last changes are of. One before it that is empty goes: this one's end is later. */
  end(begin: OriginBegin, endLsn: Lsn): void {
    const last = this.transactions.at(-1);
    if (last !== undefined && last.from === last.to) this.transactions.pop();
    this.transactions.push({ begin, endLsn, from: this.wholeCount, to: this.count });
    this.#wholeBytes = this.byteLength;
  }

  /** Moves the last transaction and its changes to `other`, which is empty. */
  moveLast(other: HeldTransactions): void {
    const last = this.transactions.pop()!;
    this.moveRest(other);
    other.end(last.begin, last.endLsn);
  }

  /** Moves the changes of the transaction that has not ended to `other`, which is empty. */
  moveRest(other: HeldTransactions): void {
    const from = this.wholeCount;
    for (let i = from; i < this.count; i++) {
      other.add(this.targets[i], this.bytes[i], this.starts[i], this.ends[i]);
    }
    this.count = from;
    this.byteLength -= other.byteLength;
    this.#wholeBytes = this.byteLength;
  }

  /** Forgets everything; what it held in memory may go. */
  clear(): void {
    this.transactions.length = 0;
    this.bytes.fill(NOTHING);
    this.count = 0;
    this.byteLength = 0;
    this.#wholeBytes = 0;
  }

  #grow(): void {
    this.starts = grown(this.starts);
    this.ends = grown(this.ends);
  }
}
