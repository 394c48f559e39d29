import assert from "node:assert/strict";
import { median, percentile } from "./statistics.ts";

Deno.test("the median of an even count lies between the two in the middle", () => {
  assert.equal(median([9, 1, 4]), 4);
  assert.equal(median([10, 1, 4, 2]), 3);
  assert.ok(Number.isNaN(median([])));
});

Deno.test("a percentile is one of the numbers", () => {
  const hundred = Array.from({ length: 100 }, (_, i) => 100 - i);
  assert.equal(percentile(hundred, 0.5), 50);
  assert.equal(percentile(hundred, 0.99), 99);
  assert.equal(percentile(hundred, 0.999), 100);
  assert.equal(percentile([7], 0), 7);
  assert.ok(Number.isNaN(percentile([], 0.5)));
});
