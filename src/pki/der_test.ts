import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { readElements } from "./der.ts";

function elements(hex: string): [number, string][] {
  return readElements(Buffer.from(hex, "hex")).map(({ tag, contents }) => [tag, contents.toString("hex")]);
}

Deno.test("elements have a tag, a length of one or more bytes, and contents", () => {
  assert.deepEqual(elements(""), []);
  assert.deepEqual(elements("0500" + "020107" + "86026162"), [[5, ""], [2, "07"], [0x86, "6162"]]);
  assert.deepEqual(elements("048180" + "ab".repeat(128)), [[4, "ab".repeat(128)]]);
  assert.deepEqual(elements("04820100" + "ab".repeat(256)), [[4, "ab".repeat(256)]]);
});

Deno.test("what ends too early, or has a length of no usual form, is a RangeError", () => {
  for (const hex of ["04", "0401", "0481", "048201", "048102ab", "0480", "0484000000010a", "04ffffffff"]) {
    assert.throws(() => elements(hex), RangeError, hex);
  }
});

Deno.test("any bytes are read or refused", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
    try {
      readElements(Buffer.from(bytes));
    } catch (error) {
      assert(error instanceof RangeError, String(error));
    }
  }));
});
