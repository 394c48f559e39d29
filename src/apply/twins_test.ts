import assert from "node:assert/strict";
import type { TargetRelation } from "./target_relation.ts";
import { type PossibleTwin, Twins } from "./twins.ts";

/** A target of which nothing is looked at. */
const target = () => ({}) as TargetRelation;

const row = (target: TargetRelation, transaction: number): PossibleTwin => ({
  ...{ target, change: "insert", key: [], transaction },
});

function open() {
  const done: [string, unknown][] = [];
  const twins = new Twins({
    lookForOthers: (target) => done.push(["others", target]),
    settle: ({ transaction }) => done.push(["settle", transaction]),
    leave: ({ transaction }) => done.push(["leave", transaction]),
  });
  return { twins, done };
}

Deno.test("it is looked once for each table who else writes, before its rows are settled", () => {
  const { twins, done } = open();
  const [a, b] = [target(), target()];
  twins.add(row(a, 0));
  twins.add(row(b, 1));
  twins.add(row(a, 2));
  twins.bound();
  twins.settleAll();
  assert.equal(done[0][1], a);
  assert.equal(done[3][1], b);
  assert.deepEqual(done.map(([what]) => what), ["others", "settle", "settle", "others", "settle"]);
  assert.deepEqual(done.filter(([what]) => what === "settle").map(([, which]) => which), [0, 2, 1]);
  twins.settleAll();
  assert.equal(done.length, 5);
});

Deno.test("rows of a long transaction are left for after the commit", () => {
  const { twins, done } = open();
  const of = target();
  for (let i = 0; i < 0x1_0000; i++) {
    twins.bound();
    assert.equal(done.length, 0);
    twins.add(row(of, i));
  }
  twins.bound();
  assert.equal(done.length, 0x1_0000);
  assert.ok(done.every(([what, which], i) => what === "leave" && which === i));
  twins.add(row(of, 0x1_0000));
  twins.settleAll();
  assert.deepEqual(done.slice(0x1_0000), [["others", of], ["settle", 0x1_0000]]);
});
