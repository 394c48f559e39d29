/**
 * The hash by which a row is known in `mmlite.apply_group`: two 32-bit lanes over the table's name and the text of
 * each key column, every part with its length before it. The same as `mmlite.key_hash` in `pg/schema.ts`.
 */
import { Buffer } from "node:buffer";
import type { TupleScan } from "../pgoutput/tuple_scan.ts";

const START = 0x811c9dc5 | 0;
const HIGH_PRIME = 0x01000193;
const LOW_PRIME = 0x5bd1e995;

/** Hashes keys; the result is valid until the next one. */
export class KeyHash {
  /** The upper 32 bits, signed. */
  high = 0;
  /** The lower 32 bits, signed. */
  low = 0;

  /** Of the key columns (their index) of a scanned row, none of which may be NULL or not sent. */
  ofRow(
    table: TableHash,
    { bytes, scan, key }: { bytes: Uint8Array; scan: TupleScan; key: readonly number[] },
  ): void {
    this.high = table.high;
    this.low = table.low;
    for (const index of key) {
      const start = scan.starts[index];
      // The length stands before the value in the message as it does in the hash.
      this.add(bytes, start - 4, start + scan.lengths[index]);
    }
  }

  /** Of the texts of the key columns. */
  ofValues(table: TableHash, values: readonly Uint8Array[]): void {
    this.high = table.high;
    this.low = table.low;
    for (const value of values) this.#addWithLength(value);
  }

  #addWithLength(value: Uint8Array): void {
    const length = Buffer.allocUnsafe(4);
    length.writeInt32BE(value.length);
    this.add(length, 0, 4);
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
