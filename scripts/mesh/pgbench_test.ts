import assert from "node:assert/strict";
import { parseReport, rangesOf } from "./pgbench.ts";

Deno.test("nodes share branches, tellers and accounts without a gap or an overlap", () => {
  const [first, second] = [rangesOf({ index: 0, of: 3 }), rangesOf({ index: 1, of: 3 })];
  for (const row of ["branch", "teller", "account"]) {
    assert.equal(first[`${row}_low`], 1);
    assert.equal(second[`${row}_low`], first[`${row}_high`] + 1);
  }
  assert.equal(first.account_high, 400_000);
});

Deno.test("pgbench's report is read, and one that breaks off is refused", () => {
  const report = "number of transactions actually processed: 1234\nlatency average = 1.9 ms\n" +
    "tps = 61.724839 (without initial connection time)\n";
  assert.deepEqual(parseReport(report), { transactions: 1234, rate: 61.724839 });
  assert.throws(() => parseReport("transaction type: mesh.sql\n"), /Cannot read pgbench's report/);
});
