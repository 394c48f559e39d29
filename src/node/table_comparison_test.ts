import assert from "node:assert/strict";
import { type ComparedTable, compareTables } from "./table_comparison.ts";

function table(name: string, rows: number, hash: string | null = "h", columns = "c"): ComparedTable {
  return { schema: "public", name, rows: String(rows), hash, columns };
}

Deno.test("tables that are empty on both nodes or equal do not differ", () => {
  const here = [table("a", 0, "one"), table("b", 2), table("only_here", 0)];
  const there = [table("b", 2), table("a", 0, null, "other"), table("only_there", 0, null)];
  assert.deepEqual(compareTables(here, there), []);
});

Deno.test("every other table differs, with its counts", () => {
  const here = [table("a", 0), table("b", 2), table("c", 1), table("d", 1), table("e", 3)];
  const there = [table("a", 5, null), table("b", 2, "x"), table("c", 1, "x", "y"), table("f", 7, null)];
  assert.deepEqual(compareTables(here, there), [
    { table: "public.a", here: "0 rows", there: "5 rows", canBeFilled: true },
    { table: "public.b", here: "2 rows", there: "2 rows with other values", canBeFilled: false },
    { table: "public.c", here: "1 row", there: "1 row with other columns", canBeFilled: false },
    { table: "public.d", here: "1 row", there: "not replicated", canBeFilled: false },
    { table: "public.e", here: "3 rows", there: "not replicated", canBeFilled: false },
    { table: "public.f", here: "not replicated", there: "7 rows", canBeFilled: false },
  ]);
});

Deno.test("a table that has other columns cannot be filled", () => {
  assert.deepEqual(compareTables([table("a", 0)], [table("a", 5, null, "other")]), [
    { table: "public.a", here: "0 rows", there: "5 rows with other columns", canBeFilled: false },
  ]);
});

Deno.test("rows that were only counted are never equal", () => {
  assert.equal(compareTables([table("a", 1, null)], [table("a", 1, null)]).length, 1);
});
