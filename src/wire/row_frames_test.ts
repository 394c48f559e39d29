/** Answers <-> bytes against `docs/PROTOCOL.md`, section 4.13: round trips, every cut, garbage. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import {
  decodeRowAnswer,
  decodeRowPiece,
  decodeWantRow,
  encodeRowAnswer,
  type RowAnswer,
} from "./row_frames.ts";

const ROW: RowAnswer = {
  kind: "row",
  at: -5n,
  node: "fra",
  columns: ["id", "größe", "none"],
  values: [Buffer.from("1"), Buffer.of(0xff, 0x00), null],
};

function plain(answer: RowAnswer): unknown {
  if (answer.kind !== "row") return answer;
  return { ...answer, values: answer.values.map((value) => value && [...value]) };
}

Deno.test("answers come back as they went", () => {
  for (const answer of [ROW, { kind: "none", at: 7n }, { kind: "withheld", at: 8n }] as const) {
    assert.deepEqual(plain(decodeRowAnswer(encodeRowAnswer(answer))), plain(answer));
  }
});

Deno.test("an answer that is cut off or too long is a protocol error", () => {
  const bytes = encodeRowAnswer(ROW);
  for (let length = 0; length < bytes.length; length++) {
    assert.throws(() => decodeRowAnswer(bytes.subarray(0, length)), { kind: "protocol" });
  }
  assert.throws(() => decodeRowAnswer(Buffer.concat([bytes, Buffer.of(0)])), { kind: "protocol" });
});

Deno.test("garbage is read or is a protocol error", () => {
  fc.assert(fc.property(fc.uint8Array({ minLength: 5, maxLength: 60 }), (bytes) => {
    for (const decode of [decodeRowAnswer, decodeRowPiece, decodeWantRow]) {
      try {
        decode(bytes);
      } catch (thrown) {
        assert.equal((thrown as { kind?: string }).kind, "protocol");
      }
    }
  }));
});
