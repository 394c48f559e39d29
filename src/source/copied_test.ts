import assert from "node:assert/strict";
import { toLsn } from "../lsn.ts";
import { copiedIn } from "./copied.ts";

const UNTIL = toLsn(1_000n);

function isCopied(snapshot: string, xid: number, commitLsn = 999n): boolean {
  const begin = { kind: "begin" as const, commitLsn: toLsn(commitLsn), commitTimestamp: 0n, xid };
  return copiedIn({ snapshot, until: UNTIL })(begin);
}

Deno.test("a transaction came with the rows if the snapshot saw it", () => {
  assert.equal(isCopied("10:20:12,15", 9), true);
  assert.equal(isCopied("10:20:12,15", 10), true);
  assert.equal(isCopied("10:20:12,15", 12), false);
  assert.equal(isCopied("10:20:12,15", 19), true);
  assert.equal(isCopied("10:20:12,15", 20), false);
  assert.equal(isCopied("10:10:", 9), true);
});

Deno.test("what begins to commit behind the snapshot did not, whatever its id looks like", () => {
  assert.equal(isCopied("10:20:", 9, 1_000n), false);
});

Deno.test("ids of 32 bits are those next to the snapshot, across the end of an epoch", () => {
  const epoch = 2n ** 32n;
  // The snapshot is of the third epoch, 5 transactions in; two of the second one run still.
  const snapshot = `${3n * epoch - 4n}:${3n * epoch + 5n}:${3n * epoch - 4n},${3n * epoch - 2n}`;
  assert.equal(isCopied(snapshot, Number(epoch - 5n)), true);
  assert.equal(isCopied(snapshot, Number(epoch - 4n)), false);
  assert.equal(isCopied(snapshot, Number(epoch - 3n)), true);
  assert.equal(isCopied(snapshot, Number(epoch - 2n)), false);
  assert.equal(isCopied(snapshot, 4), true);
  assert.equal(isCopied(snapshot, 5), false);
  // Just before an epoch begins, the next one's ids are in the future.
  assert.equal(isCopied(`${epoch - 3n}:${epoch - 3n}:`, 2), false);
});
