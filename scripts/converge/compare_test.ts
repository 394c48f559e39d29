import assert from "node:assert/strict";
import { checkLogs, compareRows, countUnequal, type HeldRow, type NodeState } from "./compare.ts";
import type { Committed } from "./model.ts";

const ROW = { row: "1/x", timestamp: "10", node: "a" };
const EXPECTED = new Map([["t\n1", ROW]]);

function state(node: string, rows: Record<string, HeldRow>, log: number[] = []): NodeState {
  return { node, rows: new Map(Object.entries(rows)), log, quarantined: 0 };
}

Deno.test("Nodes that hold the rows and versions of the model do not differ", () => {
  const unknownNode = { ...ROW, node: null };
  const states = [state("a", { "t\n1": ROW }), state("b", { "t\n1": unknownNode })];
  assert.deepEqual(compareRows(EXPECTED, states), []);
});

Deno.test("A row that is another, is missing or is too many differs", () => {
  const other = { ...ROW, row: "2/x" };
  const cases: Record<string, HeldRow>[] = [{ "t\n1": other }, {}, { "t\n1": ROW, "t\n2": ROW }];
  for (const rows of cases) {
    const [difference, ...more] = compareRows(EXPECTED, [state("a", { "t\n1": ROW }), state("b", rows)]);
    assert.equal(difference.kind, "row");
    assert.deepEqual(more, []);
  }
});

Deno.test("An equal row of another version differs in its version", () => {
  for (const other of [{ ...ROW, timestamp: "11" }, { ...ROW, node: "b" }, { ...ROW, timestamp: null }]) {
    const differences = compareRows(EXPECTED, [state("a", { "t\n1": other })]);
    assert.deepEqual(differences.map(({ kind }) => kind), ["version"]);
  }
});

Deno.test("Nodes may be equal and yet not as the model says", () => {
  const states = ["a", "b"].map((node) => state(node, { "t\n1": { ...ROW, row: "2/x" } }));
  assert.equal(compareRows(EXPECTED, states).length, 1);
  assert.equal(countUnequal(states), 0);
  assert.equal(countUnequal([...states, state("c", {})]), 1);
});

Deno.test("A transaction that is missing, doubled or unknown is told", () => {
  const committed = [1, 2].map((id): Committed => ({
    id,
    node: "a",
    timestamp: "10",
    order: id,
    changes: [],
  }));
  assert.deepEqual(checkLogs(committed, [state("a", {}, [2, 1])]), []);
  assert.deepEqual(checkLogs(committed, [state("a", {}, [1]), state("b", {}, [1, 2, 2, 3])]), [
    "a lacks 1 transactions: 2 of a",
    "b has transactions that nobody committed: 3",
    "b has transactions more than once: 2",
  ]);
  assert.match(checkLogs([], [{ ...state("a", {}), quarantined: 1 }])[0], /quarantine/);
});
