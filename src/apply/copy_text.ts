/**
 * Rows as the lines that COPY reads in its text format, straight from the messages that they came in
 * (https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS).
 */
import { LastView } from "../byte_words.ts";
import { MmliteError } from "../errors.ts";
import { NULL_LENGTH, type TupleScan, UNCHANGED_LENGTH } from "../pgoutput/tuple_scan.ts";

/** Bytes that are handed on at a time. */
const PIECE_BYTES = 0x1_0000;
const BACKSLASH = 0x5c;
const TAB = 0x09;
const NEWLINE = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const CAPITAL_N = 0x4e;

/** What a byte is written as behind a backslash; 0 for those that stand for themselves. */
const ESCAPES = new Uint8Array(256);
ESCAPES[BACKSLASH] = BACKSLASH;
ESCAPES[TAB] = 0x74; // t
ESCAPES[NEWLINE] = 0x6e; // n
ESCAPES[CARRIAGE_RETURN] = 0x72; // r

/** Writes lines into pieces; a piece is only good until the next is begun. */
export class CopyText {
  readonly #piece = new Uint8Array(PIECE_BYTES);
  readonly #view = new DataView(this.#piece.buffer);
  readonly #source = new LastView();
  #send: (bytes: Uint8Array, length: number) => void = () => {};
  #length = 0;

  /** Everything from here on goes to `send`. */
  begin(send: (bytes: Uint8Array, length: number) => void): void {
    this.#send = send;
    this.#length = 0;
  }

  /** Writes the columns (their index) of a scanned row, which must all have come and have room in a piece. */
  row(bytes: Uint8Array, scan: TupleScan, columns: readonly number[]): void {
    const { starts, lengths } = scan;
    // Every byte may become two; a NULL is two, and each value has a byte behind it. Nothing else is looked at below.
    const most = 2 * scan.byteLength + 3 * columns.length;
    if (most > PIECE_BYTES) {
      throw new MmliteError("internal", "Cannot write a line of COPY: the row is too long");
    }
    if (most > PIECE_BYTES - this.#length) this.finish();
    const piece = this.#piece;
    const view = this.#view;
    const source = this.#source.of(bytes);
    let at = this.#length;
    for (let i = 0; i < columns.length; i++) {
      const start = starts[columns[i]];
      const length = lengths[columns[i]];
      if (length === UNCHANGED_LENGTH) {
        throw new MmliteError("internal", "Cannot write a line of COPY: a value was not sent");
      }
      if (length === NULL_LENGTH) {
        piece[at++] = BACKSLASH;
        piece[at++] = CAPITAL_N;
      }
      const end = start + length;
      let place = start;
      for (; place + 4 <= end; place += 4) {
        const word = source.getUint32(place);
        if (mayNeedEscape(word)) {
          at = this.#escape(bytes, place, at);
        } else {
          view.setUint32(at, word);
          at += 4;
        }
      }
      for (; place < end; place++) {
        const byte = bytes[place];
        const escape = byte > BACKSLASH ? 0 : ESCAPES[byte];
        if (escape !== 0) piece[at++] = BACKSLASH;
        piece[at++] = escape === 0 ? byte : escape;
      }
      piece[at++] = TAB;
    }
    piece[at - 1] = NEWLINE;
    this.#length = at;
  }

  /** Writes the four bytes from `start` on one by one; returns where they end. */
  #escape(bytes: Uint8Array, start: number, at: number): number {
    const piece = this.#piece;
    for (let place = start; place < start + 4; place++) {
      const escape = ESCAPES[bytes[place]];
      if (escape !== 0) piece[at++] = BACKSLASH;
      piece[at++] = escape === 0 ? bytes[place] : escape;
    }
    return at;
  }

  /** Hands on what is left. */
  finish(): void {
    if (this.#length > 0) this.#send(this.#piece, this.#length);
    this.#length = 0;
  }
}

/**
 * Whether one of a word's four bytes is a backslash, or at most a carriage return: a byte that is below a bound is the
 * only one, or the lowest one, that borrows from its own highest bit.
 */
function mayNeedEscape(word: number): boolean {
  const other = word ^ 0x5c5c5c5c;
  return ((((other - 0x01010101) & ~other) | ((word - 0x0e0e0e0e) & ~word)) & 0x80808080) !== 0;
}
