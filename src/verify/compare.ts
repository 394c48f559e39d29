/**
 * Compares one table on two nodes while both are written to.
 *
 * Sums of buckets say where the nodes differ; the rows of those buckets say in which keys. A key that differs may only
 * be on its way from one node to the other, so it is looked at again, each time after both nodes have passed a mark
 * that the other one had set behind what it had shown.
 *
 * A key differs if three looks in a row, with such marks between them, show the same on both nodes. Say that one node
 * showed x each time, never written in between, and the other showed y. The other had taken in x before its second
 * look, and showed y all the same; the first had taken in whatever made that y before its third look, and had x still.
 * So each has all that the other made of the row, and they do not agree. Two looks would not do where y is no row:
 * that it was not there at either says nothing about the time between.
 *
 * A row that is written again and again hardly ever shows the same on both at once. It does not differ if both have
 * shown the same of one version, whenever that was.
 */
import { delay } from "../backoff.ts";
import { MmliteError } from "../errors.ts";
import type { LookedUp, ScannedRow } from "../pg/table_scan.ts";
import { type ComparisonPlan, GROUPS, type Key, type Link, type Side } from "./side.ts";

/** What {@link compareTable} needs. */
export interface CompareOptions {
  readonly here: Side;
  readonly there: Side;
  readonly plan: ComparisonPlan;
  /** Differing keys to find, after which it ends. */
  readonly limit: number;
  /** How long keys of one step are looked at again until it is known whether they differ, milliseconds. */
  readonly settleMs: number;
  /** Is told of rows as they are read here. */
  readonly read: (rows: number) => void;
  /** Takes keys that differ as they are found, instead of {@link Comparison.differences}; not of a multiset. */
  readonly take?: (rows: readonly DifferingRow[]) => Promise<void>;
  readonly signal: AbortSignal;
}

/** A key that differs, or rows of a multiset. */
export interface Difference {
  readonly hash: bigint;
  /** Null for rows of a multiset. */
  readonly key: Key | null;
  /** What is on each node: null for no row; of a multiset the number of rows. */
  readonly here: bigint | null;
  readonly there: bigint | null;
}

/** A key that differs, and what the last look showed of it. */
export interface DifferingRow {
  readonly key: Key;
  readonly here: ScannedRow | null;
  readonly there: ScannedRow | null;
}

/** A key of which it could not be told in time whether it differs. */
export interface Undecided {
  readonly hash: bigint;
  readonly key: Key | null;
  /** It was written to all the time, replication did not come that far, or values of it are still to come. */
  readonly reason: "changing" | "lagging" | "awaiting_values";
}

/** How a table compares. */
export interface Comparison {
  /** When they were read. */
  readonly rows: { readonly here: number; readonly there: number };
  readonly differences: readonly Difference[];
  readonly undecided: readonly Undecided[];
  /** Whether all of the table was looked at; not if there are more differences than wanted, or replication lags. */
  readonly complete: boolean;
  /** Rows that were looked at more than once and are alike, but for when and by whom they were written. */
  readonly otherVersions: number;
  /** Replication that did not come far enough in time. */
  readonly lagging: readonly Link[];
}

/** Rows that are opened at a time, about: what is kept of one takes some 200 bytes. */
const OPEN_ROWS = 250_000;
/** Keys that are looked at again together: so many, but not many more than are wanted at all. */
const SLICE_KEYS = 5_000;
const MIN_SLICE_KEYS = 100;
/** Looks that have to show the same. */
const LOOKS = 3;
/** Versions of a row that are kept of each node. */
const SEEN_VERSIONS = 16;
/** How often it is asked whether marks are passed, milliseconds. */
const MARK_POLL_MS = 50;
/** Marks are waited for so long at least, milliseconds, where the time is over before there were enough looks. */
const LATE_MARK_MS = 2_000;

interface Suspect {
  readonly hash: bigint;
  readonly key: Key | null;
  /** What the last look showed. */
  here: ScannedRow | null;
  there: ScannedRow | null;
  shown: string;
  /** How many looks in a row have shown it. */
  looks: number;
  awaited: boolean;
  /** What its versions held that were seen. */
  readonly seen: { readonly here: Map<string, bigint>; readonly there: Map<string, bigint> };
}

/** See the module's head. */
export async function compareTable(options: CompareOptions): Promise<Comparison> {
  const { here, there, plan, limit } = options;
  const [mine, theirs] = await both(
    options,
    (side) => side.read(plan, side === here ? options.read : () => {}),
  );
  const comparing = new Comparing(options);
  const rows = { here: mine.rows, there: theirs.rows };
  let complete = true;
  if (mine.total !== theirs.total || mine.rows !== theirs.rows) {
    const buckets = await differingBuckets(here, there, plan.buckets);
    const rowsOfBucket = Math.max(1, Math.max(rows.here, rows.there) / plan.buckets);
    let step = Math.max(1, Math.floor(OPEN_ROWS / rowsOfBucket));
    for (let from = 0; from < buckets.length && complete;) {
      const some = buckets.slice(from, from + step);
      if (!await comparing.open(some)) {
        step = Math.ceil(some.length / 2);
        continue;
      }
      from += step;
      complete = !comparing.isFull(limit) || from >= buckets.length && !comparing.hasMore;
    }
  }
  return { rows, complete, ...comparing.found() };
}

/** The buckets whose sums differ. */
async function differingBuckets(here: Side, there: Side, count: number): Promise<number[]> {
  const [mine, theirs] = await Promise.all([here.groups(), there.groups()]);
  const groups = placesThatDiffer(mine, theirs);
  if (groups.length === 0) return [];
  const [my, their] = await Promise.all([here.bucketsOf(groups), there.bucketsOf(groups)]);
  const size = count / Math.min(GROUPS, count);
  return placesThatDiffer(my, their).map((place) => groups[Math.floor(place / size)] * size + place % size);
}

function placesThatDiffer(mine: BigUint64Array, theirs: BigUint64Array): number[] {
  const places: number[] = [];
  for (let at = 0; at < mine.length; at++) if (mine[at] !== theirs[at]) places.push(at);
  return places;
}

/** By the hash of their key. */
type Rows = ReadonlyMap<bigint, ScannedRow>;

/** What has been found of a table. */
class Comparing {
  readonly #options: CompareOptions;
  readonly #differences: Difference[] = [];
  /** For {@link CompareOptions.take}. */
  #found: DifferingRow[] = [];
  readonly #undecided: Undecided[] = [];
  readonly #lagging = new Map<string, Link>();
  #otherVersions = 0;
  /** Keys that were opened and not looked at again, as enough were found. */
  hasMore = false;

  constructor(options: CompareOptions) {
    this.#options = options;
  }

  /** Nothing more is to be found: there is enough, or it cannot be told from lag. */
  isFull(limit: number): boolean {
    return this.#differences.length + this.#undecided.length >= limit || this.#lagging.size > 0;
  }

  found(): Omit<Comparison, "rows" | "complete"> {
    return {
      differences: this.#differences,
      undecided: this.#undecided,
      otherVersions: this.#otherVersions,
      lagging: [...this.#lagging.values()],
    };
  }

  /** Finds the keys in some buckets that differ; false if these are too many to be opened at once. */
  async open(buckets: readonly number[]): Promise<boolean> {
    const [mine, theirs] = await both(this.#options, (side) => side.open(buckets));
    if (mine === null || theirs === null) {
      if (buckets.length === 1) throw cannotOpen(mine === null ? this.#options.here : this.#options.there);
      return false;
    }
    const hashes = [...new Set([...mine.keys(), ...theirs.keys()])]
      .filter((hash) => mine.get(hash)?.state !== theirs.get(hash)?.state);
    const { limit } = this.#options;
    const step = Math.min(SLICE_KEYS, Math.max(MIN_SLICE_KEYS, limit));
    for (let from = 0; from < hashes.length; from += step) {
      if (this.isFull(limit)) {
        this.hasMore = true;
        break;
      }
      await this.#settle(await this.#suspectsOf(hashes.slice(from, from + step), mine, theirs));
    }
    return true;
  }

  async #suspectsOf(hashes: readonly bigint[], mine: Rows, theirs: Rows): Promise<Suspect[]> {
    const keys = await this.#keysOf(hashes, mine);
    return hashes.map((hash, i) => {
      const [here, there] = [mine.get(hash) ?? null, theirs.get(hash) ?? null];
      const seen = { here: new Map(), there: new Map() };
      return { hash, key: keys[i], here, there, shown: show(here, there), looks: 1, awaited: false, seen };
    });
  }

  async #keysOf(hashes: readonly bigint[], mine: Rows): Promise<(Key | null)[]> {
    const { here, there, plan: { keyed } } = this.#options;
    if (!keyed) return hashes.map(() => null);
    const isMine = (hash: bigint) => mine.has(hash);
    const [inHere, inThere] = [hashes.filter(isMine), hashes.filter((hash) => !isMine(hash))];
    const [my, their] = await Promise.all([here.keys(inHere), there.keys(inThere)]);
    const known = new Map([
      ...inHere.map((hash, i) => [hash, my[i]] as const),
      ...inThere.map((hash, i) => [hash, their[i]] as const),
    ]);
    return hashes.map((hash) => known.get(hash)!);
  }

  /**
   * Looks at keys again until it is known of each whether it differs, or the time is over; {@link LOOKS} times at least,
   * or of slow looks it would be said that rows are written to all the time.
   */
  async #settle(suspects: Suspect[]): Promise<void> {
    const { settleMs, signal } = this.#options;
    let deadline = performance.now() + settleMs;
    let open = suspects;
    // Their buckets were opened.
    for (let looks = 1; open.length > 0;) {
      const late = looks > 1 && looks < LOOKS ? performance.now() + LATE_MARK_MS : 0;
      const lagging = await this.#passMarks(Math.max(deadline, late));
      if (lagging.length > 0) {
        for (const link of lagging) this.#lagging.set(`${link.from} ${link.to}`, link);
        return this.#giveUp(open, "lagging");
      }
      await this.#lookAgain(open);
      looks++;
      open = open.filter((suspect) => !this.#isDecided(suspect));
      deadline += await this.#handOver();
      signal.throwIfAborted();
      if (looks >= LOOKS && performance.now() >= deadline) return this.#giveUp(open, "changing");
    }
  }

  #isDecided(suspect: Suspect): boolean {
    const { hash, key, here, there, looks, awaited } = suspect;
    if (hasAgreed(suspect)) return true;
    if (here?.state === there?.state) {
      if (isSameVersion(here, there)) return true;
      if (looks < LOOKS) return false;
      this.#otherVersions++;
      return true;
    }
    if (looks < LOOKS || awaited) return false;
    if (this.#options.take !== undefined && key !== null) this.#found.push({ key, here, there });
    else this.#differences.push({ hash, key, here: here?.state ?? null, there: there?.state ?? null });
    return true;
  }

  /** How long that took, milliseconds: the rows that are not decided yet have as much time as before. */
  async #handOver(): Promise<number> {
    const found = this.#found;
    this.#found = [];
    if (found.length === 0) return 0;
    const begun = performance.now();
    await this.#options.take!(found);
    return performance.now() - begun;
  }

  #giveUp(open: readonly Suspect[], reason: "changing" | "lagging"): void {
    for (const { hash, key, here, there, awaited } of open) {
      // Alike, but for a version that may be on its way.
      if (here?.state === there?.state) continue;
      this.#undecided.push({ hash, key, reason: awaited ? "awaiting_values" : reason });
    }
  }

  /** Waits until each node has what the other had shown; what did not come that far in time. */
  async #passMarks(deadline: number): Promise<Link[]> {
    const { here, there, signal } = this.#options;
    const [mine, theirs] = await both(this.#options, (side) => side.mark());
    let lagging: Link[][] = [[], []];
    let [hereIsDone, thereIsDone] = [false, false];
    for (;;) {
      lagging = await Promise.all([
        hereIsDone ? [] : here.behind({ own: mine, other: theirs }),
        thereIsDone ? [] : there.behind({ own: theirs, other: mine }),
      ]);
      [hereIsDone, thereIsDone] = lagging.map((links) => links.length === 0);
      if (hereIsDone && thereIsDone || performance.now() >= deadline) return lagging.flat();
      await delay(MARK_POLL_MS, signal);
      signal.throwIfAborted();
    }
  }

  async #lookAgain(suspects: readonly Suspect[]): Promise<void> {
    const [mine, theirs] = await both(this.#options, (side) => this.#look(side, suspects));
    suspects.forEach((suspect, i) => {
      [suspect.here, suspect.there] = [mine[i], theirs[i]];
      suspect.awaited = isAwaited(mine[i]) || isAwaited(theirs[i]);
      note(suspect.seen.here, mine[i]);
      note(suspect.seen.there, theirs[i]);
      const shown = show(mine[i], theirs[i]);
      suspect.looks = shown === suspect.shown ? suspect.looks + 1 : 1;
      suspect.shown = shown;
    });
  }

  /** Rows of a multiset are found only by reading all of it. */
  async #look(side: Side, suspects: readonly Suspect[]): Promise<(ScannedRow | null)[]> {
    const { keyed, buckets } = this.#options.plan;
    if (keyed) return await side.look(suspects.map(({ key }) => key!));
    const places = suspects.map(({ hash }) => Number(hash & BigInt(buckets - 1)));
    const rows = await side.open([...new Set(places)]);
    if (rows === null) throw cannotOpen(side);
    return suspects.map(({ hash }) => rows.get(hash) ?? null);
  }
}

/** A side that keeps to what {@link Side.open} says never comes to this. */
function cannotOpen({ node }: Side): MmliteError {
  return new MmliteError("protocol", `Cannot compare rows with node "${node}": it takes them for too many`, {
    hint: "Run the same version of mmlite on both nodes",
  });
}

/** Both nodes at once. */
async function both<Result>(
  { here, there }: CompareOptions,
  work: (side: Side) => Promise<Result>,
): Promise<[Result, Result]> {
  return await Promise.all([work(here), work(there)]);
}

function show(here: ScannedRow | null, there: ScannedRow | null): string {
  return [here, there].map((row) => row === null ? "-" : `${row.state}/${row.stamp}`).join(" ");
}

function isSameVersion(here: ScannedRow | null, there: ScannedRow | null): boolean {
  const [mine, theirs] = [here, there].map((row) => (row as LookedUp | null)?.version ?? null);
  return mine === null || theirs === null || mine === theirs;
}

/** Keeps what a version holds; of many the latest ones. */
function note(seen: Map<string, bigint>, row: ScannedRow | null): void {
  const version = (row as LookedUp | null)?.version ?? null;
  if (row === null || version === null) return;
  seen.set(version, row.state);
  if (seen.size > SEEN_VERSIONS) seen.delete(seen.keys().next().value!);
}

/** Whether both nodes have shown the same of one version, be it not at the same time. */
function hasAgreed({ seen: { here, there } }: Suspect): boolean {
  return [...here].some(([version, state]) => there.get(version) === state);
}

function isAwaited(row: ScannedRow | null): boolean {
  return (row as LookedUp | null)?.awaited ?? false;
}
