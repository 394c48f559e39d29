/**
 * The versions of what is written in one local transaction: when each of its transactions was committed at the origin,
 * and which of them wrote or deleted each row last.
 */
import { Buffer } from "node:buffer";
import { formatTimestamp } from "../pg/timestamp.ts";
import { RowTimes } from "./row_times.ts";

/** Of the transaction that a change is of, as the text of parameters. */
export interface ChangeVersion {
  /** When it was committed at its origin. */
  readonly at: Uint8Array;
  readonly node: Uint8Array;
  /** Whatever any node committed before this time its origin had seen. */
  readonly seen: Uint8Array;
}

/** Used again for one local transaction after another. */
export class Versions {
  /** Rows that were written, where the commit record cannot tell their times apart. */
  readonly written = new RowTimes();
  readonly deleted = new RowTimes();
  /** Rows that may not have been here before. */
  readonly put = new RowTimes();
  /** The name of the node that sends. */
  readonly node: Uint8Array;
  #timestamps: readonly bigint[] = [];
  #first = 0n;
  #last = 0n;
  readonly #seenBefore: bigint;
  readonly #seen: Uint8Array;
  #transaction = -1;
  #version: ChangeVersion | undefined;

  /**
   * `origin` is the name of the node that sends. `seenBefore`, microseconds since 2000-01-01 UTC: what any node
   * committed before this time the sender has had before all that it sends.
   */
  constructor(origin: string, seenBefore: bigint) {
    this.node = Buffer.from(origin, "utf8");
    this.#seenBefore = seenBefore;
    this.#seen = Buffer.from(formatTimestamp(seenBefore), "latin1");
  }

  /** Begins a local transaction of those that were committed at these times, microseconds since 2000-01-01 UTC. */
  begin(timestamps: readonly bigint[]): void {
    this.#timestamps = timestamps;
    this.#first = timestamps.reduce((a, b) => a < b ? a : b);
    this.#last = timestamps.reduce((a, b) => a > b ? a : b);
    this.#transaction = -1;
    this.clear();
  }

  /** Forgets the rows. */
  clear(): void {
    this.written.clear();
    this.deleted.clear();
    this.put.clear();
  }

  /** The earliest time. */
  get first(): bigint {
    return this.#first;
  }

  /** The latest time, at which they are committed here. */
  get last(): bigint {
    return this.#last;
  }

  /** A row that any node wrote before this time gives way, and that is no conflict. */
  get bound(): bigint {
    return this.#first < this.#seenBefore ? this.#first : this.#seenBefore;
  }

  /** The times by the transactions' numbers. */
  get timestamps(): readonly bigint[] {
    return this.#timestamps;
  }

  /** The version of the transaction with that number. */
  of(transaction: number): ChangeVersion {
    if (this.#transaction !== transaction) {
      this.#transaction = transaction;
      const at = Buffer.from(formatTimestamp(this.#timestamps[transaction]), "latin1");
      this.#version = { at, node: this.node, seen: this.#seen };
    }
    return this.#version!;
  }
}
