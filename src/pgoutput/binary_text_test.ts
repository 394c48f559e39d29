import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { MmliteError } from "../errors.ts";
import { BINARY_TYPES, binaryInteger, binaryText } from "./binary_text.ts";

Deno.test("integers are numbers as long as a double holds them", () => {
  const int8 = (value: bigint) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigInt64BE(value);
    return binaryInteger(20, bytes, 0, 8);
  };
  assert.equal(int8(2n ** 53n - 1n), 2 ** 53 - 1);
  assert.equal(int8(-(2n ** 53n)), -(2 ** 53));
  assert.equal(int8(2n ** 53n), undefined);
  assert.equal(int8(-(2n ** 53n) - 1n), undefined);
  assert.equal(binaryInteger(23, Buffer.from("abcd"), 0, 4), 0x61626364);
  assert.equal(binaryInteger(23, Buffer.from("abcde"), 0, 5), undefined);
  assert.equal(binaryInteger(25, Buffer.from("abcd"), 0, 4), undefined);
});

Deno.test("a long bytea is made in pieces", () => {
  const value = Buffer.alloc(2_500_000, 0xab);
  const text = Buffer.from(binaryText(17, value, 0, value.length));
  assert.equal(text.toString("latin1"), `\\x${value.toString("hex")}`);
});

Deno.test("bytes that are no value of the type are an error, whatever they are", () => {
  const isOurs = (error: unknown) => error instanceof MmliteError && error.kind === "protocol";
  assert.throws(() => binaryText(23, Buffer.from("abc"), 0, 3), isOurs);
  assert.throws(() => binaryText(3802, Buffer.from(""), 0, 0), isOurs);
  assert.throws(() => binaryText(1700, Buffer.from("0002000000000000", "hex"), 0, 8), isOurs);
  assert.throws(() => binaryText(1007, Buffer.from("abcd"), 0, 4), isOurs);
  fc.assert(fc.property(fc.constantFrom(...BINARY_TYPES), fc.uint8Array({ maxLength: 24 }), (type, bytes) => {
    try {
      binaryText(type, bytes, 0, bytes.length);
    } catch (thrown) {
      assert.ok(isOurs(thrown), String(thrown));
    }
  }));
});
