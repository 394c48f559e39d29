import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { toLsn } from "../lsn.ts";
import { SeenVersions } from "../seen_versions.ts";
import { Versions } from "./versions.ts";

/** What a sender had of nodes by their times. */
function having(times: Readonly<Record<string, bigint>>): SeenVersions {
  return SeenVersions.NOTHING.with(
    Object.entries(times).map(([node, timestamp]) => ({ node, position: toLsn(1n), timestamp })),
  );
}

/** Of one local transaction: the bound, and what each transaction is said to have seen. */
function boundsOf(...seen: readonly SeenVersions[]): [bound: bigint, seen: string[]] {
  const versions = new Versions({ origin: "ams", seenBefore: 100n, others: () => ["here", "fra"] });
  versions.begin(seen.map((one, i) => ({ commitTimestamp: BigInt(1_000 + i), seen: one })));
  const text = seen.map((_, i) => Buffer.from(versions.of(i).seen).toString());
  return [versions.bound, text.map((one) => /\.(\d+)/.exec(one)![1])];
}

Deno.test("what the sender had of every other node, and before it became a peer, is what it had seen", () => {
  assert.deepEqual(boundsOf(SeenVersions.NOTHING), [100n, ["000100"]]);
  assert.deepEqual(boundsOf(having({ here: 300n })), [100n, ["000100"]]);
  assert.deepEqual(boundsOf(having({ here: 300n, fra: 200n })), [201n, ["000201"]]);
  assert.deepEqual(boundsOf(having({ here: 300n, fra: 20n })), [100n, ["000100"]]);
});

Deno.test("of transactions that are written together each has its own, and the least is the bound", () => {
  const [early, late] = [having({ here: 300n, fra: 200n }), having({ here: 300n, fra: 300n })];
  assert.deepEqual(boundsOf(early, early, late), [201n, ["000201", "000201", "000301"]]);
});
