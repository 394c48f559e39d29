/**
 * What changes of one relation come to, row by row: several changes of a row are one, that of the last.
 *
 * Rows stay where they came, and are remembered by their places. Only what surely means the same is taken
 * together: an insert or update followed by updates, an update followed by a delete. Anything else is refused, and
 * what is there has to be written first.
 */
import type { TupleScan } from "../pgoutput/tuple_scan.ts";
import type { KeyHash } from "./key_hash.ts";

/** Kinds of net changes. */
export const NET_INSERT = 0;
/** A row that is there gets other values. */
export const NET_UPDATE = 1;
/** A row that is there goes. */
export const NET_DELETE = 2;
/** One of the three. */
export type NetKind = typeof NET_INSERT | typeof NET_UPDATE | typeof NET_DELETE;

/** Slots of the hash table at the start: most sets are small, and there may be as many as tables. */
const MIN_SLOTS = 32;

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

/** Net changes of one relation, in the order of the rows' first ones. */
export class NetChanges {
  /** Rows. */
  count = 0;
  readonly kinds: NetKind[] = [];
  readonly bytes: Uint8Array[] = [];
  readonly starts: number[] = [];
  readonly ends: number[] = [];
  readonly tuples: number[] = [];
  readonly unchanged: boolean[] = [];
  readonly transactions: number[] = [];
  readonly highs: number[] = [];
  readonly lows: number[] = [];
  /** Columns (their index) of the key; empty for rows that have none. */
  readonly #key: readonly number[];
  readonly #scan: TupleScan;
  /** One more than a row's number, by its hash; 0 for none. */
  #slots = new Int32Array(MIN_SLOTS);

  /** `scan` is used to look at rows again; it may serve others too. */
  constructor(key: readonly number[], scan: TupleScan) {
    this.#key = key;
    this.#scan = scan;
  }

  /** Adds a row without key. */
  append(change: PlacedChange): void {
    this.#put(this.count++, change);
  }

  /** Adds a change of a row with a key; false if it cannot be taken together with what is there. */
  add(change: PlacedChange, { hash, scan }: { hash: KeyHash; scan: TupleScan }): boolean {
    if ((this.count + 1) * 2 > this.#slots.length) this.#grow();
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

  #grow(): void {
    const slots = new Int32Array(this.#slots.length * 4);
    const mask = slots.length - 1;
    for (let row = 0; row < this.count; row++) {
      let slot = this.lows[row] & mask;
      while (slots[slot] !== 0) slot = (slot + 1) & mask;
      slots[slot] = row + 1;
    }
    this.#slots = slots;
  }
}
