import assert from "node:assert/strict";
import { type Lsn, toLsn, ZERO_LSN } from "../lsn.ts";
import type { Message } from "../pgoutput/message.ts";
import type { ReplicationBatch, ReplicationStream } from "../pg/walsender_stream.ts";
import { batchOf, messagesOf } from "../../tests/support/message_batch.ts";
import { encodeMessage } from "../../tests/support/pgoutput_encode.ts";
import type { SourceBatch } from "../pgoutput/source.ts";
import { SlotSource } from "./source.ts";

const lsn = (value: number): Lsn => toLsn(BigInt(value));

function transaction(at: number, foreign = false): Message[] {
  return [
    { kind: "begin", commitLsn: lsn(at), commitTimestamp: 0n, xid: 1 },
    ...(foreign ? [{ kind: "origin", originLsn: ZERO_LSN, name: "b" } as const] : []),
    { kind: "insert", relationId: 1, newTuple: [] },
    { kind: "commit", commitLsn: lsn(at), endLsn: lsn(at), commitTimestamp: 0n },
  ];
}

/** A source over a scripted stream; `next` reads one step of it, `flushed` is what the slot was confirmed to. */
function scripted(steps: { messages?: Message[]; keepalive?: number }[], startLsn = 10) {
  const confirmed: Lsn[] = [];
  const script = steps.map(({ messages = [], keepalive = 0 }): ReplicationBatch => ({
    messages: batchOf(messages.map(encodeMessage)),
    keepaliveLsn: lsn(keepalive),
  }));
  const stream: ReplicationStream = {
    read: () => {
      const batch = script.shift();
      return batch === undefined ? Promise.reject(new Error("end of script")) : Promise.resolve(batch);
    },
    confirm: (flushLsn) => void confirmed.push(flushLsn),
    close: () => Promise.resolve(),
  };
  const source = new SlotSource(stream, { startLsn: lsn(startLsn), flushLsn: lsn(10) });
  const batches = source.batches()[Symbol.asyncIterator]();
  const first = batches.next();
  const next = async () => {
    await first;
    return (await batches.next()).value as SourceBatch;
  };
  return { source, first, next, flushed: () => confirmed.at(-1) };
}

Deno.test("with nothing un-acked the slot follows keepalives and dropped transactions", async () => {
  const { next, flushed } = scripted([
    { keepalive: 20 },
    { messages: transaction(30, true), keepalive: 20 },
    { keepalive: 40 },
  ]);
  await next();
  assert.equal(flushed(), lsn(20));
  await next();
  assert.equal(flushed(), lsn(30));
  const batch = await next();
  assert.equal(flushed(), lsn(40));
  assert.deepEqual({ ...batch, messages: messagesOf(batch.messages) }, {
    messages: [],
    endLsn: null,
    walEnd: lsn(40),
  });
});

Deno.test("while a transaction is un-acked the slot stays, and then catches up", async () => {
  const { source, next, flushed } = scripted([
    { messages: transaction(20) },
    { messages: transaction(30) },
    { messages: transaction(40, true), keepalive: 50 },
  ]);
  await next();
  await next();
  await next();
  assert.equal(flushed(), lsn(10));
  source.confirm(lsn(20));
  assert.equal(flushed(), lsn(20));
  source.confirm(lsn(30));
  assert.equal(flushed(), lsn(50));
  source.confirm(lsn(20));
  assert.equal(flushed(), lsn(50));
});

Deno.test("what the peer holds at the start is confirmed only once it is acked", async () => {
  const { source, next, flushed } = scripted([{ keepalive: 20 }], 15);
  await next();
  assert.equal(flushed(), lsn(10));
  source.confirm(lsn(15));
  assert.equal(flushed(), lsn(20));
});

Deno.test("a keepalive inside a transaction moves nothing", async () => {
  const [begin, insert, commit] = transaction(30);
  const { source, next, flushed } = scripted([
    { messages: [begin, insert], keepalive: 29 },
    { messages: [commit], keepalive: 29 },
  ]);
  assert.equal((await next()).endLsn, null);
  assert.equal(flushed(), lsn(10));
  assert.equal((await next()).endLsn, lsn(30));
  assert.equal(flushed(), lsn(10));
  source.confirm(lsn(30));
  assert.equal(flushed(), lsn(30));
});

Deno.test("what the peer holds, and what the slot is confirmed to, is passed from the beginning", async () => {
  for (const [startLsn, walEnd] of [[5, 10], [15, 15]]) {
    const { first } = scripted([], startLsn);
    const { messages, ...rest } = (await first).value;
    assert.equal(messages.length, 0);
    assert.deepEqual(rest, { endLsn: null, walEnd: lsn(walEnd) });
  }
});
