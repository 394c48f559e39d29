import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { type Lsn, toLsn } from "../lsn.ts";
import type { Message } from "../pgoutput/message.ts";
import { batchOf, messagesOf } from "../../tests/support/message_batch.ts";
import { encodeMessage } from "../../tests/support/pgoutput_encode.ts";
import { TransactionFilter } from "./filter.ts";

const lsn = (value: number): Lsn => toLsn(BigInt(value));
const begin = (at: number): Message => ({ kind: "begin", commitLsn: lsn(at), commitTimestamp: 0n, xid: at });
const commit = (at: number): Message => ({
  kind: "commit",
  commitLsn: lsn(at),
  endLsn: lsn(at + 1),
  commitTimestamp: 0n,
});
const origin: Message = { kind: "origin", originLsn: lsn(1), name: "mmlite_b" };
const unnamedOrigin: Message = { kind: "unnamed_origin" };
const streamAbort: Message = { kind: "stream_abort" };
const type: Message = { kind: "type", typeOid: 16_400, schema: "public", name: "mood" };
const note: Message = {
  kind: "message",
  transactional: true,
  lsn: lsn(1),
  prefix: "x",
  content: new Uint8Array(),
};
const relation = (relationId: number, name = "t"): Message => ({
  kind: "relation",
  relationId,
  schema: "public",
  name,
  replicaIdentity: "default",
  columns: [],
});
const insert = (relationId: number): Message => ({ kind: "insert", relationId, newTuple: [] });

function filter(messages: Message[], batch = messages.length) {
  const encoded = messages.map(encodeMessage);
  const transactions = new TransactionFilter();
  const kept: Buffer[] = [];
  const ended = { local: 0, foreign: 0, empty: 0 };
  for (let at = 0; at < encoded.length; at += batch) {
    const given = encoded.slice(at, at + batch);
    const filtered = transactions.push(batchOf(given));
    kept.push(...messagesOf(filtered.messages).map((message) => Buffer.from(message)));
    // What they came in is used again.
    for (const bytes of given) bytes.fill(0xff);
    ended.local += filtered.local;
    ended.foreign += filtered.foreign;
    ended.empty += filtered.empty;
  }
  return { kept, ended, transactions };
}

function assertKept(messages: Message[], expected: Message[]): void {
  for (const batch of [messages.length, 1]) {
    assert.deepEqual(filter(messages, batch).kept, expected.map(encodeMessage));
  }
}

Deno.test("a local transaction passes whole", () => {
  const messages = [begin(1), relation(7), insert(7), insert(7), commit(1)];
  assertKept(messages, messages);
});

Deno.test("a transaction with an origin is dropped, named or not", () => {
  for (const mark of [origin, unnamedOrigin]) {
    const local = [begin(5), insert(7), commit(5)];
    assertKept([begin(1), mark, insert(7), commit(1), ...local], local);
  }
});

Deno.test("a transaction without a change is dropped, and so are logical messages and stream aborts", () => {
  assertKept([begin(1), commit(1), streamAbort, begin(2), note, commit(2)], []);
  const { ended, transactions } = filter([begin(1), commit(1), begin(5), origin, insert(1), commit(5)]);
  assert.deepEqual(ended, { local: 0, foreign: 1, empty: 1 });
  assert.equal(transactions.droppedEndLsn, lsn(6));
});

Deno.test("what a dropped transaction announced goes out with the next kept one, its last word only", () => {
  assertKept(
    [
      ...[begin(1), origin, type, relation(7, "old"), insert(7), commit(1)],
      ...[begin(2), origin, relation(8), insert(8), relation(7, "new"), insert(7), commit(2)],
      ...[begin(3), relation(9), insert(7), relation(10), insert(10), commit(3)],
      ...[begin(4), insert(7), commit(4)],
    ],
    [
      ...[begin(3), type, relation(8), relation(7, "new"), relation(9), insert(7), relation(10), insert(10)],
      ...[commit(3), begin(4), insert(7), commit(4)],
    ],
  );
});

Deno.test("a long transaction is passed on as it comes, and its end is told once", () => {
  const transactions = new TransactionFilter();
  const push = (message: Message) => transactions.push(batchOf([encodeMessage(message)]));
  assert.equal(push(begin(1)).messages.length, 0);
  assert.equal(push(insert(7)).messages.length, 2);
  assert.equal(push(insert(7)).endLsn, null);
  assert.equal(transactions.isBetween, false);
  assert.equal(push(commit(1)).endLsn, lsn(2));
  assert.equal(transactions.isBetween, true);
});

Deno.test("messages in an impossible order are a protocol error", () => {
  const wrong = [[insert(7)], [commit(1)], [begin(1), begin(2)], [begin(1), insert(7), origin], [
    unnamedOrigin,
  ]];
  for (const messages of wrong) {
    assert.throws(() => filter(messages), { name: "MmliteError", kind: "protocol" });
  }
});
