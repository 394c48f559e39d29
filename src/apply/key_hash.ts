/**
 * The hash by which a row is known in `mmlite.apply_group`: two 32-bit lanes over the table's name and the text of
 * each key column, every part with its length before it. The same as `mmlite.key_hash` in `pg/schema.ts`.
 */
import { Buffer } from "node:buffer";
import { binaryInteger, binaryText, isSameAsText } from "../pgoutput/binary_text.ts";
import type { TupleScan } from "../pgoutput/tuple_scan.ts";

const START = 0x811c9dc5 | 0;
const HIGH_PRIME = 0x01000193;
const LOW_PRIME = 0x5bd1e995;

const LENGTH_BYTES = 4;
/** The kind of a value, before its length. */
const VALUE_BINARY = 0x62; // b
/** A sign, the digits of what a double holds, and their length before them. */
const DIGITS_BYTES = 24;
const ZERO = 0x30;
const MINUS = 0x2d;

/** Hashes keys; the result is valid until the next one. */
export class KeyHash {
  /** The upper 32 bits, signed. */
  high = 0;
  /** The lower 32 bits, signed. */
  low = 0;
  readonly #digits = new Uint8Array(DIGITS_BYTES);

  /**
   * Of the key columns (their index) of a scanned row, none of which may be NULL or not sent; of values that came in
   * binary form their text.
   */
  ofRow(
    { hash, map }: HashedRelation,
    { bytes, scan, key }: { bytes: Uint8Array; scan: TupleScan; key: readonly number[] },
  ): void {
    this.high = hash.high;
    this.low = hash.low;
    for (const index of key) {
      const start = scan.starts[index];
      const length = scan.lengths[index];
      const type = map.sentTypes[index];
      const isText = bytes[start - LENGTH_BYTES - 1] !== VALUE_BINARY || isSameAsText(type);
      // The length stands before the value in the message as it does in the hash.
      if (isText) this.add(bytes, start - LENGTH_BYTES, start + length);
      else this.#addBinary(type, { bytes, start, length });
    }
  }

  /** Of the texts of the key columns. */
  ofValues(table: TableHash, values: readonly Uint8Array[]): void {
    this.high = table.high;
    this.low = table.low;
    for (const value of values) this.#addWithLength(value);
  }

  #addBinary(
    type: number,
    { bytes, start, length }: { bytes: Uint8Array; start: number; length: number },
  ): void {
    const number = binaryInteger(type, bytes, start, length);
    if (number === undefined) this.#addWithLength(binaryText(type, bytes, start, start + length));
    else this.#addDigits(number);
  }

  /** An integer as text: most keys are numbers, and strings would cost more than all the rest. */
  #addDigits(number: number): void {
    const digits = this.#digits;
    let at = DIGITS_BYTES;
    for (let rest = Math.abs(number); at === DIGITS_BYTES || rest > 0;) {
      const tenth = Math.floor(rest / 10);
      // In this order, as the sum of the first two may be more than a double holds.
      digits[--at] = ZERO + (rest - 10 * tenth);
      rest = tenth;
    }
    if (number < 0) digits[--at] = MINUS;
    const start = at - LENGTH_BYTES;
    digits[start] = 0;
    digits[start + 1] = 0;
    digits[start + 2] = 0;
    digits[start + 3] = DIGITS_BYTES - at;
    this.add(digits, start, DIGITS_BYTES);
  }

  #addWithLength(value: Uint8Array): void {
    const length = Buffer.allocUnsafe(LENGTH_BYTES);
    length.writeInt32BE(value.length);
    this.add(length, 0, LENGTH_BYTES);
    this.add(value, 0, value.length);
  }

  /** Goes on with the bytes from `start` to `end`. */
  add(bytes: Uint8Array, start: number, end: number): void {
    let { high, low } = this;
    for (let at = start; at < end; at++) {
      high = Math.imul(high ^ bytes[at], HIGH_PRIME);
      low = Math.imul(low ^ bytes[at], LOW_PRIME);
      low ^= low >>> 15;
    }
    this.high = high;
    this.low = low;
  }
}

/** What the hash of a row takes of its relation. */
export interface HashedRelation {
  readonly hash: TableHash;
  /** See `MappedRelation.sentTypes`. */
  readonly map: { readonly sentTypes: readonly number[] };
}

/** What the hashes of all keys of a table begin with. */
export interface TableHash {
  readonly high: number;
  readonly low: number;
}

/** Of a table's name, as `schema.name`. */
export function tableHash(label: string): TableHash {
  const hash = new KeyHash();
  hash.ofValues({ high: START, low: START }, [Buffer.from(label, "utf8")]);
  return { high: hash.high, low: hash.low };
}
