import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { RowTimes } from "./row_times.ts";

interface Added {
  readonly high: number;
  readonly low: number;
  readonly transaction: number;
}

const TIMES = [5n, -7n, 1n << 40n, 800_000_000_000_000n];

/** What is noted of rows, by a sort of whole hashes. */
function expected(rows: readonly Added[]): string[] {
  const last = new Map<bigint, bigint>();
  for (const { high, low, transaction } of rows) {
    last.set((BigInt(high >>> 0) << 32n) | BigInt(low >>> 0), TIMES[transaction]);
  }
  return [...last].sort(([a], [b]) => a < b ? -1 : 1).map(([hash, time]) => `${hash} ${time}`);
}

function noted(rows: readonly Added[]): string[] {
  const times = new RowTimes();
  for (const { high, low, transaction } of rows) times.add(high, low, transaction);
  const bytes = Buffer.from(times.bytes(TIMES));
  return Array.from(
    { length: bytes.length / 16 },
    (_, i) => `${bytes.readBigUInt64BE(16 * i)} ${bytes.readBigInt64BE(16 * i + 8)}`,
  );
}

Deno.test("rows are noted in the order of their hashes without sign, once, with their last time", () => {
  // Few different halves, so that rows come again and hashes share a half.
  const half = fc.oneof(fc.constantFrom(0, 1, -1, 0x7fffffff, -0x80000000), fc.integer());
  const row = fc.record({ high: half, low: half, transaction: fc.nat(TIMES.length - 1) });
  fc.assert(fc.property(fc.array(row, { maxLength: 300 }), (rows) => {
    assert.deepEqual(noted(rows), expected(rows));
  }));
});
