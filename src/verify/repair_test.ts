import { Buffer } from "node:buffer";
import assert from "node:assert/strict";
import type { ScannedRow } from "../pg/table_scan.ts";
import type { Version, WholeRow } from "../pg/whole_rows.ts";
import type { DifferingRow } from "./compare.ts";
import { type RepairSide, RowRepair } from "./repair.ts";

const hex = (text: string) => Buffer.from(text).toString("hex");
const seen = (stamp: number): ScannedRow => ({ state: 0n, stamp });
const row = (key: string, here: number | null, there: number | null): DifferingRow => ({
  key: [hex(key)],
  here: here === null ? null : seen(here),
  there: there === null ? null : seen(there),
});
const whole = (stamp: number): WholeRow => ({ kind: "row", stamp, version: null, values: [null] });
const NONE: WholeRow = { kind: "none", version: null };

/** A node that has these rows, and answers with two at a time. */
function sideOf(
  node: string,
  found: Readonly<Record<string, WholeRow>>,
  write: RepairSide["write"] = () => assert.fail(node),
): RepairSide {
  return {
    node,
    rows: (keys) =>
      Promise.resolve(keys.slice(0, 2).map(([key]) => found[Buffer.from(key, "hex").toString()])),
    write,
  };
}

/** A repair by a source that has these rows. */
function repairOf(there: Readonly<Record<string, WholeRow>>, write: RepairSide["write"]) {
  return new RowRepair({
    here: sideOf("here", {}, write),
    there: sideOf("there", there),
    ...{ right: "there", columns: ["id"], signal: new AbortController().signal },
  });
}

const NO_COUNTS = { overwritten: 0, inserted: 0, deleted: 0 };

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
    ...{ given: NO_COUNTS, planned: [], plans: 0 },
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

const at = (time: number, node: string) => ({ at: BigInt(time), node });
const versioned = (
  stamp: number,
  version: Version | null,
): WholeRow => ({ ...whole(stamp), version } as WholeRow);
const gone = (version: Version | null): WholeRow => ({ kind: "none", version });

/** Of each key what is on both nodes, and where the right row is; "-" where none is written. */
const PAIRS: readonly [string, WholeRow, WholeRow, string][] = [
  ["newer there", versioned(1, at(5, "a")), versioned(2, at(6, "a")), "here overwrite"],
  ["newer here", versioned(1, at(7, "a")), versioned(2, at(6, "a")), "there overwrite"],
  ["later node", versioned(1, at(6, "b")), versioned(2, at(6, "a")), "there overwrite"],
  ["as old", versioned(1, at(6, "a")), versioned(2, at(6, "a")), "here overwrite"],
  ["neither known", versioned(1, null), versioned(2, null), "here overwrite"],
  ["known here", versioned(1, at(1, "a")), versioned(2, null), "there overwrite"],
  ["never here", gone(null), versioned(2, null), "here insert"],
  ["never there", versioned(1, null), gone(null), "there insert"],
  ["deleted here", gone(at(7, "a")), versioned(2, at(6, "b")), "there delete"],
  ["deleted there", versioned(1, null), gone(at(6, "b")), "here delete"],
  ["deleted as old", gone(at(6, "b")), versioned(2, at(6, "b")), "there delete"],
  ["written since", gone(at(5, "b")), versioned(2, at(6, "b")), "here insert"],
  ["changed here", versioned(3, at(5, "a")), versioned(2, at(6, "a")), "-"],
  ["changed there", versioned(1, at(5, "a")), gone(at(9, "a")), "-"],
];

/** As the comparison saw them. */
const SEEN = PAIRS.map(([key, here, there]) =>
  key.startsWith("changed")
    ? row(key, 1, 2)
    : row(key, here.kind === "row" ? here.stamp : null, there.kind === "row" ? there.stamp : null)
);

Deno.test("of each row the newer one is written to the node that has another", async () => {
  const written: string[] = [];
  const side = (node: string, place: 1 | 2) =>
    sideOf(node, Object.fromEntries(PAIRS.map((pair) => [pair[0], pair[place]])), (rows) => {
      for (const { key: [key], stamp, values } of rows) {
        const action = values === null ? "delete" : stamp === null ? "insert" : "overwrite";
        written.push(`${Buffer.from(key, "hex")}: ${node} ${action}`);
      }
      return Promise.resolve(rows.map(() => "written" as const));
    });
  const options = {
    ...{ here: side("here", 1), there: side("there", 2) },
    ...{ right: "newest", columns: ["id"], signal: new AbortController().signal } as const,
  };
  const expected = PAIRS.flatMap(([key, , , what]) => what === "-" ? [] : [`${key}: ${what}`]).sort();
  const planning = new RowRepair({ ...options, dryRun: { limit: 3 } });
  await planning.take(SEEN);
  const { planned, plans } = await planning.end();
  assert.deepEqual([written, planned.length, plans], [[], 3, expected.length]);
  const repair = new RowRepair(options);
  await repair.take(SEEN);
  const found = await repair.end();
  assert.deepEqual(written.sort(), expected);
  assert.deepEqual([found.overwritten, found.inserted, found.deleted, found.given, found.changed_meanwhile], [
    ...[3, 2, 1],
    { overwritten: 3, inserted: 1, deleted: 2 },
    2,
  ]);
});
