/**
 * Transactions that have come and are not committed here: in their order, each change a place in what came.
 */
import type { Lsn } from "../lsn.ts";
import type { Begin } from "../pgoutput/message.ts";
import type { TargetRelation } from "./change_writer.ts";

/** A transaction whose end is known; its changes are those from `from` to `to`. */
export interface HeldTransaction {
  readonly begin: Begin;
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

/** Held together, at most: changes, bytes of their messages, and transactions. */
const FULL_CHANGES = 4_096;
const FULL_BYTES = 0x10_0000;
const FULL_TRANSACTIONS = 4_096;

/** Whole transactions, and behind them the changes of one that has not ended. */
export class HeldTransactions {
  readonly transactions: HeldTransaction[] = [];
  readonly bytes: Uint8Array[] = [];
  readonly starts: number[] = [];
  readonly ends: number[] = [];
  readonly targets: Targets[] = [];
  /** Bytes of the messages. */
  byteLength = 0;

  /** End of the last whole transaction; undefined before the first. */
  get endLsn(): Lsn | undefined {
    return this.transactions.at(-1)?.endLsn;
  }

  /** Whether no more should be added. */
  get isFull(): boolean {
    return this.bytes.length >= FULL_CHANGES || this.byteLength >= FULL_BYTES ||
      this.transactions.length >= FULL_TRANSACTIONS;
  }

  /** Where the transaction that has not ended begins. */
  get wholeCount(): number {
    return this.transactions.at(-1)?.to ?? 0;
  }

  /** Adds a change, which lies from `start` to `end` in `bytes`. */
  add(targets: Targets, bytes: Uint8Array, { start, end }: { start: number; end: number }): void {
    this.bytes.push(bytes);
    this.starts.push(start);
    this.ends.push(end);
    this.targets.push(targets);
    this.byteLength += end - start;
  }

  /** Ends the transaction that the last changes are of. One before it that is empty goes: this one's end is later. */
  end(begin: Begin, endLsn: Lsn): void {
    const last = this.transactions.at(-1);
    if (last !== undefined && last.from === last.to) this.transactions.pop();
    this.transactions.push({ begin, endLsn, from: this.wholeCount, to: this.bytes.length });
  }

  /** Takes the last transaction away with its changes. */
  takeLast(): HeldTransactions {
    const last = this.transactions.pop()!;
    const rest = this.takeRest();
    rest.end(last.begin, last.endLsn);
    return rest;
  }

  /** Takes the changes of the transaction that has not ended away, into something of their own. */
  takeRest(): HeldTransactions {
    const rest = new HeldTransactions();
    const from = this.wholeCount;
    rest.bytes.push(...this.bytes.splice(from));
    rest.starts.push(...this.starts.splice(from));
    rest.ends.push(...this.ends.splice(from));
    rest.targets.push(...this.targets.splice(from));
    for (let i = 0; i < rest.starts.length; i++) rest.byteLength += rest.ends[i] - rest.starts[i];
    this.byteLength -= rest.byteLength;
    return rest;
  }
}
