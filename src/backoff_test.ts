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

Deno.test("backoffMs draws every wait up to the ceiling alike often: full jitter", () => {
  const draws = 20_000;
  for (const attempt of [0, 3, 1_000]) {
    const ceiling = backoffMs(attempt, () => 1);
    const tenths = new Array(10).fill(0);
    for (let i = 0; i < draws; i++) {
      tenths[Math.min(9, Math.floor(backoffMs(attempt) / ceiling * 10))]++;
    }
    // Ten standard deviations of a count of draws / 10, and the rounding of short waits.
    const spread = 10 * Math.sqrt(draws * 0.1 * 0.9) + draws * 0.5 / ceiling;
    for (const count of tenths) assert(Math.abs(count - draws / 10) < spread, `${attempt}: ${tenths}`);
  }
});

Deno.test("peers that lose a node at the same instant do not dial it again at the same instant", () => {
  const waits = Array.from({ length: 100 }, () => backoffMs(4));
  assert(new Set(waits).size > 80, `${waits}`);
  assert(Math.max(...waits) - Math.min(...waits) > 1_600);
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
