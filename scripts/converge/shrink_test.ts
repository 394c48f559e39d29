import assert from "node:assert/strict";
import { rowKey } from "./model.ts";
import { type Operation, type Plan, planSeed } from "./plan.ts";
import { halved, oneClientEach, onKeys, shrink, sizeOf, withoutFaults } from "./shrink.ts";

const PLAN = planSeed(1, {
  apart: false,
  updatesOnly: false,
  builtin: false,
  skew: false,
});
const KEY = rowKey("plain", "1");

function operationsOf({ nodes }: Plan): Operation[] {
  return nodes.flatMap(({ clients }) => clients.flat().flatMap(({ operations }) => operations));
}

Deno.test("A plan on one key keeps what touches it, and nothing else", () => {
  const isOnKey = (operation: Operation) =>
    operation.table === "plain" &&
    (operation.kind === "truncate" || operation.key[0] === "1" ||
      (operation.kind === "change_key" && operation.to[0] === "1"));
  const expected = operationsOf(PLAN).filter(isOnKey);
  assert(expected.length > 0);
  assert.deepEqual(operationsOf(onKeys(PLAN, [KEY])), expected);
});

Deno.test("Every reduction makes a plan smaller", () => {
  for (const reduce of [withoutFaults, halved, oneClientEach]) assert(sizeOf(reduce(PLAN)) < sizeOf(PLAN));
});

Deno.test("What is not needed for a bad outcome goes", async () => {
  // It goes wrong as long as anything touches the key.
  const run = (plan: Plan) => Promise.resolve(sizeOf(onKeys(plan, [KEY])) > plan.faults.length ? [KEY] : []);
  const { plan } = await shrink({ plan: PLAN, outcome: [KEY] }, { run, keysOf: (keys) => keys });
  assert(plan.faults.every(({ forMs }) => forMs === Infinity));
  assert(sizeOf(plan) < sizeOf(PLAN) / 10);
  assert.deepEqual(plan, onKeys(plan, [KEY]));
});

Deno.test("A plan that is good whenever it is smaller stays as it is", async () => {
  const run = (plan: Plan) => Promise.resolve(sizeOf(plan) < sizeOf(PLAN) ? [] : [KEY]);
  assert.equal((await shrink({ plan: PLAN, outcome: [KEY] }, { run, keysOf: (keys) => keys })).plan, PLAN);
});
