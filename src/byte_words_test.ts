import assert from "node:assert/strict";
import fc from "fast-check";
import { copyWords, LastView } from "./byte_words.ts";

Deno.test("bytes are copied as they are, whatever their place and number", () => {
  fc.assert(fc.property(
    fc.uint8Array({ maxLength: 40 }),
    fc.nat(8),
    fc.nat(8),
    (bytes, start, at) => {
      const from = new Uint8Array(64);
      from.set(bytes, start);
      const to = new Uint8Array(64).fill(0xee);
      const expected = to.slice();
      expected.set(bytes, at);
      const end = copyWords(
        new LastView().of(from),
        start,
        start + bytes.length,
        new DataView(to.buffer),
        at,
      );
      assert.deepEqual([end, to], [at + bytes.length, expected]);
    },
  ));
});

Deno.test("a view is of the bytes that are asked for, where they begin in their buffer", () => {
  const view = new LastView();
  const buffer = Uint8Array.of(1, 2, 3, 4, 5);
  assert.deepEqual(view.of(buffer).getUint8(0), 1);
  assert.deepEqual(view.of(buffer.subarray(2)).getUint8(0), 3);
  assert.deepEqual(view.of(buffer.subarray(2)).byteLength, 3);
});
