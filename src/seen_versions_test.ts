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

Deno.test("what a sender once had it still has, and where that ended is said anew", () => {
  const at = (node: string, timestamp: bigint) => ({ node, position: toLsn(9n), timestamp });
  const before = SeenVersions.NOTHING.with([at("a", 100n), at("b", 50n)]).times();
  assert.deepEqual([...before.causes()].map(({ position }) => position), [toLsn(0n), toLsn(0n)]);
  const now = before.with([at("a", NEVER), at("b", 60n), at("c", 7n)]);
  assert.deepEqual(["a", "b", "c"].map((node) => now.before(node)), [100n, 60n, 7n]);
  assert.deepEqual([...now.causes()].map(({ position }) => position), [toLsn(9n), toLsn(9n), toLsn(9n)]);
});
