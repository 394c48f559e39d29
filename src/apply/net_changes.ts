/**
 * What changes of one relation come to, row by row: several changes of a row are one, that of the last.
 *
 * Rows stay where they came, and are remembered by their places. Only what surely means the same is taken
 * together: an insert or update followed by updates, an update followed by a delete. Anything else is refused, and
 * what is there has to be written first.
 */
import type { TupleScan } from "../pgoutput/tuple_scan.ts";
import { grown } from "./grown.ts";
import type { KeyHash } from "./key_hash.ts";

/** Kinds of net changes. */
export const NET_INSERT = 0;
/** A row that is there gets other values. */
export const NET_UPDATE = 1;
/** A row that is there goes. */
export const NET_DELETE = 2;
/** One of the three. */
export type NetKind = typeof NET_INSERT | typeof NET_UPDATE | typeof NET_DELETE;

/** Rows that there is room for at the start: most sets are small, and there may be as many as tables. */
const MIN_ROWS = 16;
const NOTHING = new Uint8Array();

/** A row change as a place in what came. */
export interface PlacedChange {
  kind: NetKind;
  bytes: Uint8Array;
  /** Where its message begins and ends. */
  start: number;
  end: number;
  /** Where its tuple begins: the new one, of a delete the old one. */
  tuple: number;
  /** Whether the new tuple lacks values. */
  hasUnchanged: boolean;
  /** Which transaction it is of, by its number in what is being written. */
  transaction: number;
}

/** Net changes of one relation, in the order of the rows' first ones. Used again once it is cleared. */
export class NetChanges {
  /** Rows; the arrays may be longer. */
  count = 0;
  readonly kinds: NetKind[] = [];
  readonly bytes: Uint8Array[] = [];
  starts = new Int32Array(MIN_ROWS);
  ends = new Int32Array(MIN_ROWS);
  tuples = new Int32Array(MIN_ROWS);
  readonly unchanged: boolean[] = [];
  transactions = new Int32Array(MIN_ROWS);
  highs = new Int32Array(MIN_ROWS);
  lows = new Int32Array(MIN_ROWS);
  /** Whether the values of all rows came in binary form, not as text. */
  isBinary = false;
  /** Columns (their index) of the key; empty for rows that have none. */
  #key: readonly number[] = [];
  readonly #scan: TupleScan;
  /** One more than a row's number, by its hash; 0 for none. */
  #slots = new Int32Array(MIN_ROWS * 4);

  /** `scan` is used to look at rows again; it may serve others too. */
  constructor(scan: TupleScan) {
    this.#scan = scan;
  }

  /** Begins anew, empty or cleared: rows that come have a key of these columns, and their values one form. */
  begin(key: readonly number[], { isBinary }: { isBinary: boolean }): void {
    this.#key = key;
    this.isBinary = isBinary;
  }

  /** Forgets everything; what it held in memory may go. */
  clear(): void {
    if (this.#key.length > 0) this.#slots.fill(0);
    this.bytes.fill(NOTHING, 0, this.count);
    this.count = 0;
  }

  /** Adds a row without key. */
  append(change: PlacedChange): void {
    if (this.count === this.starts.length) this.#grow();
    this.#put(this.count++, change);
  }

  /** Adds a change of a row with a key; false if it cannot be taken together with what is there. */
  add(change: PlacedChange, { hash, scan }: { hash: KeyHash; scan: TupleScan }): boolean {
    if (this.count === this.starts.length) this.#grow();
    const mask = this.#slots.length - 1;
    let slot = hash.low & mask;
    for (; this.#slots[slot] !== 0; slot = (slot + 1) & mask) {
      const row = this.#slots[slot] - 1;
      if (this.lows[row] !== hash.low || this.highs[row] !== hash.high) continue;
      if (this.#hasKey(row, change.bytes, scan)) return this.#merge(row, change);
    }
    const row = this.count++;
    this.#slots[slot] = row + 1;
    this.#put(row, change);
    this.highs[row] = hash.high;
    this.lows[row] = hash.low;
    return true;
  }

  #put(row: number, change: PlacedChange): void {
    this.kinds[row] = change.kind;
    this.bytes[row] = change.bytes;
    this.starts[row] = change.start;
    this.ends[row] = change.end;
    this.tuples[row] = change.tuple;
    this.unchanged[row] = change.hasUnchanged;
    this.transactions[row] = change.transaction;
  }

  #merge(row: number, change: PlacedChange): boolean {
    const before = this.kinds[row];
    if (before === NET_UPDATE && change.kind === NET_DELETE) {
      this.#put(row, change);
      return true;
    }
    if (before === NET_DELETE || change.kind !== NET_UPDATE || change.hasUnchanged) return false;
    this.#put(row, change);
    this.kinds[row] = before;
    return true;
  }

  #hasKey(row: number, bytes: Uint8Array, scan: TupleScan): boolean {
    const there = this.bytes[row];
    const own = this.#scan;
    own.scan(there, this.tuples[row], { start: this.starts[row], end: this.ends[row] });
    for (const index of this.#key) {
      const length = scan.lengths[index];
      if (own.lengths[index] !== length) return false;
      for (let i = 0, a = own.starts[index], b = scan.starts[index]; i < length; i++) {
        if (there[a + i] !== bytes[b + i]) return false;
      }
    }
    return true;
  }

  /** Room for twice as many rows; slots are four times that, so that most rows find theirs at once. */
  #grow(): void {
    this.starts = grown(this.starts);
    this.ends = grown(this.ends);
    this.tuples = grown(this.tuples);
    this.transactions = grown(this.transactions);
    this.highs = grown(this.highs);
    this.lows = grown(this.lows);
    this.#slots = new Int32Array(this.#slots.length * 2);
    if (this.#key.length === 0) return;
    const mask = this.#slots.length - 1;
    for (let row = 0; row < this.count; row++) {
      let slot = this.lows[row] & mask;
      while (this.#slots[slot] !== 0) slot = (slot + 1) & mask;
      this.#slots[slot] = row + 1;
    }
  }
}
