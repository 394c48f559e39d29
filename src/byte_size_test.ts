import assert from "node:assert/strict";
import { formatByteSize, parseByteSize } from "./byte_size.ts";

Deno.test("amounts of bytes are those of PostgreSQL's settings, with either spelling of the unit", () => {
  const amounts: Record<string, number> = {
    ...{ "1kB": 1024, "16MB": 16 * 1024 ** 2, "10GB": 10 * 1024 ** 3, "2TB": 2 * 1024 ** 4 },
    ...{ "512KiB": 524_288, "20MiB": 20_971_520, "1.5kB": 1_536 },
  };
  for (const [text, bytes] of Object.entries(amounts)) assert.equal(parseByteSize(text), bytes, text);
  const wrong = ["", "10", "MiB", "0MB", "-1MB", "10gb", "10 GB", "1KB", "kiB", "1.MB", "1MiB/s"];
  for (const text of [...wrong, "999999999TB"]) assert.equal(parseByteSize(text), null, text);
});

Deno.test("amounts are shown with few digits", () => {
  assert.deepEqual([512, 1536, 20 * 1024 ** 2, 10 * 1024 ** 3].map(formatByteSize), [
    "512 bytes",
    "1.5 kB",
    "20 MB",
    "10 GB",
  ]);
});
