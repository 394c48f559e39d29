/**
 * What a server sends while it copies a table out, cut into messages of which only the rows are kept. Pure: no I/O.
 *
 * Each row is a message of its own, with five bytes before it (`copy_both.ts`). The rows of a chunk are moved together
 * where they lie: an object for each, and a copy of all, would cost more than all else that is done with them.
 */
import { BACKEND_MESSAGE, bodyLength, HEADER_BYTES } from "./copy_both.ts";

/** Bytes of rows; they may begin and end within one. */
export interface CopiedBytes {
  readonly bytes: Uint8Array;
  /** How many rows begin in them; in binary one too many at the end. */
  readonly rows: number;
}

/** Takes the body of a message that is no row. */
export type OtherMessage = (type: number, body: Uint8Array) => void;

/** See the module's head. */
export class CopyDataReader {
  readonly #other: OtherMessage;
  readonly #header = new Uint8Array(HEADER_BYTES);
  #headerFilled = 0;
  /** Of the message that has begun: how many bytes are still to come. */
  #left = 0;
  /** What has come of it; undefined of a row. */
  #body: Uint8Array | undefined;

  constructor(other: OtherMessage) {
    this.#other = other;
  }

  /** Takes the next bytes, and changes them. Throws `protocol` for an impossible length. */
  push(chunk: Uint8Array): CopiedBytes {
    let [kept, rows] = [0, 0];
    for (let at = 0;;) {
      if (this.#left > 0) {
        const end = Math.min(at + this.#left, chunk.length);
        if (this.#body !== undefined) this.#gather(this.#body, chunk.subarray(at, end));
        else {
          chunk.copyWithin(kept, at, end);
          kept += end - at;
        }
        this.#left -= end - at;
        at = end;
        if (this.#left > 0) break;
      }
      if (this.#body !== undefined) this.#handOn(this.#body);
      if (at === chunk.length) break;
      if (this.#headerFilled === 0 && at + HEADER_BYTES <= chunk.length) {
        if (this.#begin(chunk, at)) rows++;
        at += HEADER_BYTES;
      } else {
        this.#header[this.#headerFilled++] = chunk[at++];
        if (this.#headerFilled < HEADER_BYTES) continue;
        this.#headerFilled = 0;
        if (this.#begin(this.#header, 0)) rows++;
      }
    }
    return { bytes: chunk.subarray(0, kept), rows };
  }

  /** Begins a message; whether it is a row. */
  #begin(bytes: Uint8Array, at: number): boolean {
    this.#left = bodyLength(bytes, at);
    const isRow = bytes[at] === BACKEND_MESSAGE.copyData;
    if (!isRow) {
      this.#header[0] = bytes[at];
      this.#body = new Uint8Array(this.#left);
    }
    return isRow;
  }

  #gather(body: Uint8Array, piece: Uint8Array): void {
    body.set(piece, body.length - this.#left);
  }

  #handOn(body: Uint8Array): void {
    this.#body = undefined;
    this.#other(this.#header[0], body);
  }
}
