/**
 * Rows as COPY reads them in its binary format, straight from the messages that they came in
 * (https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS): a field is a length and that many bytes,
 * which is how a value stands in pgoutput.
 */
import { copyWords, LastView, viewOf } from "../byte_words.ts";
import { MmliteError } from "../errors.ts";
import { NULL_LENGTH, type TupleScan, UNCHANGED_LENGTH } from "../pgoutput/tuple_scan.ts";

/** Bytes that are handed on at a time. */
const PIECE_BYTES = 0x1_0000;
/** Up to this many bytes are copied by words, which is faster than making the view that `set` wants. */
const WORDS_BYTES = 96;
const LENGTH_BYTES = 4;
const COUNT_BYTES = 2;
/** `PGCOPY\n\xff\r\n\0`, no flags, and a header extension of no bytes. */
const HEADER = new Uint8Array(19);
HEADER.set([...new TextEncoder().encode("PGCOPY\n"), 0xff, 0x0d, 0x0a]);
/** Stands where the number of a row's fields would. */
const END = -1;

/** Writes rows into pieces; a piece is only good until the next is begun. */
export class CopyBinary {
  readonly #piece = new Uint8Array(PIECE_BYTES);
  readonly #view = viewOf(this.#piece);
  readonly #source = new LastView();
  #send: (bytes: Uint8Array, length: number) => void = () => {};
  #length = 0;

  /** Everything from here on goes to `send`. */
  begin(send: (bytes: Uint8Array, length: number) => void): void {
    this.#send = send;
    this.#piece.set(HEADER);
    this.#length = HEADER.length;
  }

  /** Writes the columns (their index) of a scanned row, which must all have come, in binary form, and have room in a piece. */
  row(bytes: Uint8Array, scan: TupleScan, columns: readonly number[]): void {
    const { starts, lengths } = scan;
    this.#room(COUNT_BYTES + LENGTH_BYTES * columns.length + scan.byteLength);
    const view = this.#view;
    const source = this.#source.of(bytes);
    let at = this.#length;
    view.setInt16(at, columns.length);
    at += COUNT_BYTES;
    for (let i = 0; i < columns.length; i++) {
      const start = starts[columns[i]];
      const length = lengths[columns[i]];
      if (length === UNCHANGED_LENGTH) {
        throw new MmliteError("internal", "Cannot write a row of COPY: a value was not sent");
      }
      if (length === NULL_LENGTH) {
        view.setInt32(at, NULL_LENGTH);
        at += LENGTH_BYTES;
      } else if (length <= WORDS_BYTES) {
        at = copyWords(source, start - LENGTH_BYTES, start + length, view, at);
      } else {
        this.#piece.set(bytes.subarray(start - LENGTH_BYTES, start + length), at);
        at += LENGTH_BYTES + length;
      }
    }
    this.#length = at;
  }

  /** Ends what COPY reads, and hands on what is left. */
  finish(): void {
    this.#room(COUNT_BYTES);
    this.#view.setInt16(this.#length, END);
    this.#length += COUNT_BYTES;
    this.#handOn();
  }

  #room(length: number): void {
    if (length > PIECE_BYTES) {
      throw new MmliteError("internal", "Cannot write a row of COPY: it is too long");
    }
    if (length > PIECE_BYTES - this.#length) this.#handOn();
  }

  #handOn(): void {
    this.#send(this.#piece, this.#length);
    this.#length = 0;
  }
}
