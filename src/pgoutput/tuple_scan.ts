/**
 * Where the values of a row lie in a pgoutput message, without an object for each of them.
 *
 * The hot path of applying: a scan is used again and again, and its numbers are valid until the next. Layouts:
 * https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html.
 */
import { decodeError, formatByte } from "./reader.ts";

/** {@link TupleScan.lengths} of SQL NULL. */
export const NULL_LENGTH = -1;
/** {@link TupleScan.lengths} of a TOASTed value that was not sent. */
export const UNCHANGED_LENGTH = -2;

/** Kinds of a column's value. */
const VALUE_NULL = 0x6e; // n
const VALUE_UNCHANGED = 0x75; // u
const VALUE_TEXT = 0x74; // t
const VALUE_BINARY = 0x62; // b

/** PostgreSQL's limit is 1,600 columns. */
const MAX_COLUMNS = 1_664;

/** The values of one tuple as places in the bytes of its message. */
export class TupleScan {
  /** Where the bytes of each value begin; the four before them are its length, as PostgreSQL writes it. */
  readonly starts = new Int32Array(MAX_COLUMNS);
  /** Bytes of each value, or {@link NULL_LENGTH} or {@link UNCHANGED_LENGTH}. */
  readonly lengths = new Int32Array(MAX_COLUMNS);
  /** Columns of the tuple. */
  count = 0;
  /** Whether a value was not sent. */
  hasUnchanged = false;
  /** Whether a value came as text. */
  hasText = false;
  /** Whether a value came in binary form. */
  hasBinary = false;
  /** Bytes of all values. */
  byteLength = 0;

  /**
   * Takes the tuple that begins at `at`, inside the message from `start` to `end`; returns where it ends. Throws
   * `protocol` for one that runs past the message.
   */
  scan(bytes: Uint8Array, at: number, { start, end }: { start: number; end: number }): number {
    if (at + 2 > end) throw outside(bytes, start, end);
    const count = (bytes[at] << 8) | bytes[at + 1];
    if (count > MAX_COLUMNS) throw outside(bytes, start, end);
    const { starts, lengths } = this;
    let place = at + 2;
    let byteLength = 0;
    let hasUnchanged = false;
    let hasText = false;
    let hasBinary = false;
    for (let i = 0; i < count; i++) {
      if (place >= end) throw outside(bytes, start, end);
      const kind = bytes[place++];
      if (kind === VALUE_TEXT || kind === VALUE_BINARY) {
        if (kind === VALUE_TEXT) hasText = true;
        else hasBinary = true;
        if (place + 4 > end) throw outside(bytes, start, end);
        const length = (bytes[place] << 24) | (bytes[place + 1] << 16) | (bytes[place + 2] << 8) |
          bytes[place + 3];
        place += 4;
        if (length < 0 || length > end - place) throw outside(bytes, start, end);
        starts[i] = place;
        lengths[i] = length;
        byteLength += length;
        place += length;
      } else if (kind === VALUE_NULL) {
        lengths[i] = NULL_LENGTH;
      } else if (kind === VALUE_UNCHANGED) {
        lengths[i] = UNCHANGED_LENGTH;
        hasUnchanged = true;
      } else {
        const why = `unknown value kind "${formatByte(kind)}"`;
        throw decodeError(bytes.subarray(start, end), place - 1 - start, why);
      }
    }
    this.count = count;
    this.byteLength = byteLength;
    this.hasUnchanged = hasUnchanged;
    this.hasText = hasText;
    this.hasBinary = hasBinary;
    return place;
  }
}

function outside(bytes: Uint8Array, start: number, end: number) {
  return decodeError(bytes.subarray(start, end), end - start, "a row runs past its end");
}
