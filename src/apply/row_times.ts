/**
 * Times of rows as `mmlite.apply_group` and `mmlite.tombstone` keep them: which of the transactions that are written
 * together wrote, or deleted, each of them last.
 */
import { Buffer } from "node:buffer";
import { viewOf } from "../byte_words.ts";
import { MmliteError } from "../errors.ts";
import { grown } from "./grown.ts";

/** Hash and timestamp. */
const ENTRY_BYTES = 16;
const MIN_ENTRIES = 64;
/** Dimensions, whether there are NULLs, the elements' type, and one dimension's length and lower bound. */
const ARRAY_HEADER_BYTES = 20;
/** Length and value. */
const ELEMENT_BYTES = 12;
const INT8_OID = 20;
/** Rows that there is room for: half a hash and the number of a row are a whole number that a double holds exactly. */
const MAX_ROWS = 2 ** 21;

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
    const view = viewOf(bytes);
    for (const [at, value] of [1, 0, INT8_OID, rows, 1].entries()) view.setInt32(at * 4, value);
    for (let row = 0, at = ARRAY_HEADER_BYTES; row < rows; row++, at += ELEMENT_BYTES) {
      view.setInt32(at, 8);
      view.setInt32(at + 4, this.#highs[row]);
      view.setInt32(at + 8, this.#lows[row]);
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
    const [order, highs, lows] = [this.#order(), this.#highs, this.#lows];
    const bytes = Buffer.allocUnsafe(order.length * ENTRY_BYTES);
    const view = viewOf(bytes);
    const times = new Int32Array(timestamps.length * 2);
    timestamps.forEach((time, i) => {
      times[2 * i] = Number(time >> 32n);
      times[2 * i + 1] = Number(time & 0xffff_ffffn);
    });
    let length = 0;
    for (let i = 0; i < order.length; i++) {
      const row = order[i];
      const next = order[i + 1];
      if (next !== undefined && highs[next] === highs[row] && lows[next] === lows[row]) continue;
      const transaction = this.#transactions[row];
      view.setInt32(length, highs[row]);
      view.setInt32(length + 4, lows[row]);
      view.setInt32(length + 8, times[2 * transaction]);
      view.setInt32(length + 12, times[2 * transaction + 1]);
      length += ENTRY_BYTES;
    }
    return bytes.subarray(0, length);
  }

  /**
   * The rows by their hashes, and those of one hash as they were added. A number holds the upper half of a hash and,
   * below it, the row; sorted without a function, which takes a fifth of the time, only rows of one upper half are left.
   */
  #order(): Uint32Array {
    const [highs, lows, count] = [this.#highs, this.#lows, this.#count];
    const keys = new Float64Array(count);
    for (let row = 0; row < count; row++) keys[row] = (highs[row] >>> 0) * MAX_ROWS + row;
    keys.sort();
    const order = new Uint32Array(count);
    for (let i = 0; i < count; i++) order[i] = keys[i] - Math.floor(keys[i] / MAX_ROWS) * MAX_ROWS;
    for (let from = 0, to = 1; from < count; from = to++) {
      while (to < count && highs[order[to]] === highs[order[from]]) to++;
      if (to - from > 1) order.subarray(from, to).sort((a, b) => (lows[a] >>> 0) - (lows[b] >>> 0) || a - b);
    }
    return order;
  }

  #grow(): void {
    // Whoever adds writes down what there is long before: for the arithmetic of the order alone.
    if (this.#count === MAX_ROWS) throw new MmliteError("internal", "Cannot note more rows of a transaction");
    this.#highs = grown(this.#highs);
    this.#lows = grown(this.#lows);
    this.#transactions = grown(this.#transactions);
  }
}
