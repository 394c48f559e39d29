import assert from "node:assert/strict";
import { parseDuration, parseShortDuration } from "./duration.ts";

Deno.test("durations have a number and a unit", () => {
  const good: [string, number][] = [["1s", 1], ["90s", 90], ["30m", 1800], ["1h", 3600], ["7d", 604_800]];
  for (const [text, seconds] of good) assert.equal(parseDuration(text), seconds);
  for (const text of ["", "1", "h", "0s", "-1h", "1.5h", "1 h", "1w", "9999999999s"]) {
    assert.equal(parseDuration(text), null);
  }
});

Deno.test("short durations are milliseconds, none at all too", () => {
  const good = [["0s", 0], ["0ms", 0], ["500ms", 500], ["5s", 5_000], ["10m", 600_000]] as const;
  for (const [text, ms] of good) assert.equal(parseShortDuration(text), ms);
  for (const text of ["", "5", "s", "5 s", "-5s", "1.5s", "1h", "5S", "9999999999s"]) {
    assert.equal(parseShortDuration(text), null);
  }
});
