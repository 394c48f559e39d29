import assert from "node:assert/strict";
import fc from "fast-check";
import { type Change, type Committed, expectedState, historyOf, rowKey } from "./model.ts";

function put(key: string, row: string): Change {
  return { kind: "put", table: "t", key, row };
}

function remove(key: string): Change {
  return { kind: "delete", table: "t", key };
}

const TRUNCATE: Change = { kind: "truncate", table: "t" };

/** A transaction at a time, such as "12", on a node. */
function at(timestamp: string, node: string, changes: Change[], order = 0): Committed {
  return { id: Number(timestamp), timestamp, node, order, changes };
}

function rowsOf(transactions: readonly Committed[]): Record<string, string> {
  const rows = [...expectedState(transactions)].map(([key, { row, timestamp, node }]) => [
    key.slice("t\n".length),
    `${row} ${timestamp} ${node}`,
  ]);
  return Object.fromEntries(rows.sort());
}

Deno.test("The newest of two writes of a key remains, whichever comes first", () => {
  const [older, newer] = [at("10", "b", [put("1", "old")]), at("20", "a", [put("1", "new")])];
  assert.deepEqual(rowsOf([older, newer]), { 1: "new 20 a" });
  assert.deepEqual(rowsOf([newer, older]), { 1: "new 20 a" });
});

Deno.test("At equal times the greater name wins, and at one node the later", () => {
  assert.deepEqual(rowsOf([at("10", "b", [put("1", "b")]), at("10", "a", [put("1", "a")])]), { 1: "b 10 b" });
  const twice = [at("10", "a", [put("1", "second")], 2), at("10", "a", [put("1", "first")], 1)];
  assert.deepEqual(rowsOf(twice), { 1: "second 10 a" });
});

Deno.test("A delete takes older writes, not newer ones", () => {
  const deleted = at("20", "a", [remove("1")]);
  assert.deepEqual(rowsOf([at("30", "b", [put("1", "newer")]), deleted]), { 1: "newer 30 b" });
  assert.deepEqual(rowsOf([at("10", "b", [put("1", "older")]), deleted]), {});
  assert.deepEqual(rowsOf([deleted, at("10", "b", [put("1", "late")])]), {});
});

Deno.test("A truncate takes the older rows of its table alone", () => {
  const other: Change = { kind: "put", table: "u", key: "1", row: "kept" };
  const state = expectedState([
    at("30", "a", [put("2", "newer")]),
    at("20", "b", [TRUNCATE, put("3", "same transaction")]),
    at("10", "a", [put("1", "older"), other]),
  ]);
  assert.deepEqual([...state.keys()].sort(), [rowKey("t", "2"), rowKey("t", "3"), rowKey("u", "1")]);
});

Deno.test("A changed key is a delete and an insert of one version", () => {
  const moved = at("20", "a", [remove("1"), put("2", "moved")]);
  assert.deepEqual(rowsOf([at("10", "b", [put("1", "row")]), moved]), { 2: "moved 20 a" });
  assert.deepEqual(rowsOf([moved, at("30", "b", [put("1", "newer"), remove("2")])]), { 1: "newer 30 b" });
});

Deno.test("The outcome is that of each key's newest change, and does not depend on the order of arrival", () => {
  const change = fc.oneof(
    fc.record({ key: fc.constantFrom("1", "2"), row: fc.string() }).map(({ key, row }) => put(key, row)),
    fc.constantFrom("1", "2").map(remove),
    fc.constant(TRUNCATE),
  );
  const transactions = fc.array(
    fc.record({
      timestamp: fc.integer({ min: 10, max: 15 }).map(String),
      node: fc.constantFrom("a", "b", "c"),
      changes: fc.array(change, { minLength: 1, maxLength: 3 }),
    }),
    { maxLength: 12 },
  ).map((list) => list.map((one, order): Committed => ({ ...one, id: order, order })));
  fc.assert(fc.property(transactions, fc.infiniteStream(fc.nat()), (list, numbers) => {
    const shuffled = list.map((one) => ({ one, place: numbers.next().value! }))
      .sort((one, other) => one.place - other.place).map(({ one }) => one);
    assert.deepEqual(expectedState(shuffled), expectedState(list));
    for (const key of ["1", "2"]) {
      const last = historyOf(list, { table: "t", key }).at(-1)?.change;
      const row = expectedState(list).get(rowKey("t", key))?.row;
      assert.equal(row, last?.kind === "put" ? last.row : undefined);
    }
  }));
});
