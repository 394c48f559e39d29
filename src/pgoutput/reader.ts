/**
 * Reads big-endian fields off one pgoutput message, checking every read against the end.
 *
 * On the hot path. 32-bit integers are put together byte by byte and 64-bit ones in one shared DataView: a
 * DataView per message costs more than the whole of a short message.
 */
import { MmliteError } from "../errors.ts";
import type { Lsn } from "../lsn.ts";

// Fatal, because a name with replacement characters could match another table; a byte order mark is kept.
const NAMES = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Where two halves become a 64-bit integer; never read before it was written. */
const WORD = new DataView(new ArrayBuffer(8));

/** A `protocol` error about the message `bytes`, found at byte `position` of it. */
export function decodeError(bytes: Uint8Array, position: number, why: string): MmliteError {
  const type = bytes.length === 0 ? "" : formatByte(bytes[0]);
  return new MmliteError(
    "protocol",
    `Cannot decode pgoutput message "${type}" at byte ${position}: ${why}`,
  );
}

/** A byte as its ASCII character where that is printable, as `0x0a` otherwise. */
export function formatByte(byte: number): string {
  const printable = byte > 0x20 && byte < 0x7f && byte !== 0x22;
  return printable ? String.fromCharCode(byte) : `0x${byte.toString(16).padStart(2, "0")}`;
}

/** A cursor over one message that stands behind its type byte; every method throws a `protocol` error. */
export class Reader {
  readonly #bytes: Uint8Array;
  readonly #start: number;
  readonly #end: number;
  #position: number;

  /** Over the message from `start` to `end` in `bytes`, the whole of them where left out; it has a type byte. */
  constructor(bytes: Uint8Array, start = 0, end: number = bytes.length) {
    this.#bytes = bytes;
    this.#start = start;
    this.#end = end;
    this.#position = start + 1;
  }

  /** Bytes not read yet. */
  get remaining(): number {
    return this.#end - this.#position;
  }

  /** Reads one byte; `field` names it in the error, here and below. */
  byte(field: string): number {
    return this.#bytes[this.#take(1, field)];
  }

  /** Reads an unsigned 16-bit integer. */
  uint16(field: string): number {
    const at = this.#take(2, field);
    return (this.#bytes[at] << 8) | this.#bytes[at + 1];
  }

  /** Reads a signed 32-bit integer. */
  int32(field: string): number {
    const at = this.#take(4, field);
    const bytes = this.#bytes;
    return (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
  }

  /** Reads an unsigned 32-bit integer: an OID, an xid, a length. */
  uint32(field: string): number {
    return this.int32(field) >>> 0;
  }

  /** Reads a signed 64-bit integer. */
  int64(field: string): bigint {
    this.#loadWord(field);
    return WORD.getBigInt64(0);
  }

  /** Reads a WAL position. */
  lsn(field: string): Lsn {
    this.#loadWord(field);
    return WORD.getBigUint64(0) as Lsn;
  }

  /** Reads a name that ends with a zero byte, as UTF-8. */
  name(field: string): string {
    const start = this.#position;
    const end = this.#bytes.indexOf(0, start);
    if (end === -1 || end >= this.#end) this.fail(`${field} has no end`);
    this.#position = end + 1;
    try {
      return NAMES.decode(this.#bytes.subarray(start, end));
    } catch {
      throw this.#error(start, `${field} is not UTF-8`);
    }
  }

  /** Reads a 32-bit length and that many bytes, as a view. */
  lengthAndBytes(field: string): Uint8Array {
    const length = this.uint32(field);
    const at = this.#take(length, field);
    return this.#bytes.subarray(at, at + length);
  }

  /** Checks a count before anything is allocated for it: each element takes `size` bytes at least. */
  checkCount(count: number, size: number, field: string): void {
    if (count * size > this.remaining) {
      this.fail(`${count} ${field} cannot fit into the ${this.remaining} bytes left`);
    }
  }

  /** Checks that the message ends here. */
  end(): void {
    if (this.remaining !== 0) this.fail(`${this.remaining} bytes follow the end`);
  }

  /** Throws a `protocol` error about the byte just read (`back` bytes back), or about what comes next. */
  fail(why: string, back = 0): never {
    throw this.#error(this.#position - back, why);
  }

  #error(at: number, why: string): MmliteError {
    return decodeError(this.#bytes.subarray(this.#start, this.#end), at - this.#start, why);
  }

  #loadWord(field: string): void {
    this.#need(8, field);
    WORD.setInt32(0, this.int32(field));
    WORD.setInt32(4, this.int32(field));
  }

  #need(count: number, field: string): void {
    if (count > this.remaining) {
      this.fail(`${field} needs ${count} bytes, ${this.remaining} are left`);
    }
  }

  #take(count: number, field: string): number {
    this.#need(count, field);
    const at = this.#position;
    this.#position = at + count;
    return at;
  }
}
