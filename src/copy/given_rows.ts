/**
 * The rows of one snapshot on their way to one node, on as many channels as it asks for: each takes what is next. Tables
 * go one after the other, the largest first, and large ones in ranges of their pages.
 */
import { MmliteError } from "../errors.ts";
import type { CopiedBytes } from "../pg/copy_data.ts";
import type { CopiedPart, CopiedRange, CopiedTable, CopyReader } from "../pg/copy_reader.ts";
import type { Query } from "../pg/query.ts";
import type { LocalTable } from "../pg/tables.ts";
import type { Lines } from "../wire/lines.ts";

/** A table whose rows are given. */
export interface DescribedTable extends CopiedTable {
  readonly table: LocalTable;
  readonly binary: boolean;
}

interface GivenRowsOptions {
  /** This node's name, and that of the one that the rows go to. */
  readonly self: string;
  readonly peer: string;
  /** What was committed up to then counts as old. */
  readonly before: string;
  readonly tables: readonly DescribedTable[];
  /** Outside of the snapshot. */
  readonly query: Query;
  /** Another connection that reads the snapshot. */
  readonly openReader: () => Promise<CopyReader>;
}

/** Rows of a table that are read together. */
interface RangePlace {
  readonly table: number;
  readonly range: CopiedRange;
}

/** What one channel does next: a table that is to be divided first, or a range. */
type Work = RangePlace | { readonly table: number; readonly range?: undefined };

/** Newer rows that were found on another channel than the first, which alone gives them. */
interface LateRows extends RangePlace {
  readonly parts: readonly CopiedPart[];
}

/** The oldest time that a commit can be given: PostgreSQL takes 2000-01-01 itself for none, and the present instead. */
const LONG_AGO = "2000-01-01 00:00:00.000001+00";
/** Bytes of rows are announced when there are as many, or twice that at most: what is read of a socket is no longer. */
const CHUNK_BYTES = 0x2_0000;
/** Each has a connection of its own to the server; who takes rows opens two. */
const MAX_MORE_CHANNELS = 4;

/** See the module's head. */
export class GivenRows {
  readonly #options: GivenRowsOptions;
  /** Tables that nobody has begun, the largest first. */
  readonly #tables: number[];
  readonly #ranges: RangePlace[] = [];
  readonly #late: LateRows[] = [];
  /** Tables that are being divided. */
  #opening = 0;
  /** How many parts have been given. */
  #parts = 0;
  /** Channels beside the first. */
  #more = 0;
  #failure: { readonly thrown: unknown } | undefined;
  #changed = Promise.withResolvers<void>();

  constructor(options: GivenRowsOptions) {
    this.#options = options;
    const rowsOf = (index: number) => options.tables[index].estimatedRows;
    this.#tables = options.tables.map((_, index) => index).sort((a, b) => rowsOf(b) - rowsOf(a));
  }

  /** The node that they go to. */
  get peer(): string {
    return this.#options.peer;
  }

  /** Gives rows on the first channel; returns in how many parts, once all have been given on this one and the others. */
  async give(lines: Lines, reader: CopyReader): Promise<number> {
    const giver = new RangeGiver({ lines, reader, ...this.#options });
    await this.#giveNext(giver);
    while (this.#more > 0) await this.#changed.promise;
    this.#requireWhole();
    for (const { table, range, parts } of this.#late) {
      await giver.enter(table);
      await this.#giveParts(giver, { table, range }, parts);
    }
    await giver.leave();
    return this.#parts;
  }

  /** Gives rows on another channel: of those that are no older than anything that can come it leaves all to the first. */
  async giveMore(lines: Lines): Promise<void> {
    if (this.#more >= MAX_MORE_CHANNELS) {
      throw new MmliteError(
        "protocol",
        `Cannot give rows: more than ${MAX_MORE_CHANNELS} channels are asked for`,
      );
    }
    this.#more++;
    try {
      // Without one, those that there are do it.
      const reader = await this.#options.openReader().catch(() => undefined);
      if (reader === undefined) return;
      try {
        const giver = new RangeGiver({ lines, reader, ...this.#options });
        await this.#giveNext(giver, (late) => this.#late.push(late));
        await giver.leave();
      } finally {
        await reader.close();
      }
    } finally {
      this.#more--;
      this.#change();
    }
  }

  async #giveNext(giver: RangeGiver, leave?: (late: LateRows) => void): Promise<void> {
    try {
      for (let work = await this.#next(); work !== undefined; work = await this.#next()) {
        await giver.enter(work.table);
        const ranges = work.range === undefined ? await this.#open(giver) : [work.range];
        for (const range of ranges) {
          const place = { table: work.table, range };
          const parts = await giver.parts(range);
          const late = leave === undefined ? [] : parts.filter(({ kind }) => kind !== "old");
          if (late.length > 0) leave!({ ...place, parts: late });
          await this.#giveParts(giver, place, parts.filter((part) => !late.includes(part)));
        }
      }
    } catch (thrown) {
      this.#failure ??= { thrown };
      this.#change();
      throw thrown;
    }
  }

  async #giveParts(giver: RangeGiver, place: RangePlace, parts: readonly CopiedPart[]): Promise<void> {
    await giver.give(place, parts);
    this.#parts += parts.length;
  }

  /** Divides the table that was entered; returns what is to be given at once, and leaves the others to whoever comes. */
  async #open(giver: RangeGiver): Promise<CopiedRange[]> {
    const [first, ...others] = await giver.ranges();
    this.#ranges.push(...others.map((range) => ({ table: giver.table!, range })));
    this.#opening--;
    this.#change();
    return first === undefined ? [] : [first];
  }

  /** Undefined when there is nothing left, and nothing more comes. */
  async #next(): Promise<Work | undefined> {
    for (;;) {
      this.#requireWhole();
      const range = this.#ranges.shift();
      if (range !== undefined) return range;
      const table = this.#tables.shift();
      if (table !== undefined) {
        this.#opening++;
        return { table };
      }
      if (this.#opening === 0) return undefined;
      await this.#changed.promise;
    }
  }

  /** Throws what has gone wrong on any channel. */
  #requireWhole(): void {
    if (this.#failure !== undefined) throw this.#failure.thrown;
  }

  #change(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}

/** Gives rows on one channel, out of one connection. A table is locked from its first range there to the next table. */
class RangeGiver {
  readonly #options: GivenRowsOptions & { readonly lines: Lines; readonly reader: CopyReader };
  /** The table that is locked. */
  table: number | undefined;

  constructor(options: GivenRowsOptions & { readonly lines: Lines; readonly reader: CopyReader }) {
    this.#options = options;
  }

  /** Goes over to a table. */
  async enter(table: number): Promise<void> {
    if (table === this.table) return;
    const { reader, tables, query } = this.#options;
    await reader.begin();
    await reader.requireUnchanged(tables[table].table, query);
    this.table = table;
  }

  /** Lets go of it. */
  async leave(): Promise<void> {
    this.table = undefined;
    await this.#options.reader.end();
  }

  async ranges(): Promise<CopiedRange[]> {
    const { reader, tables } = this.#options;
    return await reader.ranges(tables[this.table!].table);
  }

  async parts(range: CopiedRange): Promise<CopiedPart[]> {
    const { reader, before } = this.#options;
    await reader.requireUnmoved(range);
    return await reader.parts(range, before);
  }

  async give({ table, range }: RangePlace, parts: readonly CopiedPart[]): Promise<void> {
    const { lines, reader, tables, before } = this.#options;
    const { columns, binary } = tables[table];
    await reader.requireUnmoved(range);
    for (const part of parts) {
      const version = this.#versionOf(part);
      await lines.write({ part: { table, version, binary: binary && version !== null } });
      await this.#giveRows(reader.read({ range, columns, binary, part, before }));
      await lines.write({ end: "part" });
    }
  }

  async #giveRows(parts: AsyncIterable<CopiedBytes>): Promise<void> {
    const { lines } = this.#options;
    let pieces: Uint8Array[] = [];
    let [data, rows] = [0, 0];
    for await (const { bytes, rows: more } of parts) {
      pieces.push(bytes);
      data += bytes.length;
      rows += more;
      if (data < CHUNK_BYTES) continue;
      await lines.writeWith({ data, rows }, pieces);
      [pieces, data, rows] = [[], 0, 0];
    }
    if (data > 0) await lines.writeWith({ data, rows }, pieces);
  }

  /** What old rows have is a version that is older than whatever can come: which one makes no difference. */
  #versionOf(part: CopiedPart): { node: string; at: string } | null {
    const { self, before } = this.#options;
    switch (part.kind) {
      case "old":
        return { node: self, at: before === "-infinity" ? LONG_AGO : before };
      case "one":
        return { node: part.node === "" ? self : part.node, at: part.at };
      case "each":
        return null;
    }
  }
}
