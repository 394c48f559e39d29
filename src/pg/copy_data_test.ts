import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { BACKEND_MESSAGE } from "./copy_both.ts";
import { CopyDataReader } from "./copy_data.ts";

interface Message {
  readonly type: number;
  readonly body: number[];
}

function encode({ type, body }: Message): number[] {
  const length = body.length + 4;
  return [type, length >>> 24, (length >>> 16) & 0xff, (length >>> 8) & 0xff, length & 0xff, ...body];
}

/** Reads chunks; what is kept of them is looked at when all have come. */
function read(chunks: readonly Uint8Array[]) {
  const others: Message[] = [];
  const reader = new CopyDataReader((type, body) => others.push({ type, body: [...body] }));
  const pieces = chunks.map((chunk) => reader.push(Uint8Array.from(chunk)));
  return {
    bytes: [...Buffer.concat(pieces.map(({ bytes }) => bytes))],
    rows: pieces.reduce((sum, { rows }) => sum + rows, 0),
    others,
  };
}

function expected(messages: readonly Message[]) {
  const rows = messages.filter(({ type }) => type === BACKEND_MESSAGE.copyData);
  return {
    bytes: rows.flatMap(({ body }) => body),
    rows: rows.length,
    others: messages.filter(({ type }) => type !== BACKEND_MESSAGE.copyData),
  };
}

Deno.test("rows and other messages, chopped at any two places, come out as they went in", () => {
  const messages: Message[] = [
    { type: 0x48, body: [0, 0, 1, 0, 0] },
    { type: BACKEND_MESSAGE.copyData, body: [1, 2, 3] },
    { type: BACKEND_MESSAGE.copyData, body: [] },
    { type: BACKEND_MESSAGE.noticeResponse, body: [7, 8, 9, 10] },
    { type: BACKEND_MESSAGE.copyData, body: Array.from({ length: 40 }, (_, i) => i) },
    { type: BACKEND_MESSAGE.copyDone, body: [] },
    { type: BACKEND_MESSAGE.readyForQuery, body: [0x54] },
  ];
  const bytes = Uint8Array.from(messages.flatMap(encode));
  for (let a = 0; a <= bytes.length; a++) {
    for (let b = a; b <= bytes.length; b++) {
      const chunks = [bytes.subarray(0, a), bytes.subarray(a, b), bytes.subarray(b)];
      assert.deepEqual(read(chunks), expected(messages));
    }
  }
});

Deno.test("any rows and messages in any chunks come out as they went in", () => {
  const type = fc.constantFrom(BACKEND_MESSAGE.copyData, BACKEND_MESSAGE.copyData, 0x4e, 0x53);
  const message = fc.tuple(type, fc.array(fc.nat(255), { maxLength: 60 }))
    .map(([type, body]): Message => ({ type, body }));
  fc.assert(fc.property(fc.array(message), fc.array(fc.nat(50)), (messages, sizes) => {
    const bytes = Uint8Array.from(messages.flatMap(encode));
    const chunks: Uint8Array[] = [];
    let at = 0;
    for (const size of sizes) chunks.push(bytes.subarray(at, at += size));
    assert.deepEqual(read([...chunks, bytes.subarray(at)]), expected(messages));
  }));
});
