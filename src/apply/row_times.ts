/**
 * Times of rows as `mmlite.apply_group` and `mmlite.tombstone` keep them: which of the transactions that are written
 * together wrote, or deleted, each of them last.
 */
import { Buffer } from "node:buffer";
import { grown } from "./grown.ts";

/** Hash and timestamp. */
const ENTRY_BYTES = 16;
const MIN_ENTRIES = 64;
/** Dimensions, whether there are NULLs, the elements' type, and one dimension's length and lower bound. */
const ARRAY_HEADER_BYTES = 20;
/** Length and value. */
const ELEMENT_BYTES = 12;
const INT8_OID = 20;

/** Rows by their hash, each with the number of the transaction that came to it last. */
export class RowTimes {
  #highs = new Int32Array(MIN_ENTRIES);
  #lows = new Int32Array(MIN_ENTRIES);
  #transactions = new Int32Array(MIN_ENTRIES);
  #count = 0;

  /** How many were added. */
  get count(): number {
    return this.#count;
  }

  /** The transaction with that number came to the row with that hash, which is in two halves. */
  add(high: number, low: number, transaction: number): void {
    if (this.#count === this.#highs.length) this.#grow();
    const at = this.#count++;
    this.#highs[at] = high;
    this.#lows[at] = low;
    this.#transactions[at] = transaction;
  }

  /** The hashes as `bigint[]` in binary form (`array_recv` in PostgreSQL's src/backend/utils/adt/arrayfuncs.c). */
  hashes(): Uint8Array {
    const rows = this.#count;
    const bytes = Buffer.allocUnsafe(ARRAY_HEADER_BYTES + ELEMENT_BYTES * rows);
    for (const [at, value] of [1, 0, INT8_OID, rows, 1].entries()) bytes.writeInt32BE(value, at * 4);
    for (let row = 0, at = ARRAY_HEADER_BYTES; row < rows; row++, at += ELEMENT_BYTES) {
      bytes.writeInt32BE(8, at);
      bytes.writeInt32BE(this.#highs[row], at + 4);
      bytes.writeInt32BE(this.#lows[row], at + 8);
    }
    return bytes;
  }

  /** Forgets all of them. */
  clear(): void {
    this.#count = 0;
  }

  /**
   * All as `mmlite.find_entry` reads them: in the order of their hashes without sign, one per row, each with the time
   * of its last transaction. `timestamps` are those of the transactions by their number, microseconds since 2000-01-01
   * UTC.
   */
  bytes(timestamps: readonly bigint[]): Uint8Array {
    const order = this.#order();
    const bytes = Buffer.allocUnsafe(order.length * ENTRY_BYTES);
    let length = 0;
    for (let i = 0; i < order.length; i++) {
      const row = order[i];
      const next = order[i + 1];
      const isLast = next === undefined || this.#highs[next] !== this.#highs[row] ||
        this.#lows[next] !== this.#lows[row];
      if (!isLast) continue;
      bytes.writeInt32BE(this.#highs[row], length);
      bytes.writeInt32BE(this.#lows[row], length + 4);
      bytes.writeBigInt64BE(timestamps[this.#transactions[row]], length + 8);
      length += ENTRY_BYTES;
    }
    return bytes.subarray(0, length);
  }

  #order(): Uint32Array {
    const [highs, lows] = [this.#highs, this.#lows];
    const order = new Uint32Array(this.#count);
    for (let i = 0; i < order.length; i++) order[i] = i;
    return order.sort((a, b) =>
      (highs[a] >>> 0) - (highs[b] >>> 0) || (lows[a] >>> 0) - (lows[b] >>> 0) || a - b
    );
  }

  #grow(): void {
    this.#highs = grown(this.#highs);
    this.#lows = grown(this.#lows);
    this.#transactions = grown(this.#transactions);
  }
}
