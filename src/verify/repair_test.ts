import { Buffer } from "node:buffer";
import assert from "node:assert/strict";
import type { ScannedRow } from "../pg/table_scan.ts";
import type { WholeRow } from "../pg/whole_rows.ts";
import type { DifferingRow } from "./compare.ts";
import { RowRepair, type WriteRows } from "./repair.ts";
import type { Side } from "./side.ts";

const hex = (text: string) => Buffer.from(text).toString("hex");
const seen = (stamp: number): ScannedRow => ({ state: 0n, stamp });
const row = (key: string, here: number | null, there: number | null): DifferingRow => ({
  key: [hex(key)],
  here: here === null ? null : seen(here),
  there: there === null ? null : seen(there),
});
const whole = (stamp: number): WholeRow => ({ kind: "row", stamp, version: null, values: [null] });
const NONE: WholeRow = { kind: "none", version: null };

/** A repair whose source has these rows and answers with two at a time. */
function repairOf(there: Readonly<Record<string, WholeRow>>, write: WriteRows) {
  const rows = (keys: readonly (readonly string[])[]) =>
    Promise.resolve(keys.slice(0, 2).map(([key]) => there[Buffer.from(key, "hex").toString()]));
  const signal = new AbortController().signal;
  return new RowRepair({ there: { rows } as unknown as Side, columns: ["id"], write, signal });
}

Deno.test("rows are written as they are at the source, unless they have changed there", async () => {
  const written: string[] = [];
  const repair = repairOf(
    { a: whole(1), b: whole(2), c: NONE, d: whole(4), e: NONE, f: whole(7), g: { kind: "long" } },
    (rows) => {
      for (const { key, stamp, values } of rows) {
        written.push(`${Buffer.from(key[0], "hex")} ${stamp} ${values === null ? "gone" : "row"}`);
      }
      return Promise.resolve(rows.map(({ stamp }) => stamp === 13 ? "changed" : "written"));
    },
  );
  await repair.take([
    ...[row("a", 10, 1), row("b", null, 2), row("c", 12, null), row("d", 13, 4)],
    // The source has deleted it, written it anew, and has none any more of what it had.
    ...[row("e", 14, 5), row("f", 15, 6), row("g", 16, 8)],
  ]);
  const found = await repair.end();
  assert.deepEqual(written, ["c 12 gone", "a 10 row", "b null row", "d 13 row"]);
  assert.deepEqual(found, {
    ...{ overwritten: 1, inserted: 1, deleted: 1, changed_meanwhile: 3, refused: 1 },
    refusals: [{ key: { id: "g" }, reason: "too long to be fetched" }],
  });
});

Deno.test("what is refused is tried again as long as that gets on, and then by itself", async () => {
  const wanted = Array.from({ length: 6 }, (_, i) => row(String(i), i, i));
  const free = new Set<string>(["5"]);
  const attempts: number[] = [];
  const repair = repairOf(Object.fromEntries(wanted.map((_, i) => [i, whole(i)])), (rows, options) => {
    attempts.push(options?.alone ? 0 : 1);
    return Promise.resolve(rows.map(({ key }) => {
      const name = Buffer.from(key[0], "hex").toString();
      if (!free.has(name) || name === "1") {
        return { refused: options?.alone ? "for another row" : "in the way" };
      }
      // Its value was what the one before waits for.
      free.add(String(Number(name) - 1));
      return "written" as const;
    }));
  });
  await repair.take(wanted);
  const found = await repair.end();
  assert.equal(found.overwritten, 4);
  assert.deepEqual(found.refusals, [
    { key: { id: "0" }, reason: "for another row" },
    { key: { id: "1" }, reason: "for another row" },
  ]);
  assert.deepEqual(attempts.slice(-1), [0]);
});
