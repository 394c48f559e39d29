import assert from "node:assert/strict";
import type { CatchUp } from "./catch_up.ts";
import { summariseCatchUp, summariseSteady } from "./results.ts";
import type { RivalName } from "./rival.ts";
import type { Steady } from "./steady.ts";

const processorTime = { publisher: 1, subscriber: 2, sender: 3, receiver: 4 };

function caughtUp(rival: RivalName, pair: number, rate: number): CatchUp {
  return { rival, pair, rate, processorTime, peakMemory: rival === "mmlite" ? pair : null, equal: true };
}

Deno.test("ratios are taken pair by pair, and the ratio is their median", () => {
  const runs = [
    ...[caughtUp("builtin", 0, 100), caughtUp("mmlite", 0, 150)],
    ...[caughtUp("builtin", 1, 10), caughtUp("mmlite", 1, 12)],
    ...[caughtUp("builtin", 2, 100), caughtUp("mmlite", 2, 90)],
  ];
  const result = summariseCatchUp("oltp-n", runs);
  assert.equal(result.ratio, 1.2);
  assert.deepEqual(result.spread, { min: 0.9, max: 1.5 });
  assert.equal(result.builtin.median, 100);
  assert.equal(result.mmlite.peak_memory_bytes, 2);
  assert.equal(result.builtin.peak_memory_bytes, null);
  assert.equal("ratio_unix" in result, false);
});

Deno.test("of lags the shorter is the better: half of the built-in's is a ratio of 2", () => {
  const steady = (rival: RivalName, p99: number): Steady => {
    const fixed = { pair: 0, rate: 200, achievedRate: 200, p50: 1, p999: 9, equal: true, peakMemory: null };
    return { ...fixed, rival, p99, processorTime };
  };
  const result = summariseSteady("mixed-small-200", [steady("builtin", 4), steady("mmlite", 2)]);
  assert.equal(result.ratio, 2);
  assert.equal(result.mmlite.p99, 2);
  assert.equal(result.mmlite.unit, "ms p99");
});
