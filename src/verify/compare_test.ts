import assert from "node:assert/strict";
import { toLsn } from "../lsn.ts";
import type { LookedUp, ScannedRow } from "../pg/table_scan.ts";
import { compareTable, type Comparison } from "./compare.ts";
import {
  type ComparisonPlan,
  groupSums,
  type Key,
  type Link,
  type Side,
  sumsOfGroups,
  totalOf,
} from "./side.ts";

const PLAN: ComparisonPlan = { table: { schema: "public", name: "t" }, keyed: true, buckets: 1024, share: 1 };
const KEY_HASH = 7n;

/** What each look at the row shows, the last one again and again: state and stamp, and what a look-up tells besides. */
type Shown = readonly (readonly [state: bigint, stamp: number, more?: Partial<LookedUp>] | null)[];

/** A side with one row, and others that are the same on both sides. */
class ScriptedSide implements Side {
  looks = 0;
  opened: (readonly number[])[] = [];
  lagging: Link[] = [];
  /** Buckets that can be opened together. */
  mayOpen = Infinity;
  /** The first buckets, of which the sums differ from the other side's. */
  odd = 0;
  /** Marks that were set after each look. */
  marks = 0;
  readonly node: string;
  readonly #shown: Shown;

  constructor(node: string, shown: Shown) {
    this.node = node;
    this.#shown = shown;
  }

  tables = () => Promise.resolve([]);
  read = () => Promise.resolve({ rows: this.#sums().length, total: totalOf(this.#sums()) });
  groups = () => Promise.resolve(groupSums(this.#sums()));
  bucketsOf = (groups: readonly number[]) => Promise.resolve(sumsOfGroups(this.#sums(), groups));
  keys = (hashes: readonly bigint[]): Promise<(Key | null)[]> => Promise.resolve(hashes.map(() => ["37"]));
  mark = () => Promise.resolve({ lsn: toLsn(BigInt(++this.marks)), origins: [] });
  rows = () => Promise.resolve([]);
  behind = () => Promise.resolve(this.lagging);

  open(buckets: readonly number[]): Promise<Map<bigint, ScannedRow> | null> {
    if (buckets.length > this.mayOpen) return Promise.resolve(null);
    this.opened.push(buckets);
    if (!buckets.includes(Number(KEY_HASH))) return Promise.resolve(new Map());
    const row = this.#next();
    return Promise.resolve(new Map(row === null ? [] : [[KEY_HASH, row]]));
  }

  look(keys: readonly Key[]): Promise<(LookedUp | null)[]> {
    assert.deepEqual(keys, [["37"]]);
    return Promise.resolve([this.#next()]);
  }

  #next(): LookedUp | null {
    const shown = this.#shown[Math.min(this.looks++, this.#shown.length - 1)];
    if (shown === null) return null;
    return { state: shown[0], stamp: shown[1], version: null, awaited: false, ...shown[2] };
  }

  #sums(): BigUint64Array {
    const sums = BigUint64Array.from({ length: PLAN.buckets }, (_, i) => BigInt(i) * 31n);
    for (let bucket = 0; bucket < this.odd; bucket++) sums[bucket] += 1n;
    sums[Number(KEY_HASH)] += this.#shown[0]?.[0] ?? 0n;
    return sums;
  }
}

async function compare(
  here: Shown,
  there: Shown,
  options: {
    readonly settleMs?: number;
    readonly keyed?: boolean;
    readonly lagging?: Link[];
    readonly mayOpen?: number;
  } = {},
): Promise<Comparison & { readonly sides: readonly ScriptedSide[] }> {
  const sides = [new ScriptedSide("ams", here), new ScriptedSide("fra", there)];
  sides[1].lagging = options.lagging ?? [];
  if (options.mayOpen !== undefined) Object.assign(sides[1], { odd: 20, mayOpen: options.mayOpen });
  const found = await compareTable({
    here: sides[0],
    there: sides[1],
    plan: { ...PLAN, keyed: options.keyed ?? true },
    limit: 10,
    settleMs: options.settleMs ?? 5_000,
    read: () => {},
    signal: new AbortController().signal,
  });
  return { ...found, sides };
}

Deno.test("equal tables are read once, and nothing is opened", async () => {
  const { differences, complete, sides } = await compare([[1n, 5]], [[1n, 6]]);
  assert.deepEqual([differences, complete, sides[0].opened], [[], true, []]);
});

Deno.test("a row that three looks show the same way differs, and only its bucket is opened", async () => {
  const { differences, undecided, complete, sides } = await compare([[1n, 5]], [[2n, 6]]);
  assert.deepEqual(differences, [{ hash: KEY_HASH, key: ["37"], here: 1n, there: 2n }]);
  assert.deepEqual([undecided, complete], [[], true]);
  for (const { opened, looks, marks } of sides) assert.deepEqual([opened, looks, marks], [[[7]], 3, 2]);
});

Deno.test("a row that is on its way does not differ", async () => {
  assert.deepEqual((await compare([[1n, 5]], [null, [1n, 9]])).differences, []);
  assert.deepEqual((await compare([[1n, 5]], [[2n, 4], [2n, 4], [1n, 9]])).differences, []);
});

Deno.test("a row that came and was deleted between two looks does not differ", async () => {
  // What deleted it is on its way: two looks show the same, though the row had come.
  const { differences, undecided } = await compare([[1n, 5], [1n, 5], null], [null]);
  assert.deepEqual([differences, undecided], [[], []]);
});

Deno.test("a row that is written again between looks is looked at again, even if it holds the same", async () => {
  const { differences, sides } = await compare([[1n, 5], [1n, 6], [1n, 7]], [[2n, 4]]);
  assert.equal(differences.length, 1);
  assert.equal(sides[0].looks, 5);
});

Deno.test("a row that is not written to is decided, however long a look takes", async () => {
  const { differences, undecided } = await compare([[1n, 5]], [[2n, 6]], { settleMs: 0 });
  assert.deepEqual([differences.length, undecided], [1, []]);
});

Deno.test("a row that is written to all the time is undecided", async () => {
  const always = Array.from({ length: 100_000 }, (_, i) => [1n, i] as const);
  const { differences, undecided, lagging } = await compare(always, [[2n, 4]], { settleMs: 100 });
  assert.deepEqual(differences, []);
  assert.deepEqual(undecided, [{ hash: KEY_HASH, key: ["37"], reason: "changing" }]);
  assert.deepEqual(lagging, []);
});

Deno.test("a row that is written all the time does not differ once both nodes have shown the same of one version", async () => {
  const versions = (late: number) =>
    Array.from(
      { length: 9 },
      (_, i) => [BigInt(10 + i - late), 50 + i, { version: `t${i - late} ams` }] as const,
    );
  const { differences, undecided, sides } = await compare(versions(0), versions(2));
  assert.deepEqual([differences, undecided], [[], []]);
  assert.equal(sides[0].looks, 4);
  const wrong = versions(2).map(([state, stamp, more]) => [state + 100n, stamp, more] as const);
  assert.equal((await compare(versions(0), wrong)).differences.length, 1);
});

Deno.test("where replication does not come far enough nothing is said to differ, and the link is named", async () => {
  const lagging = [{ from: "nyc", to: "fra" }];
  const found = await compare([[1n, 5]], [[2n, 4]], { settleMs: 100, lagging });
  assert.deepEqual(found.undecided.map(({ reason }) => reason), ["lagging"]);
  assert.deepEqual([found.differences, found.lagging], [[], lagging]);
});

Deno.test("a row of which values are awaited is undecided", async () => {
  const found = await compare([[1n, 5, { awaited: true }]], [[2n, 4]], { settleMs: 300 });
  assert.deepEqual(found.undecided.map(({ reason }) => reason), ["awaiting_values"]);
});

Deno.test("a row that has come to be alike, in another version, is counted", async () => {
  const here: Shown = [[1n, 5], [2n, 8, { version: "t1 ams" }]];
  const found = await compare(here, [[2n, 6, { version: "t2 fra" }]]);
  assert.deepEqual([found.differences, found.otherVersions], [[], 1]);
  const same = await compare(here, [[2n, 6, { version: "t1 ams" }]]);
  assert.deepEqual([same.differences, same.otherVersions], [[], 0]);
});

Deno.test("of buckets that are too many to be opened at once, as many are as can be", async () => {
  const { differences, complete, sides } = await compare([[1n, 5]], [[2n, 6]], { mayOpen: 5 });
  assert.deepEqual([differences.length, complete], [1, true]);
  assert.deepEqual(sides[1].opened.flat(), Array.from({ length: 20 }, (_, i) => i));
  await assert.rejects(
    compare([[1n, 5]], [[2n, 6]], { mayOpen: 0 }),
    /node "fra": it takes them for too many/,
  );
});

Deno.test("rows of a multiset are looked at by opening their buckets again", async () => {
  const { differences, sides } = await compare([[3n, 5]], [[1n, 2]], { keyed: false });
  assert.deepEqual(differences, [{ hash: KEY_HASH, key: null, here: 3n, there: 1n }]);
  assert.deepEqual(sides[0].opened, [[7], [7], [7]]);
});
