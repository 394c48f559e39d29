import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import type { Channel } from "./channel.ts";
import { Lines } from "./lines.ts";

/** A channel that receives the chunks given, and notes what is sent. */
function channelOf(chunks: readonly Uint8Array[]): Channel & { readonly sent: Uint8Array[] } {
  const sent: Uint8Array[] = [];
  return {
    ...{ remote: "127.0.0.1:1", peer: null, sent },
    incoming: (async function* () {
      yield* chunks;
    })(),
    write: (bytes) => Promise.resolve(void sent.push(bytes)),
    end: () => Promise.resolve(),
    destroy: () => {},
  };
}

async function readAll(text: string, size: number): Promise<unknown[]> {
  const bytes = Buffer.from(text);
  const chunks = Array.from(
    { length: Math.ceil(bytes.length / size) },
    (_, i) => bytes.subarray(i * size, (i + 1) * size),
  );
  const lines = new Lines(channelOf(chunks));
  try {
    const values: unknown[] = [];
    for (let value = await lines.read(); value !== undefined; value = await lines.read()) values.push(value);
    assert.equal(lines.bytes, bytes.length);
    return values;
  } finally {
    lines.close();
  }
}

Deno.test("values come out whole, however the bytes are cut, and heartbeats are none", async () => {
  const values = [{ a: "é\n" }, [1, null], "x".repeat(50)];
  const text = `\n${values.map((value) => JSON.stringify(value)).join("\n\n")}\n\n`;
  for (let size = 1; size <= text.length; size++) assert.deepEqual(await readAll(text, size), values);
});

Deno.test("what is no line of JSON is refused", async () => {
  for (const [text, why] of [["{\n", /no JSON/], ["{}\n[1", /does not end/]] as const) {
    await assert.rejects(readAll(text, 3), { kind: "protocol", message: why });
  }
});

Deno.test("a value goes out as one line", async () => {
  const channel = channelOf([]);
  const lines = new Lines(channel);
  await lines.write({ a: "b\nc" });
  lines.close();
  assert.deepEqual(channel.sent.map(String), ['{"a":"b\\nc"}\n']);
});
