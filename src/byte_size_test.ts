import assert from "node:assert/strict";
import { formatByteSize, parseByteSize } from "./byte_size.ts";

Deno.test("amounts of bytes are those of PostgreSQL's settings, and nothing else", () => {
  assert.deepEqual(["1kB", "16MB", "10GB", "2TB"].map(parseByteSize), [
    1024,
    16 * 1024 ** 2,
    10 * 1024 ** 3,
    2 * 1024 ** 4,
  ]);
  for (const text of ["0MB", "10", "1.5GB", "-1MB", "10gb", "10 GB", "", "999999999TB"]) {
    assert.equal(parseByteSize(text), null, text);
  }
  assert.deepEqual([512, 1536, 20 * 1024 ** 2, 10 * 1024 ** 3].map(formatByteSize), [
    "512 bytes",
    "1.5 kB",
    "20 MB",
    "10 GB",
  ]);
});
