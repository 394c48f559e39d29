import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { VersionedRowReader, type VersionedRows } from "./versioned_rows.ts";

function readAll(text: string, size: number): VersionedRows[] {
  const reader = new VersionedRowReader();
  const bytes = Buffer.from(text);
  const groups: VersionedRows[] = [];
  for (let at = 0; at < bytes.length; at += size) groups.push(...reader.push(bytes.subarray(at, at + size)));
  return [...groups, ...reader.finish()];
}

const shown = (groups: readonly VersionedRows[]) =>
  groups.map(({ node, first, last, entries, lines }) => ({
    ...{ node, first, last, entries: Buffer.from(entries).toString("hex") },
    rows: Buffer.concat(lines).toString(),
  }));

Deno.test("rows are gathered by node, and those that are older than the last have entries in the order of their hashes", () => {
  const text = "ams\t30\t5\t1\tone\nfra\t7\t9\t2\ttwo\\n\nams\t10\t-1\t3\tthree\nams\t20\t1\t4\t\\N\n";
  const expected = [
    {
      ...{ node: "ams", first: 10n, last: 30n, rows: "1\tone\n3\tthree\n4\t\\N\n" },
      // Hash 1 before -1, as bytes have no sign.
      entries: "00000000000000010000000000000014ffffffffffffffff000000000000000a",
    },
    { node: "fra", first: 7n, last: 7n, rows: "2\ttwo\\n\n", entries: "" },
  ];
  for (const size of [1, 3, 1_000]) {
    const groups = shown(readAll(text, size));
    assert.deepEqual(
      groups,
      expected.map(({ node, first, last, entries, rows }) => ({ node, first, last, entries, rows })),
    );
  }
});

Deno.test("a node that is not known is null, and rows without a key have no entries", () => {
  const [group] = shown(readAll("\\N\t1\t0\ta\n\\N\t2\t0\tb\n", 4));
  assert.deepEqual(group, { node: null, first: 1n, last: 2n, entries: "", rows: "a\nb\n" });
});

Deno.test("a table may have no columns", () => {
  const [group] = shown(readAll("ams\t1\t0\nams\t1\t0\n", 5));
  assert.equal(group.rows, "\n\n");
});

Deno.test("many rows of a node are several transactions, and none is lost", () => {
  const line = (i: number) => `ams\t${i}\t${i}\t${i}\n`;
  const groups = readAll(Array.from({ length: 150_000 }, (_, i) => line(i)).join(""), 0x1_0000);
  assert.equal(groups.length, 3);
  assert.equal(groups.reduce((sum, { lines }) => sum + lines.length, 0), 150_000);
});

Deno.test("what does not begin with a version is refused", () => {
  for (const text of ["ams\n", "ams\tx\t1\ta\n", "ams\t1\t2\t3"]) {
    assert.throws(() => readAll(text, 100), { kind: "protocol" });
  }
});

Deno.test("a long row in many pieces takes no longer for that", () => {
  const reader = new VersionedRowReader();
  const piece = Buffer.alloc(1_000, "x");
  const began = performance.now();
  reader.push(Buffer.from("ams\t7\t1\t"));
  for (let i = 0; i < 30_000; i++) reader.push(piece);
  const [{ lines }] = reader.push(Buffer.from("\n"));
  assert.equal(lines[0].length, 30_000 * piece.length + 1);
  // Looking at what came before again at each would take minutes.
  assert(performance.now() - began < 10_000);
});
