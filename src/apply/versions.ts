/**
 * The versions of what is written in one local transaction: when each of its transactions was committed at the origin,
 * and which of them wrote or deleted each row last.
 */
import { Buffer } from "node:buffer";
import { formatTimestamp } from "../pg/timestamp.ts";
import { SeenVersions } from "../seen_versions.ts";
import type { OriginBegin } from "./causes.ts";
import { RowTimes } from "./row_times.ts";

/** Of the transaction that a change is of, as the text of parameters. */
export interface ChangeVersion {
  /** When it was committed at its origin. */
  readonly at: Uint8Array;
  readonly node: Uint8Array;
  /** Whatever any node committed before this time its origin had seen. */
  readonly seen: Uint8Array;
}

/** What {@link Versions} needs to know. */
export interface VersionsOptions {
  /** The name of the node that sends. */
  readonly origin: string;
  /** What any node committed before this time the sender has had before all that it sends, microseconds since
   * 2000-01-01 UTC. */
  readonly seenBefore: bigint;
  /** All nodes but the sender whose rows may be here, this one included. */
  readonly others: () => readonly string[];
}

/** A transaction of the sender's, as far as its versions matter. */
type Versioned = Pick<OriginBegin, "commitTimestamp" | "seen">;

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
  /** What each had seen, by the transactions' numbers, and the least of it. */
  #seenBefore: readonly bigint[] = [];
  #leastSeen = 0n;
  readonly #options: VersionsOptions;
  #transaction = -1;
  #version: ChangeVersion | undefined;

  constructor(options: VersionsOptions) {
    this.node = Buffer.from(options.origin, "utf8");
    this.#options = options;
  }

  /** Begins a local transaction of these of the sender. */
  begin(transactions: readonly Versioned[]): void {
    const timestamps = transactions.map(({ commitTimestamp }) => commitTimestamp);
    this.#timestamps = timestamps;
    this.#first = least(timestamps);
    this.#last = timestamps.reduce((a, b) => a > b ? a : b);
    this.#seenBefore = this.#whatWasSeen(transactions);
    this.#leastSeen = least(this.#seenBefore);
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
    return this.#first < this.#leastSeen ? this.#first : this.#leastSeen;
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
      const seen = Buffer.from(formatTimestamp(this.#seenBefore[transaction]), "latin1");
      this.#version = { at, node: this.node, seen };
    }
    return this.#version!;
  }

  /** What any node committed before these times the sender had before each transaction. */
  #whatWasSeen(transactions: readonly Versioned[]): bigint[] {
    const { seenBefore, others } = this.#options;
    const nodes = others();
    let known = SeenVersions.NOTHING;
    let before = seenBefore;
    return transactions.map(({ seen }) => {
      // It is the same one from one change of it to the next.
      if (seen === known) return before;
      known = seen;
      const bound = seen.lowerBound(nodes);
      before = bound === undefined || bound < seenBefore ? seenBefore : bound + 1n;
      return before;
    });
  }
}

function least(times: readonly bigint[]): bigint {
  return times.reduce((a, b) => a < b ? a : b);
}
