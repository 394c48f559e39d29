import assert from "node:assert/strict";
import fc from "fast-check";
import { BACKEND_MESSAGE, decodeServerReport, MessageChunks } from "./copy_both.ts";

interface Seen {
  readonly type: number;
  readonly body: number[];
}

function encode(type: number, body: readonly number[]): number[] {
  const length = body.length + 4;
  return [type, length >>> 24, (length >>> 16) & 0xff, (length >>> 8) & 0xff, length & 0xff, ...body];
}

function cut(pieces: readonly Uint8Array[]): Seen[] {
  const seen: Seen[] = [];
  const chunks = new MessageChunks((type, bytes, start, end) =>
    seen.push({ type, body: [...bytes.subarray(start, end)] })
  );
  for (const piece of pieces) chunks.push(piece);
  return seen;
}

Deno.test("a stream chopped at any two places gives the same messages", () => {
  const messages: Seen[] = [
    { type: 0x64, body: [1, 2, 3] },
    { type: 0x64, body: [] },
    { type: 0x4e, body: Array.from({ length: 300 }, (_, i) => i & 0xff) },
    { type: 0x64, body: [9] },
  ];
  const bytes = Uint8Array.from(messages.flatMap(({ type, body }) => encode(type, body)));
  let seen: Seen[] = [];
  const chunks = new MessageChunks((type, bytes, start, end) =>
    seen.push({ type, body: [...bytes.subarray(start, end)] })
  );
  for (let a = 0; a <= bytes.length; a++) {
    for (let b = a; b <= bytes.length; b++) {
      for (const piece of [bytes.subarray(0, a), bytes.subarray(a, b), bytes.subarray(b)]) chunks.push(piece);
      assert.deepEqual(seen, messages);
      seen = [];
      chunks.close();
      chunks.reuse();
    }
  }
});

Deno.test("any messages in any chunks come out as they went in", () => {
  const message = fc.tuple(fc.integer({ min: 1, max: 255 }), fc.array(fc.nat(255), { maxLength: 40 }))
    .map(([type, body]): Seen => ({ type, body }));
  fc.assert(fc.property(fc.array(message), fc.array(fc.nat(30)), (messages, sizes) => {
    const bytes = Uint8Array.from(messages.flatMap(({ type, body }) => encode(type, body)));
    const chunks: Uint8Array[] = [];
    let at = 0;
    for (const size of sizes) chunks.push(bytes.subarray(at, at += size));
    chunks.push(bytes.subarray(at));
    assert.deepEqual(cut(chunks), messages);
  }));
});

/** A message that can be told from any other: its body has its number, and then its size, over and over. */
function numbered(number: number, size: number): Uint8Array {
  const body = new Uint32Array(size).fill(size);
  body[0] = number;
  return Uint8Array.from([0x64, ...lengthOf(4 * size), ...new Uint8Array(body.buffer)]);
}

function lengthOf(body: number): number[] {
  const length = body + 4;
  return [length >>> 24, (length >>> 16) & 0xff, (length >>> 8) & 0xff, length & 0xff];
}

Deno.test("what was handed on stays as it was until it is given back, and chunks are used again", () => {
  // In numbers of four bytes; the largest needs a chunk of its own.
  const sizes = [1, 2, 700, 20_000, 3, 15_999, 90_000, 5];
  const buffers = new Set<ArrayBufferLike>();
  type Held = { bytes: Uint8Array; start: number; end: number; number: number; size: number };
  let [held, taken]: [Held[], Held[]] = [[], []];
  let [number, seen] = [0, 0];
  const chunks = new MessageChunks((type, bytes, start, end) => {
    assert.equal(type, 0x64);
    held.push({ bytes, start, end, number: seen, size: sizes[seen++ % sizes.length] });
    if (bytes.length <= 0x4_0000) buffers.add(bytes.buffer);
  });
  for (let round = 0; round < 100; round++) {
    for (const size of sizes) {
      const message = numbered(number++, size);
      // As a socket does it, in reads of whatever there is room for.
      for (let at = 0; at < message.length;) {
        const room = chunks.room();
        assert(room.length > 0);
        const length = Math.min(room.length, message.length - at, 1 + ((number * 7919 + at) % 60_000));
        room.set(message.subarray(at, at + length));
        chunks.take(length);
        at += length;
      }
    }
    // Of what was taken away all is as it came, though as much has come since.
    for (const { bytes, start, end, number, size } of taken) {
      const body = new Uint32Array(bytes.slice(start, end).buffer);
      assert.equal(body.length, size);
      assert.equal(body[0], number);
      assert(body.subarray(1).every((one) => one === size));
    }
    chunks.reuse();
    chunks.close();
    taken = held;
    held = [];
  }
  assert.equal(seen, 100 * sizes.length);
  assert(buffers.size < 12, `${buffers.size} chunks`);
});

Deno.test("a long message has a chunk of exactly its size", () => {
  let length = 0;
  const chunks = new MessageChunks((_type, bytes) => length = bytes.length);
  const long = numbered(0, 200_000);
  for (let at = 0; at < long.length; at += 60_000) chunks.push(long.subarray(at, at + 60_000));
  assert.equal(length, long.length);
});

Deno.test("an impossible length is a protocol error", () => {
  for (const length of [[0, 0, 0, 3], [0xff, 0xff, 0xff, 0xff], [0x50, 0, 0, 0]]) {
    assert.throws(() => cut([Uint8Array.from([0x64, ...length, 0])]), /message 0x64 has length/);
    assert.throws(() => cut([Uint8Array.from([0x64]), Uint8Array.from([...length])]), /has length/);
  }
});

Deno.test("an error response gives severity, SQLSTATE and message, and never the detail", () => {
  const text = "SFEHLER\0VERROR\0C55006\0Mslot is active\0Dsecret\0\0";
  const report = decodeServerReport(new TextEncoder().encode(text));
  assert.deepEqual(report, { severity: "ERROR", code: "55006", message: "slot is active" });
  assert.deepEqual(decodeServerReport(Uint8Array.from([BACKEND_MESSAGE.copyData])), {
    severity: "",
    code: "",
    message: "",
  });
});
