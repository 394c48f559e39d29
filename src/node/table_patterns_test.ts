import assert from "node:assert/strict";
import type { Query } from "../pg/query.ts";
import { TablePatterns } from "./table_patterns.ts";

/** Keeps `mmlite.table_pattern` in memory. */
function memory(): { query: Query; rows: Map<string, string> } {
  const rows = new Map<string, string>();
  const query: Query = (text, params = []) => {
    const [pattern, kind] = params as [string, string];
    if (text.startsWith("INSERT")) rows.set(pattern, kind);
    if (text.startsWith("DELETE")) rows.delete(pattern);
    const all = [...rows].map(([pattern, kind]) => ({ pattern, kind }));
    return Promise.resolve(text.startsWith("SELECT") ? all : []);
  };
  return { query, rows };
}

const FILE = { include: ["public.*", "app.a"], exclude: ["public.log"] };
const effective = ({ include, exclude }: TablePatterns) => [[...include], [...exclude]];

Deno.test("what the API says of a pattern wins over the file, and only that is stored", async () => {
  const { query, rows } = memory();
  const patterns = new TablePatterns(FILE);
  await patterns.set(query, { pattern: "app.*", kind: "include" });
  await patterns.set(query, { pattern: "public.*", kind: null });
  await patterns.set(query, { pattern: "app.a", kind: "exclude" });
  assert.deepEqual(effective(patterns), [["app.*"], ["public.log", "app.a"]]);
  assert.deepEqual([...rows], [["app.*", "include"], ["public.*", "removed"], ["app.a", "exclude"]]);
  assert.deepEqual(patterns.list().map(({ pattern, kind, from, active }) => [pattern, kind, from, active]), [
    ["app.*", "include", "api", true],
    ["app.a", "include", "file", false],
    ["app.a", "exclude", "api", true],
    ["public.*", "include", "file", false],
    ["public.log", "exclude", "file", true],
  ]);

  const later = new TablePatterns(FILE);
  await later.load(query);
  assert.deepEqual(effective(later), effective(patterns));

  await patterns.set(query, { pattern: "public.*", kind: "include" });
  await patterns.set(query, { pattern: "app.*", kind: null });
  await patterns.set(query, { pattern: "app.a", kind: "include" });
  assert.deepEqual(effective(patterns), [FILE.include, FILE.exclude]);
  assert.equal(rows.size, 0);
});

Deno.test("a change is imagined without being made, and taken back", async () => {
  const { query, rows } = memory();
  const patterns = new TablePatterns(FILE);
  assert.deepEqual(effective(patterns.imagine("public.*", null)), [["app.a"], ["public.log"]]);
  assert.deepEqual(effective(patterns), [FILE.include, FILE.exclude]);
  const takeBack = await patterns.set(query, { pattern: "public.*", kind: null });
  assert.equal(patterns.find("public.*"), undefined);
  assert.equal(patterns.isKnown("public.*"), true);
  await takeBack();
  assert.deepEqual([patterns.find("public.*")?.from, rows.size], ["file", 0]);
  assert.equal(patterns.isKnown("public.none"), false);
});
