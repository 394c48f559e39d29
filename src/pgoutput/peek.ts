/**
 * What the sending side needs to know of a message without decoding its rows.
 *
 * Layouts: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html.
 */
import type { Begin, Commit } from "./message.ts";
import { decodeError, formatByte, Reader } from "./reader.ts";

/** The first byte of each message; servers up to 13 also send an empty payload ({@link messageType} 0). */
export const MESSAGE_TYPE = {
  unnamedOrigin: 0,
  streamAbort: 0x41,
  begin: 0x42,
  commit: 0x43,
  delete: 0x44,
  insert: 0x49,
  message: 0x4d,
  origin: 0x4f,
  relation: 0x52,
  truncate: 0x54,
  update: 0x55,
  type: 0x59,
} as const;

/** The first byte of the message at this place, 0 for the empty payload; compare with {@link MESSAGE_TYPE}. */
export function messageType(bytes: Uint8Array, start = 0, end: number = bytes.length): number {
  return start === end ? MESSAGE_TYPE.unnamedOrigin : bytes[start];
}

/** Decodes the begin message that takes up this place whole; throws `protocol` for anything else. */
export function decodeBegin(bytes: Uint8Array, start = 0, end: number = bytes.length): Begin {
  const reader = readerOf(MESSAGE_TYPE.begin, bytes, start, end);
  const commitLsn = reader.lsn("commit LSN");
  const commitTimestamp = reader.int64("commit timestamp");
  const xid = reader.uint32("xid");
  reader.end();
  return { kind: "begin", commitLsn, commitTimestamp, xid };
}

/** Decodes the commit message that takes up this place whole; throws `protocol` for anything else. */
export function decodeCommit(bytes: Uint8Array, start = 0, end: number = bytes.length): Commit {
  const reader = readerOf(MESSAGE_TYPE.commit, bytes, start, end);
  if (reader.byte("flags") !== 0) reader.fail("flags must be 0", 1);
  const commitLsn = reader.lsn("commit LSN");
  const endLsn = reader.lsn("end LSN");
  const commitTimestamp = reader.int64("commit timestamp");
  reader.end();
  return { kind: "commit", commitLsn, endLsn, commitTimestamp };
}

function readerOf(type: number, bytes: Uint8Array, start: number, end: number): Reader {
  if (messageType(bytes, start, end) === type) return new Reader(bytes, start, end);
  throw decodeError(bytes.subarray(start, end), 0, `expected "${formatByte(type)}"`);
}
