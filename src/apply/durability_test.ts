import assert from "node:assert/strict";
import { type Lsn, toLsn } from "../lsn.ts";
import { Durability } from "./durability.ts";

const lsn = (n: number): Lsn => toLsn(BigInt(n));

function open() {
  const acks: number[] = [];
  return { acks, durability: new Durability((endLsn) => acks.push(Number(endLsn))) };
}

Deno.test("a transaction is durable once the flush position has passed where the insert position stood", () => {
  const { acks, durability } = open();
  durability.note(lsn(10), { insertLsn: lsn(500), flushLsn: lsn(400) });
  assert.deepEqual(acks, []);
  assert.ok(durability.isWaiting);
  durability.note(lsn(20), { insertLsn: lsn(600), flushLsn: lsn(500) });
  assert.deepEqual(acks, [10]);
  durability.note(lsn(20), { insertLsn: lsn(700), flushLsn: lsn(599) });
  assert.deepEqual(acks, [10]);
  durability.note(lsn(20), { insertLsn: lsn(700), flushLsn: lsn(600) });
  assert.deepEqual(acks, [10, 20]);
  assert.ok(!durability.isWaiting);
});

Deno.test("one step tells of everything before it", () => {
  const { acks, durability } = open();
  for (let i = 1; i <= 5; i++) durability.note(lsn(i), { insertLsn: lsn(100 + i), flushLsn: lsn(0) });
  durability.note(lsn(5), { insertLsn: lsn(200), flushLsn: lsn(104) });
  assert.deepEqual(acks, [4]);
});

Deno.test("a disk that stands still costs no memory and no false ack", () => {
  const { acks, durability } = open();
  for (let i = 1; i <= 10_000; i++) durability.note(lsn(i), { insertLsn: lsn(i * 10), flushLsn: lsn(0) });
  durability.note(lsn(10_000), { insertLsn: lsn(100_000), flushLsn: lsn(99_999) });
  assert.ok(acks.every((ack) => ack * 10 <= 99_999));
  durability.note(lsn(10_000), { insertLsn: lsn(100_000), flushLsn: lsn(100_000) });
  assert.equal(acks.at(-1), 10_000);
});
