/**
 * Row changes whose values came in binary form, as they would have come as text: what everything but sets of rows is
 * made for.
 */
import { Buffer } from "node:buffer";
import { binaryText } from "./binary_text.ts";
import type { Tuple } from "./message.ts";
import { TupleScan } from "./tuple_scan.ts";

/** Type and relation of a row change; a marker and a tuple follow, once or twice. */
const TUPLES_OFFSET = 5;
const VALUE_BINARY = 0x62; // b
const VALUE_TEXT = 0x74; // t
/** Kind and length of a value. */
const VALUE_HEADER_BYTES = 5;

/** Used by one call at a time: it has room for as many columns as there can be. */
const SCAN = new TupleScan();

/** A tuple with the texts of its values; `types` are the OIDs of the columns' types where it comes from. */
export function textTuple(tuple: Tuple, types: readonly number[]): Tuple {
  if (!tuple.some(({ kind }) => kind === "binary")) return tuple;
  return tuple.map((value, index) =>
    value.kind === "binary"
      ? { kind: "text", bytes: binaryText(types[index], value.bytes, 0, value.bytes.length) }
      : value
  );
}

/**
 * A whole Insert, Update or Delete message with the texts of its values; the same bytes if none came in binary form.
 * Throws `protocol` for one that is malformed.
 */
export function textMessage(message: Uint8Array, types: readonly number[]): Uint8Array {
  const whole = { start: 0, end: message.length };
  const parts: Uint8Array[] = [];
  let copied = 0;
  for (let at = TUPLES_OFFSET; at < message.length;) {
    const end = SCAN.scan(message, at + 1, whole);
    for (let i = 0; SCAN.hasBinary && i < SCAN.count; i++) {
      const [start, length] = [SCAN.starts[i], SCAN.lengths[i]];
      if (length < 0 || message[start - VALUE_HEADER_BYTES] !== VALUE_BINARY) continue;
      const text = binaryText(types[i], message, start, start + length);
      parts.push(message.subarray(copied, start - VALUE_HEADER_BYTES), textHeader(text.length), text);
      copied = start + length;
    }
    at = end;
  }
  if (copied === 0) return message;
  return Buffer.concat([...parts, message.subarray(copied)]);
}

function textHeader(length: number): Uint8Array {
  const header = Buffer.allocUnsafe(VALUE_HEADER_BYTES);
  header[0] = VALUE_TEXT;
  header.writeInt32BE(length, 1);
  return header;
}
