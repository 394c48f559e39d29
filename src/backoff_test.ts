import assert from "node:assert/strict";
import fc from "fast-check";
import { within } from "../tests/support/poll.ts";
import { BACKOFF_FIRST_MS, BACKOFF_LIMIT_MS, backoffMs, delay } from "./backoff.ts";

const HOUR_MS = 3_600_000;

Deno.test("backoffMs draws between zero and a ceiling that doubles up to the limit", () => {
  const attempt = fc.integer({ min: 0, max: 10_000 });
  const draw = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
  fc.assert(fc.property(attempt, draw, (attempt, drawn) => {
    const ms = backoffMs(attempt, () => drawn);
    assert(Number.isInteger(ms) && ms >= 0 && ms <= BACKOFF_LIMIT_MS);
    assert(ms <= BACKOFF_FIRST_MS * 2 ** attempt);
  }));
  const ceilings = [0, 1, 2, 5, 6, 1_000].map((attempt) => backoffMs(attempt, () => 1));
  assert.deepEqual(ceilings, [200, 400, 800, 6_400, BACKOFF_LIMIT_MS, BACKOFF_LIMIT_MS]);
  assert.equal(backoffMs(1_000, () => 0), 0);
});

Deno.test("delay ends on an abort, without throwing", async () => {
  const stop = new AbortController();
  const waiting = delay(HOUR_MS, stop.signal);
  stop.abort();
  await within("the delay to end", 5_000, waiting);
  await within("a delay that was aborted before", 5_000, delay(HOUR_MS, stop.signal));
});

Deno.test("delay waits at least its time", async () => {
  const startedAt = performance.now();
  await delay(20);
  // Timers count whole milliseconds.
  assert(performance.now() - startedAt >= 19);
});
