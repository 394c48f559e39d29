import assert from "node:assert/strict";
import { parseByteSize } from "./byte_size.ts";

Deno.test("sizes have a number and a unit", () => {
  const good: [string, number][] = [["1B", 1], ["512KiB", 524_288], ["20MiB", 20_971_520], ["1GB", 1e9]];
  for (const [text, bytes] of [...good, ["1.5kB", 1_500]] as const) assert.equal(parseByteSize(text), bytes);
  for (
    const text of ["", "1", "MiB", "0MiB", "-1MB", "1 MB", "1mb", "1TB", "1.MB", "9999999999B", "1MiB/s"]
  ) {
    assert.equal(parseByteSize(text), null, text);
  }
});
