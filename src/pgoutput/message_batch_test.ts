import assert from "node:assert/strict";
import fc from "fast-check";
import { MessageBatch } from "./message_batch.ts";

Deno.test("messages come out of a batch in order, each in the bytes and at the place where it went in", () => {
  const place = fc.tuple(fc.nat(40), fc.nat(40), fc.nat(2));
  fc.assert(fc.property(fc.array(place), (places) => {
    const chunks = [0, 1, 2].map((chunk) => Uint8Array.from({ length: 40 }, (_, at) => 100 * chunk + at));
    const batch = new MessageBatch();
    const added = places.map(([a, b, chunk]) => ({
      bytes: chunks[chunk],
      start: Math.min(a, b),
      end: Math.max(a, b),
    }));
    for (const { bytes, start, end } of added) batch.add(bytes, start, end);
    assert.equal(batch.length, added.length);
    assert.equal(batch.byteLength, added.reduce((sum, { start, end }) => sum + end - start, 0));
    for (const [index, { bytes, start, end }] of added.entries()) {
      assert.equal(batch.bytes(index), bytes);
      assert.deepEqual([batch.start(index), batch.end(index)], [start, end]);
    }
  }));
});

Deno.test("bytes without a place are a message as a whole, the empty one too", () => {
  const batch = new MessageBatch();
  for (const bytes of [Uint8Array.of(1, 2), new Uint8Array()]) batch.add(bytes);
  assert.deepEqual([batch.start(0), batch.end(0), batch.start(1), batch.end(1)], [0, 2, 0, 0]);
  assert.equal(batch.byteLength, 2);
});
