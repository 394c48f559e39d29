import assert from "node:assert/strict";
import { toLsn } from "../lsn.ts";
import { SeenVersions } from "../seen_versions.ts";
import { HeldTransactions } from "./held.ts";
import type { TransactionWriter } from "./transaction_writer.ts";
import { Units } from "./units.ts";

/** One transaction without changes that ends at a position. */
function heldUntil(end: bigint): HeldTransactions {
  const held = new HeldTransactions();
  const begin = { kind: "begin", commitLsn: toLsn(end - 1n), commitTimestamp: 0n, xid: 1 } as const;
  held.end({ ...begin, seen: SeenVersions.NOTHING }, toLsn(end));
  return held;
}

/** One unit is under way, and the next is held back until `refuse` says that it must not be written. */
function holdSecondBack() {
  const gate = Promise.withResolvers<void>();
  const failures: unknown[] = [];
  const writer = { writeEach: () => {}, endBatch: () => {} } as unknown as TransactionWriter;
  let offered = 0;
  const units = new Units({
    writer,
    mayWrite: () => offered++ === 0 ? undefined : gate.promise,
    done: () => {},
    failed: (thrown) => failures.push(thrown),
  });
  units.offer({ held: heldUntil(10n), mode: "rows" });
  units.offer({ held: heldUntil(20n), mode: "rows" });
  return { units, failures, refuse: (error: Error) => gate.reject(error) };
}

/** Lets everything run that waits for nothing outside. */
async function turn(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 0));
}

Deno.test("what must not be written is told once everything before it is committed", async () => {
  const { units, failures, refuse } = holdSecondBack();
  const error = new Error("too far ahead");
  refuse(error);
  await turn();
  assert.deepEqual(failures, []);
  units.committed(toLsn(10n));
  await turn();
  assert.deepEqual(failures, [error]);
});

Deno.test("a failure of what is under way ends what is held back behind it, and is told alone", async () => {
  const { units, failures, refuse } = holdSecondBack();
  units.fail(new Error("lost"));
  refuse(new Error("stopped"));
  await turn();
  assert.deepEqual(failures, []);
});
