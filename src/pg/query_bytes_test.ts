import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { BINARY_FORMAT, QueryBytes, TEXT_FORMAT } from "./query_bytes.ts";

/** What a body writes, in the chunks that are sent. */
function written(body: (bytes: QueryBytes) => void): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  const bytes = new QueryBytes((chunk) => chunks.push(chunk));
  body(bytes);
  bytes.finish();
  return chunks;
}

const text = (value: string) => Buffer.from(value, "utf8");

Deno.test("messages have the layout of the protocol", () => {
  const cases: [(bytes: QueryBytes) => void, string][] = [
    [(b) => b.parse({ name: "s", sql: "é", parameterTypes: [23] }), "50 0000000f 7300 c3a900 0001 00000017"],
    [
      (b) => b.bind("s", TEXT_FORMAT, [text("ab"), null, text("")]),
      "42 0000001d 00 7300 0001 0000 0003 00000002 6162 ffffffff 00000000 0000",
    ],
    [(b) => b.bind("", BINARY_FORMAT, []), "42 0000000e 00 00 0001 0001 0000 0000"],
    [(b) => b.execute(), "45 00000009 00 00000000"],
    [(b) => b.describe(), "44 00000006 50 00"],
    [(b) => b.close("s"), "43 00000007 53 7300"],
    [(b) => b.flush(), "48 00000004"],
    [(b) => b.sync(), "53 00000004"],
  ];
  for (const [body, hex] of cases) {
    assert.equal(Buffer.concat(written(body)).toString("hex"), hex.replaceAll(" ", ""));
  }
});

Deno.test("messages across chunks lose nothing, whatever their lengths", () => {
  const values = Array.from({ length: 400 }, (_, i) => new Uint8Array((i * 97) % 20_000).fill(i));
  const chunks = written((bytes) => {
    for (const value of values) bytes.bind("name", TEXT_FORMAT, [value]);
  });
  assert.ok(chunks.length > 50);
  const whole = Buffer.concat(chunks);
  let at = 0;
  for (const value of values) {
    assert.equal(whole[at], 0x42);
    const end = at + 1 + whole.readUInt32BE(at + 1);
    const start = end - 2 - value.length;
    assert.equal(whole.readInt32BE(start - 4), value.length);
    assert.ok(whole.subarray(start, end - 2).equals(value));
    at = end;
  }
  assert.equal(at, whole.length);
});

Deno.test("a long value is passed on without being copied", () => {
  const value = new Uint8Array(1_000_000);
  const chunks = written((bytes) => bytes.bind("s", TEXT_FORMAT, [value, text("after")]));
  assert.ok(chunks.some((chunk) => chunk.buffer === value.buffer && chunk.length === value.length));
});

Deno.test("a chunk is used again once the socket has let go of it, and not before", () => {
  const sent: Uint8Array[] = [];
  const bytes = new QueryBytes((chunk) => sent.push(chunk));
  const fill = () => {
    for (let i = 0; i < 10; i++) bytes.bind("s", TEXT_FORMAT, [new Uint8Array(10_000)]);
  };
  const memories = (chunks: readonly Uint8Array[]) => new Set(chunks.map((chunk) => chunk.buffer));
  fill();
  const [first] = sent;
  fill();
  assert.equal(memories(sent).size, sent.length, "each chunk in memory of its own");
  bytes.reclaim(first);
  sent.length = 0;
  fill();
  fill();
  assert.ok(memories(sent).has(first.buffer));
  assert.equal(memories(sent).size, sent.length);
});
