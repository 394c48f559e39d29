/**
 * Columns of many rows as arrays, straight from the messages that the rows came in: of text, or of the columns' types
 * where the values came in binary form.
 *
 * In its binary form an array's element is a length and that many bytes, which is how a value stands in pgoutput:
 * both are copied together (`array_recv` in PostgreSQL's src/backend/utils/adt/arrayfuncs.c).
 */
import { MmliteError } from "../errors.ts";
import { type TupleScan, UNCHANGED_LENGTH } from "../pgoutput/tuple_scan.ts";
import type { ParameterBytes, ParameterWriter } from "../pg/query_bytes.ts";
import type { NetChanges } from "./net_changes.ts";

/** Dimensions, whether there are NULLs, the elements' type, and one dimension's length and lower bound. */
const HEADER_BYTES = 20;
const TEXT_OID = 25;
const INT8_BYTES = 8;
/** Places that are remembered at a time; a set of more is split. */
const MAX_PLACES = 0x1_0000;

/** How many rows with so many values fit. */
export function maxRows(values: number): number {
  return Math.max(1, Math.floor(MAX_PLACES / Math.max(1, values)));
}

/** The arrays of some columns and rows, and after them the number of rows and a time; used again and again. */
export class ArrayParameters implements ParameterWriter {
  lengths: number[] = [];
  readonly #scan: TupleScan;
  #rows: readonly number[] = [];
  #changes: NetChanges | undefined;
  #columns = 0;
  #types: readonly number[] = [];
  readonly #time = new DataView(new ArrayBuffer(INT8_BYTES));
  #starts = new Int32Array(0);
  #sizes = new Int32Array(0);

  /** `scan` is used to look at the rows; it may serve others too. */
  constructor(scan: TupleScan) {
    this.#scan = scan;
  }

  /** Looks at rows (their number in `changes`) and columns (their index), of which every value must have come; `types`
   * are the OIDs of these columns, for values in binary form. `time` is in microseconds since 2000-01-01 UTC. */
  prepare(
    changes: NetChanges,
    { rows, columns, types, time }: {
      rows: readonly number[];
      columns: readonly number[];
      types: readonly number[];
      time: bigint;
    },
  ): void {
    this.#types = types;
    this.#time.setBigInt64(0, time);
    this.#changes = changes;
    this.#rows = rows;
    this.#columns = columns.length;
    const places = rows.length * columns.length;
    if (places > this.#starts.length) {
      this.#starts = new Int32Array(places);
      this.#sizes = new Int32Array(places);
    }
    const lengths = columns.map(() => HEADER_BYTES + 4 * rows.length);
    const scan = this.#scan;
    for (let r = 0, place = 0; r < rows.length; r++) {
      const row = rows[r];
      scan.scan(changes.bytes[row], changes.tuples[row], {
        start: changes.starts[row],
        end: changes.ends[row],
      });
      for (let c = 0; c < columns.length; c++, place++) {
        const size = scan.lengths[columns[c]];
        if (size === UNCHANGED_LENGTH) {
          throw new MmliteError("internal", "Cannot write an array of values: one was not sent");
        }
        this.#starts[place] = scan.starts[columns[c]];
        this.#sizes[place] = size;
        if (size > 0) lengths[c] += size;
      }
    }
    this.lengths = [...lengths, INT8_BYTES, INT8_BYTES];
  }

  write(index: number, into: ParameterBytes): void {
    const rows = this.#rows;
    if (index === this.#columns) {
      into.int32(0);
      into.int32(rows.length);
      return;
    }
    if (index > this.#columns) {
      into.int32(this.#time.getInt32(0));
      into.int32(this.#time.getInt32(4));
      return;
    }
    into.int32(1);
    into.int32(1);
    into.int32(this.#changes!.isBinary ? this.#types[index] : TEXT_OID);
    into.int32(rows.length);
    into.int32(1);
    into.values({
      messages: this.#changes!.bytes,
      rows,
      starts: this.#starts,
      sizes: this.#sizes,
      first: index,
      step: this.#columns,
    });
  }
}
