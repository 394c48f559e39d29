/**
 * Conflicts as they are noted, none left out: a sequence gives ids before they are committed, so that a lower one may
 * show after a higher.
 *
 * What has been given out is remembered above a floor, below which nothing can show any more: an id is given to a
 * transaction that writes, so once all that wrote at a moment are over, every id of that time is there or never will
 * be. A reader that begins again at a floor gets some conflicts twice and misses none.
 */
import {
  type ConflictRow,
  readConflictsAbove,
  readConflictWriters,
  readLastConflictId,
} from "../pg/conflicts.ts";
import type { Query } from "../pg/query.ts";

/** Conflicts of one look; more follow at once. */
const MAX_LOOK = 500;
/** How far below the last id one is looked for that is still to be committed: more than are noted in one transaction's
 * time. */
const REACH = 1_000n;
/** Ids remembered above the floor at most; with more, because a transaction runs for hours, the floor moves on. */
const MAX_REMEMBERED = 10_000;

/** A conflict, and where a reader that has it goes on. */
export interface FedConflict {
  readonly conflict: ConflictRow;
  readonly position: string;
}

/** See the module's head. */
export class ConflictFeed {
  readonly #query: Query;
  /** Everything up to here was given out, or never will be there. */
  #floor: bigint;
  #given = new Set<bigint>();
  /** The last id at some moments, and who wrote then. */
  #marks: { readonly last: bigint; readonly writers: readonly string[] }[] = [];

  private constructor(query: Query, floor: bigint) {
    this.#query = query;
    this.#floor = floor;
  }

  /** Goes on after a position. */
  static after(query: Query, position: string): ConflictFeed {
    return new ConflictFeed(query, BigInt(position));
  }

  /** Begins with what is committed from now on. */
  static async fromNow(query: Query): Promise<ConflictFeed> {
    const last = await readLastConflictId(query);
    const feed = new ConflictFeed(query, last > REACH ? last - REACH : 0n);
    while ((await feed.#look()).length === MAX_LOOK);
    return feed;
  }

  /** What has been committed since the last call, or the first part of it; `more` says that the rest is there. */
  async read(): Promise<{ readonly fed: readonly FedConflict[]; readonly more: boolean }> {
    const conflicts = await this.#look();
    let position = this.#floor;
    const fed: FedConflict[] = [];
    // Who has only those before one goes on before that one.
    for (const conflict of conflicts.toReversed()) {
      fed.push({ conflict, position: String(position) });
      const id = BigInt(conflict.id);
      if (id <= position) position = id - 1n;
    }
    return { fed: fed.reverse(), more: conflicts.length === MAX_LOOK };
  }

  /** The order of the three matters: whoever has an id by now writes then, or its row shows. */
  async #look(): Promise<readonly ConflictRow[]> {
    const last = await readLastConflictId(this.#query);
    // A position of another life of the database.
    if (last < this.#floor) this.#floor = last;
    const writers = await readConflictWriters(this.#query);
    const conflicts = await readConflictsAbove(this.#query, {
      above: this.#floor,
      except: [...this.#given],
      limit: MAX_LOOK,
    });
    for (const { id } of conflicts) this.#given.add(BigInt(id));
    if (last > (this.#marks.at(-1)?.last ?? this.#floor)) this.#marks.push({ last, writers });
    // Of a full look nothing is known beyond its last.
    const seen = conflicts.length < MAX_LOOK ? last : BigInt(conflicts.at(-1)!.id);
    this.#settle(new Set(writers), seen);
    this.#raise();
    return conflicts;
  }

  /** All that wrote at a mark are over: what is not there up to its id never will be. */
  #settle(writing: ReadonlySet<string>, seen: bigint): void {
    for (const { last, writers } of this.#marks) {
      if (writers.some((writer) => writing.has(writer))) continue;
      const settled = last < seen ? last : seen;
      if (settled > this.#floor) this.#floor = settled;
    }
  }

  #raise(): void {
    while (this.#given.has(this.#floor + 1n)) this.#floor++;
    if (this.#given.size > MAX_REMEMBERED) {
      const ids = [...this.#given].sort((a, b) => (a < b ? -1 : 1));
      this.#floor = ids[ids.length - MAX_REMEMBERED];
    }
    this.#given = new Set([...this.#given].filter((id) => id > this.#floor));
    this.#marks = this.#marks.filter(({ last }) => last > this.#floor);
  }
}
