import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { encodeMessage } from "../../tests/support/pgoutput_encode.ts";
import { MmliteError } from "../errors.ts";
import { toLsn } from "../lsn.ts";
import type { Begin, Commit, Message } from "./message.ts";
import { decodeBegin, decodeCommit, MESSAGE_TYPE, messageType, relationIdOf } from "./peek.ts";

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

Deno.test("decodeBegin and decodeCommit take their own message and no other", () => {
  assert.deepEqual(decodeBegin(encodeMessage(BEGIN)), BEGIN);
  assert.deepEqual(decodeCommit(encodeMessage(COMMIT)), COMMIT);
  assert.throws(() => decodeBegin(encodeMessage(COMMIT)), isProtocolError);
  assert.throws(() => decodeCommit(encodeMessage(BEGIN)), isProtocolError);
  assert.throws(() => decodeCommit(Buffer.alloc(0)), isProtocolError);
});

Deno.test("relationIdOf reads the relation of rows and relations without their rest", () => {
  const about: Message[] = [
    { kind: "insert", relationId: 0xf0000001, newTuple: [{ kind: "null" }] },
    { kind: "update", relationId: 0xf0000001, newTuple: [{ kind: "null" }] },
    { kind: "delete", relationId: 0xf0000001, oldKey: [{ kind: "null" }] },
    {
      kind: "relation",
      relationId: 0xf0000001,
      schema: "a",
      name: "b",
      replicaIdentity: "full",
      columns: [],
    },
  ];
  for (const message of about) {
    const bytes = encodeMessage(message);
    assert.equal(relationIdOf(bytes), 0xf0000001);
    assert.throws(() => relationIdOf(bytes.subarray(0, 4)), isProtocolError);
  }
  assert.throws(() => relationIdOf(encodeMessage(BEGIN)), isProtocolError);
  assert.throws(() => relationIdOf(Buffer.alloc(0)), isProtocolError);
});
