import assert from "node:assert/strict";
import {
  losesChangesOnAdd,
  planPublications,
  type Publication,
  publicationStatements,
} from "./publication.ts";

const SAFE = 180_004;
const OLD = 120_022;
const publication = (name: string, tables: string[], more: Partial<Publication> = {}): Publication => ({
  name,
  publish: ["insert", "update", "delete", "truncate"],
  viaRoot: true,
  tables: tables.map((table) => ({ schema: "public", name: table })),
  ...more,
});

Deno.test("only the difference is altered, removals first", () => {
  const present = [publication("mmlite", ["a", "b"]), publication("mmlite_inserts", ["c"])];
  const wanted = [publication("mmlite", ["a", "c"]), publication("mmlite_inserts", ["b"])];
  assert.deepEqual(publicationStatements(wanted, { present, serverVersion: SAFE }), [
    'ALTER PUBLICATION mmlite DROP TABLE ONLY "public"."b"',
    'ALTER PUBLICATION mmlite_inserts DROP TABLE ONLY "public"."c"',
    'ALTER PUBLICATION mmlite ADD TABLE ONLY "public"."c"',
    'ALTER PUBLICATION mmlite_inserts ADD TABLE ONLY "public"."b"',
  ]);
  assert.deepEqual(publicationStatements(wanted, { present: wanted, serverVersion: SAFE }), []);
});

Deno.test("a missing publication is created, one with other options is set right", () => {
  const wanted = [publication("mmlite", []), publication("mmlite_inserts", ['x"y'])];
  const present = [publication("mmlite", [], { viaRoot: false })];
  assert.deepEqual(publicationStatements(wanted, { present, serverVersion: SAFE }), [
    "ALTER PUBLICATION mmlite SET (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)",
    'CREATE PUBLICATION mmlite_inserts FOR TABLE ONLY "public"."x""y" ' +
    "WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)",
  ]);
});

Deno.test("where adding a table could lose changes, the table is locked first", () => {
  const wanted = [publication("mmlite", ["a", "b"])];
  const present = [publication("mmlite", ["a"])];
  assert.deepEqual(publicationStatements(wanted, { present, serverVersion: OLD }), [
    "SET LOCAL lock_timeout = '2000ms'",
    'LOCK TABLE "public"."b" IN SHARE ROW EXCLUSIVE MODE',
    'ALTER PUBLICATION mmlite ADD TABLE ONLY "public"."b"',
  ]);
  const fixed = [140_018, 150_013, 160_009, 170_005, 180_000];
  const broken = [100_023, 130_023, 140_017, 150_012, 160_008, 170_004];
  assert.ok(fixed.every((version) => !losesChangesOnAdd(version)));
  assert.ok(broken.every(losesChangesOnAdd));
});

Deno.test("10 knows no truncate, and 12 no partition root", () => {
  assert.deepEqual(planPublications([], 100_023).map(({ publish }) => publish.join()), [
    "insert,update,delete",
    "insert",
  ]);
  assert.deepEqual(planPublications([], OLD).map(({ viaRoot }) => viaRoot), [false, false]);
  assert.deepEqual(planPublications([], SAFE).map(({ viaRoot }) => viaRoot), [true, true]);
});
