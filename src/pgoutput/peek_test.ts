import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { encodeMessage } from "../../tests/support/pgoutput_encode.ts";
import { MmliteError } from "../errors.ts";
import { toLsn } from "../lsn.ts";
import type { Begin, Commit } from "./message.ts";
import { decodeBegin, decodeCommit, MESSAGE_TYPE, messageType } from "./peek.ts";

const BEGIN: Begin = { kind: "begin", commitLsn: toLsn(1n), commitTimestamp: 2n, xid: 3 };
const COMMIT: Commit = { kind: "commit", commitLsn: toLsn(1n), endLsn: toLsn(2n), commitTimestamp: 3n };

function isProtocolError(error: unknown): boolean {
  return error instanceof MmliteError && error.kind === "protocol";
}

Deno.test("messageType is the first byte, 0 for the empty payload", () => {
  assert.equal(messageType(encodeMessage(BEGIN)), MESSAGE_TYPE.begin);
  assert.equal(messageType(encodeMessage({ kind: "unnamed_origin" })), MESSAGE_TYPE.unnamedOrigin);
  assert.equal(messageType(Buffer.from("?")), 0x3f);
});

Deno.test("a message that lies among other bytes is read at its place and no further", () => {
  for (const [message, decode] of [[BEGIN, decodeBegin], [COMMIT, decodeCommit]] as const) {
    const encoded = encodeMessage(message);
    const bytes = Buffer.concat([Buffer.from("xyz"), encoded, encoded]);
    const [start, end] = [3, 3 + encoded.length];
    assert.equal(messageType(bytes, start, end), encoded[0]);
    assert.deepEqual(decode(bytes, start, end), message);
    assert.throws(() => decode(bytes, start, end - 1), /needs \d bytes, \d are left$/);
    assert.throws(
      () => decode(bytes, start, end + 1),
      new RegExp(`at byte ${encoded.length}: 1 bytes follow the end`),
    );
  }
  assert.equal(messageType(Buffer.from("xyz"), 2, 2), MESSAGE_TYPE.unnamedOrigin);
  assert.throws(() => decodeCommit(Buffer.from("xyz"), 2, 2), isProtocolError);
});

Deno.test("decodeBegin and decodeCommit take their own message and no other", () => {
  assert.deepEqual(decodeBegin(encodeMessage(BEGIN)), BEGIN);
  assert.deepEqual(decodeCommit(encodeMessage(COMMIT)), COMMIT);
  assert.throws(() => decodeBegin(encodeMessage(COMMIT)), isProtocolError);
  assert.throws(() => decodeCommit(encodeMessage(BEGIN)), isProtocolError);
  assert.throws(() => decodeCommit(Buffer.alloc(0)), isProtocolError);
});
