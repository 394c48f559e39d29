import assert from "node:assert/strict";
import { parseLsn } from "../lsn.ts";
import { SeenVersions } from "../seen_versions.ts";
import { HeldTransactions } from "./held.ts";

const BEGIN = {
  kind: "begin",
  commitLsn: parseLsn("0/1"),
  commitTimestamp: 0n,
  xid: 1,
  seen: SeenVersions.NOTHING,
} as const;
const END_LSN = parseLsn("0/2");

/** Adds changes of so many bytes each. */
function addChanges(held: HeldTransactions, ...sizes: number[]): void {
  for (const size of sizes) held.add([], new Uint8Array(size), 0, size);
}

Deno.test("what has not ended is counted apart from what is whole, wherever it moves", () => {
  const held = new HeldTransactions();
  const open = (of: HeldTransactions) => [of.openCount, of.openBytes];
  addChanges(held, 10, 20);
  assert.deepEqual(open(held), [2, 30]);
  held.end(BEGIN, END_LSN);
  assert.deepEqual(open(held), [0, 0]);
  addChanges(held, 5);
  assert.deepEqual(open(held), [1, 5]);

  const rest = new HeldTransactions();
  held.moveRest(rest);
  assert.deepEqual([open(held), open(rest)], [[0, 0], [1, 5]]);
  addChanges(rest, 7);
  assert.deepEqual(open(rest), [2, 12]);
  rest.end(BEGIN, END_LSN);

  addChanges(rest, 1);
  rest.end(BEGIN, END_LSN);
  const last = new HeldTransactions();
  rest.moveLast(last);
  addChanges(rest, 2);
  addChanges(last, 3);
  assert.deepEqual([open(rest), rest.byteLength], [[1, 2], 14]);
  assert.deepEqual([open(last), last.byteLength], [[1, 3], 4]);

  held.clear();
  addChanges(held, 4);
  assert.deepEqual(open(held), [1, 4]);
});
