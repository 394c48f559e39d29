import assert from "node:assert/strict";
import fc from "fast-check";
import { BACKEND_MESSAGE, decodeServerReport, MessageFramer } from "./copy_both.ts";

interface Seen {
  readonly type: number;
  readonly body: number[];
}

function encode(type: number, body: readonly number[]): number[] {
  const length = body.length + 4;
  return [type, length >>> 24, (length >>> 16) & 0xff, (length >>> 8) & 0xff, length & 0xff, ...body];
}

function frame(chunks: readonly Uint8Array[]): Seen[] {
  const seen: Seen[] = [];
  const framer = new MessageFramer((type, bytes, start, end) =>
    seen.push({ type, body: [...bytes.subarray(start, end)] })
  );
  for (const chunk of chunks) framer.push(chunk);
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
  for (let a = 0; a <= bytes.length; a++) {
    for (let b = a; b <= bytes.length; b++) {
      assert.deepEqual(frame([bytes.subarray(0, a), bytes.subarray(a, b), bytes.subarray(b)]), messages);
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
    assert.deepEqual(frame(chunks), messages);
  }));
});

Deno.test("a message inside one chunk is not copied, a long one is gathered in exactly its size", () => {
  const buffers: ArrayBufferLike[] = [];
  const framer = new MessageFramer((_type, bytes) => buffers.push(bytes.buffer));
  const whole = Uint8Array.from(encode(0x64, [1, 2]));
  framer.push(whole);
  assert.equal(buffers[0], whole.buffer);
  const long = Uint8Array.from(encode(0x64, new Array(1000).fill(7)));
  for (let at = 0; at < long.length; at += 100) framer.push(long.slice(at, at + 100));
  assert.equal(buffers[1].byteLength, 1000);
});

Deno.test("an impossible length is a protocol error before anything is allocated", () => {
  for (const length of [[0, 0, 0, 3], [0xff, 0xff, 0xff, 0xff], [0x50, 0, 0, 0]]) {
    assert.throws(() => frame([Uint8Array.from([0x64, ...length, 0])]), /message 0x64 has length/);
    assert.throws(() => frame([Uint8Array.from([0x64]), Uint8Array.from([...length])]), /has length/);
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
