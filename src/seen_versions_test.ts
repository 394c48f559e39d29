import assert from "node:assert/strict";
import { toLsn } from "./lsn.ts";
import { NEVER, SeenVersions } from "./seen_versions.ts";

Deno.test("what a sender had of each node, and of all of them", () => {
  const first = SeenVersions.NOTHING.with([
    { node: "a", position: toLsn(10n), timestamp: 100n },
    { node: "b", position: toLsn(7n), timestamp: NEVER },
  ]);
  const second = first.with([{ node: "b", position: toLsn(20n), timestamp: 50n }]);
  assert.equal(first.before("a"), 100n);
  assert.equal(first.before("b"), undefined);
  assert.equal(first.before("c"), undefined);
  assert.equal(second.before("b"), 50n);
  assert.equal(first.lowerBound(["a", "b"]), undefined);
  assert.equal(second.lowerBound(["a", "b"]), 50n);
  assert.equal(second.lowerBound(["a"]), 100n);
  assert.equal(second.lowerBound(["a", "c"]), undefined);
  assert.deepEqual([...second.causes()].map(({ node, position }) => [node, position]), [["a", 10n], [
    "b",
    20n,
  ]]);
});
