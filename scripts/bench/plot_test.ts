import assert from "node:assert/strict";
import { plotResults } from "./plot.ts";
import type { WorkloadResult } from "./results.ts";

const rival = { median: 100, unit: "changes/s", runs: [100], processor_seconds: {}, peak_memory_bytes: null };

function result(workload: string, spread: { min: number; max: number }, lags = {}): WorkloadResult {
  const [builtin, mmlite] = [{ ...rival, ...lags }, { ...rival, ...lags }];
  return { workload, ratio: 1.2, spread, equal: true, builtin, mmlite };
}

Deno.test("a plot names every workload and its ratio, with a whisker where runs differ", () => {
  const one = plotResults([result("wide & long", { min: 1.2, max: 1.2 })]);
  assert.match(one, />wide &amp; long</);
  assert.match(one, />1\.20</);
  const spread = plotResults([result("wide & long", { min: 1.1, max: 1.2 })]);
  assert.equal(spread.split("<path").length - one.split("<path").length, 3);
  assert.doesNotMatch(one, /NaN|undefined/);
});

Deno.test("lags stand below with both percentiles", () => {
  const lags = { p50: 0.5, p99: 2.25, p999: 3, achieved_rate: 1_000 };
  const plot = plotResults([result("mixed-small-1000", { min: 1, max: 2 }, lags)]);
  assert.match(plot, />1000 tx\/s</);
  assert.match(plot, />0\.5 \/ 2\.3 ms</);
});
