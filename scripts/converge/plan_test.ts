import assert from "node:assert/strict";
import {
  FAULT_KINDS,
  type Operation,
  OPERATION_WEIGHTS,
  type Plan,
  type PlanOptions,
  planSeed,
} from "./plan.ts";
import { keyText } from "./tables.ts";

const OPTIONS: PlanOptions = {
  apart: false,
  updatesOnly: false,
  builtin: false,
  skew: true,
};
const SEEDS = Array.from({ length: 60 }, (_, index) => index + 1);

function operationsOf(plan: Plan, place?: number): Operation[] {
  const nodes = place === undefined ? plan.nodes : [plan.nodes[place]];
  return nodes.flatMap(({ clients }) => clients.flat().flatMap(({ operations }) => operations));
}

Deno.test("A plan follows from its seed", () => {
  assert.deepEqual(planSeed(7, OPTIONS), planSeed(7, OPTIONS));
  assert.notDeepEqual(operationsOf(planSeed(7, OPTIONS)), operationsOf(planSeed(8, OPTIONS)));
});

Deno.test("The options leave the workload as it is", () => {
  for (const seed of SEEDS) {
    const plain = planSeed(seed, { ...OPTIONS, skew: false });
    const transactions = (plan: Plan) => plan.nodes.map(({ clients }) => clients);
    assert.deepEqual(transactions(planSeed(seed, OPTIONS)), transactions(plain));
    assert.deepEqual(transactions(planSeed(seed, { ...OPTIONS, builtin: true })), transactions(plain));
    assert.deepEqual(planSeed(seed, OPTIONS).faults, plain.faults);
  }
});

Deno.test("All kinds of operations and faults come, on three to five nodes", () => {
  const plans = SEEDS.map((seed) => planSeed(seed, OPTIONS));
  const kinds = new Set(plans.flatMap((plan) => operationsOf(plan).map(({ kind }) => kind)));
  assert.deepEqual([...kinds].sort(), Object.keys(OPERATION_WEIGHTS).sort());
  const faults = new Set(plans.flatMap(({ faults }) => faults.map(({ kind }) => kind)));
  assert.deepEqual([...faults].sort(), [...FAULT_KINDS].sort());
  assert.deepEqual([...new Set(plans.map(({ nodes }) => nodes.length))].sort(), [3, 4, 5]);
  assert(plans.some(({ nodes }) => nodes.some(({ serverSkewMs }) => serverSkewMs !== 0)));
});

Deno.test("A transaction has one to six operations and an id of its own", () => {
  for (const seed of SEEDS) {
    const all = planSeed(seed, OPTIONS).nodes.flatMap(({ clients }) => clients.flat());
    assert.equal(new Set(all.map(({ id }) => id)).size, all.length);
    for (const { operations } of all) assert(operations.length >= 1 && operations.length <= 6);
  }
});

Deno.test("Nodes that write apart share no key", () => {
  for (const seed of SEEDS) {
    const plan = planSeed(seed, { ...OPTIONS, apart: true });
    const writer = new Map<string, number>();
    for (const place of plan.nodes.keys()) {
      for (const operation of operationsOf(plan, place)) {
        assert(operation.kind !== "truncate");
        const keys = [operation.key, ...(operation.kind === "change_key" ? [operation.to] : [])];
        for (const key of keys.map((key) => `${operation.table} ${keyText(key)}`)) {
          assert.equal(writer.get(key) ?? place, place);
          writer.set(key, place);
        }
      }
    }
  }
});

Deno.test("PostgreSQL 10 does not truncate", () => {
  for (const seed of SEEDS) {
    const plan = planSeed(seed, OPTIONS);
    for (const [place, { major }] of plan.nodes.entries()) {
      if (major === 10) assert(operationsOf(plan, place).every(({ kind }) => kind !== "truncate"));
    }
  }
});

Deno.test("For the built-in subscription no mmlite is killed, and all servers are 18", () => {
  for (const seed of SEEDS) {
    const plan = planSeed(seed, { ...OPTIONS, builtin: true });
    assert(plan.faults.every(({ kind }) => kind !== "kill_mmlite"));
    assert(plan.nodes.every(({ major, serverSkewMs }) => major === 18 && serverSkewMs === 0));
  }
});

Deno.test("With updates only, the rows are there first", () => {
  const plan = planSeed(3, { ...OPTIONS, updatesOnly: true });
  const inserted = new Set(plan.prelude!.operations.map(({ table, ...rest }) => `${table} ${rest.kind}`));
  assert.deepEqual([...inserted].sort(), ["bulky insert", "heavy insert", "pair insert", "plain insert"]);
  const kinds = new Set(operationsOf(plan).map(({ kind }) => kind));
  assert.deepEqual([...kinds].sort(), ["increment", "update_body", "update_number", "update_row"]);
});
