import assert from "node:assert/strict";
import { parseDuration } from "./duration.ts";

Deno.test("durations have a number and a unit", () => {
  const good: [string, number][] = [["1s", 1], ["90s", 90], ["30m", 1800], ["1h", 3600], ["7d", 604_800]];
  for (const [text, seconds] of good) assert.equal(parseDuration(text), seconds);
  for (const text of ["", "1", "h", "0s", "-1h", "1.5h", "1 h", "1w", "9999999999s"]) {
    assert.equal(parseDuration(text), null);
  }
});
