import assert from "node:assert/strict";
import { allowedCompressions, offeredCompressions } from "./compression.ts";

Deno.test("by itself everything is offered but to this machine, and everything is taken", () => {
  assert.deepEqual(offeredCompressions("auto", "fra.example:7432"), ["zstd", "gzip"]);
  assert.deepEqual(offeredCompressions("auto", "[2001:db8::1]:7432"), ["zstd", "gzip"]);
  for (const remote of ["127.0.0.1:7432", "127.8.0.1:7432", "[::1]:7432", "localhost:7432"]) {
    assert.deepEqual(offeredCompressions("auto", remote), [], remote);
  }
  assert.deepEqual(allowedCompressions("auto"), ["zstd", "gzip"]);
});

Deno.test("what the operator names is all that is offered and taken, on this machine too", () => {
  for (const setting of ["zstd", "gzip"] as const) {
    assert.deepEqual(offeredCompressions(setting, "127.0.0.1:7432"), [setting]);
    assert.deepEqual(allowedCompressions(setting), [setting]);
  }
  assert.deepEqual(offeredCompressions("off", "fra.example:7432"), []);
  assert.deepEqual(allowedCompressions("off"), []);
});
