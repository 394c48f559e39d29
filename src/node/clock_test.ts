import assert from "node:assert/strict";
import { parseTimestamp, unixMs } from "./clock.ts";

Deno.test("a stored time keeps its microseconds", () => {
  assert.equal(parseTimestamp("2000-01-01T00:00:01.000002Z"), 1_000_002n);
  assert.equal(unixMs(parseTimestamp("2026-11-28T07:00:00.123456Z")), Date.parse("2026-11-28T07:00:00.123Z"));
});
