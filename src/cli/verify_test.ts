import assert from "node:assert/strict";
import type { VerifyReport } from "../api/job_schemas.ts";
import { formatReport } from "./verify.ts";

type Table = VerifyReport["peers"][number]["tables"][number];

function shown(table: Partial<Table>): string {
  const tables: Table[] = [{
    ...{ table: "public.item", outcome: "differs", problem: "", rows: { here: 3, there: 2 } },
    ...{ differences: [], undecided: [], complete: true, other_versions: 0, diverged: false },
    ...table,
  }];
  const peers = [{ peer: "fra", outcome: "differs" as const, error: null, bytes: 0, tables }];
  return formatReport({ node: "ams", outcome: "differs", peers }, false);
}

Deno.test("one row differs, two rows differ", () => {
  const row = (id: string) => ({ key: { id }, difference: "only_here" as const });
  assert.match(shown({ differences: [row("1")] }), / 1 row differs$/m);
  assert.match(shown({ differences: [row("1")], complete: false }), / 1 row differs, or more$/m);
  assert.match(shown({ differences: [row("1"), row("2")] }), / 2 rows differ$/m);
  const twin = { row_hash: "00ff", here: 1, there: 2 };
  assert.match(shown({ differences: [twin] }), /^ +once on ams, 2 on fra: row 00ff$/m);
  assert.match(shown({ differences: [{ ...twin, here: 0 }] }), /^ +0 times on ams, 2 on fra: row 00ff$/m);
});
