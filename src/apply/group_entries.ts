/**
 * The exact versions of the rows of a group: which of its transactions wrote each, as `mmlite.apply_group` keeps it.
 */
import { Buffer } from "node:buffer";

/** Hash and timestamp. */
const ENTRY_BYTES = 16;
const MIN_ENTRIES = 64;

/** Entries of one group, in the order of writing: of several for one row the last holds. */
export class GroupEntries {
  /** Of each transaction, its commit timestamp. */
  readonly #timestamps: readonly bigint[];
  readonly #words = new DataView(new ArrayBuffer(8));
  #bytes = Buffer.allocUnsafe(MIN_ENTRIES * ENTRY_BYTES);
  #length = 0;

  /** `timestamps` of the transactions by their number, microseconds since 2000-01-01 UTC. */
  constructor(timestamps: readonly bigint[]) {
    this.#timestamps = timestamps;
  }

  /** The row with that hash, in two halves, was written by that transaction. */
  add(high: number, low: number, transaction: number): void {
    const timestamp = this.#timestamps[transaction];
    const at = this.#length;
    if (at === this.#bytes.length) this.#grow();
    this.#words.setBigInt64(0, timestamp);
    const bytes = this.#bytes;
    bytes.writeInt32BE(high, at);
    bytes.writeInt32BE(low, at + 4);
    bytes.writeInt32BE(this.#words.getInt32(0), at + 8);
    bytes.writeInt32BE(this.#words.getInt32(4), at + 12);
    this.#length = at + ENTRY_BYTES;
  }

  /** Whether nothing was written whose version could be asked for. */
  get isEmpty(): boolean {
    return this.#length === 0;
  }

  /** All entries. */
  bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  #grow(): void {
    const bytes = Buffer.allocUnsafe(this.#bytes.length * 2);
    this.#bytes.copy(bytes);
    this.#bytes = bytes;
  }
}
