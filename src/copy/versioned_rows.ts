/**
 * Rows that each say their version before their columns, gathered into transactions of one node each.
 *
 * A line of COPY in text is a row; its first three fields are the node, the time in microseconds since 2000-01-01 UTC
 * and the hash of the key, none of which has a character that COPY escapes.
 */
import { Buffer } from "node:buffer";
import { MmliteError } from "../errors.ts";

/** Rows of one transaction, at most: their times take 1 MiB. */
const MAX_ROWS = 0x1_0000;
/** Bytes of rows that are held for one transaction, about. */
const MAX_BYTES = 0x80_0000;

const LINE_END = 0x0a;
const TAB = 0x09;
/** As COPY prints it. */
const NULL = "\\N";
/** Bytes of an entry: hash and time. */
const ENTRY_BYTES = 16;

/** Rows of one node that are written together. */
export interface VersionedRows {
  /** Null where it is not known any more. */
  readonly node: string | null;
  /** When the first and the last of them was committed, microseconds since 2000-01-01 UTC. */
  readonly first: bigint;
  readonly last: bigint;
  /** Those that are older than the last: hash and time, 8 bytes each, in the order of the hashes. */
  readonly entries: Uint8Array;
  /** As COPY prints them, without their versions. */
  readonly lines: readonly Uint8Array[];
}

interface Held {
  readonly lines: Uint8Array[];
  readonly hashes: bigint[];
  readonly times: bigint[];
  bytes: number;
}

/** See the module's head. */
export class VersionedRowReader {
  readonly #held = new Map<string, Held>();
  /** What has come of a row whose end has not. */
  #rest: Buffer[] = [];

  /** Takes the next bytes and returns what is to be written now. */
  push(bytes: Uint8Array): VersionedRows[] {
    const full: VersionedRows[] = [];
    const chunk = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let start = 0;
    for (let end = chunk.indexOf(LINE_END); end >= 0; end = chunk.indexOf(LINE_END, start)) {
      const line = chunk.subarray(start, end + 1);
      const node = this.#take(this.#rest.length === 0 ? line : Buffer.concat([...this.#rest, line]));
      this.#rest = [];
      const held = this.#held.get(node)!;
      if (held.lines.length >= MAX_ROWS || held.bytes >= MAX_BYTES) full.push(this.#release(node, held));
      start = end + 1;
    }
    // A copy: what it is part of must not stay for it.
    if (start < chunk.length) this.#rest.push(Buffer.from(chunk.subarray(start)));
    return full;
  }

  /** After the last bytes: all that is held. Throws `protocol` for a row without an end. */
  finish(): VersionedRows[] {
    if (this.#rest.length > 0) throw strange();
    return [...this.#held].map(([node, held]) => this.#release(node, held));
  }

  /** Holds one row; returns its node. */
  #take(line: Buffer): string {
    const first = line.indexOf(TAB);
    const second = line.indexOf(TAB, first + 1);
    if (first < 0 || second < 0) throw strange();
    const third = line.indexOf(TAB, second + 1);
    const hashEnd = third < 0 ? line.length - 1 : third;
    const name = line.toString("latin1", 0, first);
    const held: Held = this.#held.get(name) ?? { lines: [], hashes: [], times: [], bytes: 0 };
    this.#held.set(name, held);
    try {
      held.times.push(BigInt(line.toString("latin1", first + 1, second)));
      held.hashes.push(BigInt(line.toString("latin1", second + 1, hashEnd)));
    } catch {
      throw strange();
    }
    // Of a table without columns nothing but the end of the line is left.
    // A copy: what it is part of must not stay for it.
    const row = Buffer.from(line.subarray(third < 0 ? hashEnd : third + 1));
    held.lines.push(row);
    held.bytes += row.length;
    return name;
  }

  #release(node: string, { lines, hashes, times }: Held): VersionedRows {
    this.#held.delete(node);
    const first = times.reduce((a, b) => a < b ? a : b);
    const last = times.reduce((a, b) => a > b ? a : b);
    return { node: node === NULL ? null : node, first, last, entries: entriesOf(hashes, times, last), lines };
  }
}

function entriesOf(hashes: readonly bigint[], times: readonly bigint[], last: bigint): Uint8Array {
  const older = hashes.map((hash, i) => ({ hash: BigInt.asUintN(64, hash), time: times[i] }))
    // Rows without key are not told apart.
    .filter(({ hash, time }) => time !== last && hash !== 0n)
    // By their bytes, so as numbers without a sign.
    .sort((a, b) => a.hash < b.hash ? -1 : a.hash > b.hash ? 1 : 0);
  const bytes = Buffer.alloc(older.length * ENTRY_BYTES);
  older.forEach(({ hash, time }, i) => {
    bytes.writeBigUInt64BE(hash, i * ENTRY_BYTES);
    bytes.writeBigInt64BE(time, i * ENTRY_BYTES + 8);
  });
  return bytes;
}

function strange(): MmliteError {
  return new MmliteError("protocol", "Cannot read the rows: one does not begin with its version", {
    hint: "Run the same version of mmlite on both nodes",
  });
}
