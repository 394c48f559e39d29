/**
 * What a table holds, in buckets of its rows: sums over each, the rows of some, and rows looked up by key.
 *
 * A row's bucket follows from the hash of its key, which is the same on every server whatever its collations; sums do
 * not depend on the order in which rows are read. Where no key can be looked up by, the row itself is the key.
 */
import { Buffer } from "node:buffer";
// @ts-types="@types/pg"
import pg from "pg";
import { delay } from "../backoff.ts";
import type { Query, Row } from "./query.ts";
import { hashOf, rowsOf } from "./row_hash.ts";
import {
  hashOfKey,
  keyMatches,
  keyOfText,
  keyParameters,
  keyText,
  leavesOf,
  type ScannedTable,
  versionColumns,
  versionHash,
  wantedKeys,
} from "./scanned_table.ts";

/** How a table is read. */
export interface ScanOptions {
  /** Whether rows are told apart by their key, or are a multiset. */
  readonly keyed: boolean;
  /** A power of two, at most {@link MAX_BUCKETS}. */
  readonly buckets: number;
  /** Of the time, the share in which the server reads: above 0, up to 1. */
  readonly share: number;
  readonly signal: AbortSignal;
}

/** A row as it is compared. Of a multiset: rows that are alike. */
export interface ScannedRow {
  /** Its hash, 64 bits; of a multiset how many there are. */
  readonly state: bigint;
  /** Changes whenever it is written. */
  readonly stamp: number;
}

/** A row that was looked up. */
export interface LookedUp extends ScannedRow {
  /** When it was written, and by which node; null where that is not known any more. */
  readonly version: string | null;
  /** Some of its values have not come yet. */
  readonly awaited: boolean;
}

/** Most buckets that a table is read in. */
export const MAX_BUCKETS = 0x1_0000;
/** Pages that one statement reads, at least: half a second of work, after which others may have their turn. */
const CHUNK_PAGES = 4096;
/** Most statements that a table or partition is read by: each answers with a row for every bucket. */
const MAX_CHUNKS = 16;
/** Rows of opened buckets that are taken from the server at a time. */
const FETCH_ROWS = 5_000;
/** Most digits of keys that are kept of several buckets. */
const MAX_KEY_DIGITS = 32 * 0x10_0000;
/** From this release on the server reads a range of pages without reading the others. */
const PAGE_RANGE_VERSION = 140_000;
/** Added for each row of a bucket, so that sums tell how many there are. */
const ROW_WEIGHT = 0x9e37_79b9_7f4a_7c15n;

/** Of a table what one statement reads: a FROM clause, and a condition on the place of rows. */
interface Part {
  readonly from: string;
  readonly pages: string;
}

/** One table, on one connection. */
export class TableScan {
  readonly #query: Query;
  readonly #scanned: ScannedTable;
  readonly #options: ScanOptions;
  readonly #serverVersion: number;
  /** Of the rows that were opened, by the hash of their key. */
  readonly #keys = new Map<bigint, readonly string[]>();

  constructor(query: Query, scanned: ScannedTable, options: ScanOptions & { serverVersion: number }) {
    this.#query = query;
    this.#scanned = scanned;
    this.#options = options;
    this.#serverVersion = options.serverVersion;
  }

  /** The sum over the rows of each bucket, and how many rows there are; `read` is told of them as they are read. */
  async sums(read: (rows: number) => void): Promise<{ rows: number; sums: BigUint64Array }> {
    const { keyed, buckets } = this.#options;
    const sums = new BigUint64Array(buckets);
    let count = 0;
    const hash = keyed ? "km" : "rm";
    await this.#readParts(
      ({ from, pages }) =>
        `SELECT bucket::text, count(*)::text AS rows, sum(hashtext(rm))::text AS low,
              sum(hashtext(left(rm, 20)))::text AS high
         FROM (SELECT hashtext(${hash}) & ${buckets - 1} AS bucket, rm FROM (
           SELECT ${keyed ? hashOf(this.#scanned.key) : "NULL"} AS km, ${hashOf(this.#scanned.columns)} AS rm
             FROM ${from} WHERE ${pages} OFFSET 0) hashes) placed GROUP BY bucket`,
      { params: [] },
      (rows) => {
        let more = 0;
        for (const row of rows) {
          const bucket = Number(row.bucket);
          more += Number(row.rows);
          sums[bucket] += BigInt(row.rows!) * ROW_WEIGHT + BigInt(row.low!) + (BigInt(row.high!) << 32n);
        }
        count += more;
        read(more);
        return true;
      },
    );
    return { rows: count, sums };
  }

  /**
   * The rows of some buckets by the hash of their key; {@link TableScan.keysOf} knows their keys from then on. Null if
   * there are several buckets and their keys are too long to be kept all at once.
   */
  async open(buckets: readonly number[]): Promise<Map<bigint, ScannedRow> | null> {
    const found = new Map<bigint, ScannedRow>();
    const mayKeep = buckets.length > 1 ? MAX_KEY_DIGITS : Infinity;
    let digits = 0;
    const isWhole = await this.#readParts(
      (part) => this.#openSql(part),
      { params: [bitmap(buckets, this.#options.buckets)], fetchRows: FETCH_ROWS },
      (rows) => {
        for (const row of rows) digits += this.#add(found, row);
        return digits <= mayKeep;
      },
    );
    if (!isWhole) this.forget();
    return isWhole ? found : null;
  }

  #openSql({ from, pages }: Part): string {
    const { columns, key } = this.#scanned;
    const wanted = (hash: string) =>
      `get_bit($1::bytea, hashtext(${hash}) & ${this.#options.buckets - 1}) = 1`;
    if (this.#options.keyed) {
      const values = key.map((column, i) => `, ${keyText(column)} AS k${i}`).join("");
      return `SELECT ${parts("km", "key")}, ${parts("rm", "state")}, stamp${
        key.map((_, i) => `, k${i}`).join("")
      }
        FROM (SELECT ${hashOf(key)} AS km, ${hashOf(columns)} AS rm, t.xmin::text AS stamp${values}
          FROM ${from} WHERE ${pages} AND ${wanted(hashOf(key))} OFFSET 0) hashes`;
    }
    return `SELECT ${parts("rm", "key")}, count(*)::text AS rows, sum(xmin)::text AS stamp
      FROM (SELECT ${
      hashOf(columns)
    } AS rm, t.xmin::text::bigint AS xmin FROM ${from} WHERE ${pages} OFFSET 0) hashes
      WHERE ${wanted("rm")} GROUP BY rm`;
  }

  /** Adds a row; how many digits are kept of its key. */
  #add(found: Map<bigint, ScannedRow>, row: Row): number {
    const key = join(row.key_low!, row.key_high!);
    const state = this.#options.keyed ? join(row.state_low!, row.state_high!) : BigInt(row.rows!);
    const stamp = Number(BigInt.asUintN(32, BigInt(row.stamp!)));
    found.set(key, merge(found.get(key), { state, stamp }));
    if (!this.#options.keyed) return 0;
    const values = this.#scanned.key.map((column, i) => keyOfText(column, row[`k${i}`]!));
    this.#keys.set(key, values);
    return values.reduce((digits, value) => digits + value.length, 0);
  }

  /** Keys of rows that were opened: each value as the hexadecimal digits of its text's bytes, UTF-8 where that is known. */
  keysOf(hashes: readonly bigint[]): (readonly string[] | null)[] {
    return hashes.map((hash) => this.#keys.get(hash) ?? null);
  }

  /** Forgets the keys of rows that were opened. */
  forget(): void {
    this.#keys.clear();
  }

  /** Rows by their keys, null where there is none. */
  async look(keys: readonly (readonly string[])[]): Promise<(LookedUp | null)[]> {
    const { table, key, columns } = this.#scanned;
    const found = new Array<LookedUp | null>(keys.length).fill(null);
    if (keys.length === 0) return found;
    const awaited = await this.#awaited();
    const rows = await this.#query(
      `SELECT q.n::text, ${parts("o.rm", "state")}, o.stamp,
              ${awaited.size === 0 ? "NULL" : `${hashOfKey(this.#scanned, "o")}::text`} AS hash,
              CASE WHEN current_setting('track_commit_timestamp')::boolean THEN (
                SELECT (v.at AT TIME ZONE 'UTC')::text || ' ' || v.node
                  FROM mmlite.row_version(o.xmin, ${versionHash(this.#scanned, "o")}) v
              ) END AS version
         FROM ${wantedKeys(key)},
           LATERAL (SELECT ${hashOf(columns)} AS rm, t.xmin::text AS stamp, ${versionColumns(this.#scanned)}
                FROM ${rowsOf(table)} t WHERE ${keyMatches(key)} OFFSET 0) o`,
      keyParameters(this.#scanned, keys),
    );
    for (const row of rows) {
      const at = Number(row.n) - 1;
      const scanned = { state: join(row.state_low!, row.state_high!), stamp: Number(row.stamp) };
      found[at] = {
        ...merge(found[at] ?? undefined, scanned),
        version: row.version,
        awaited: row.hash !== null && awaited.has(row.hash),
      };
    }
    return found;
  }

  /** Hashes of keys of which values are awaited. */
  async #awaited(): Promise<Set<string>> {
    const rows = await this.#query(
      "SELECT DISTINCT hash::text FROM mmlite.unsent",
    );
    return new Set(rows.map(({ hash }) => hash!));
  }

  /**
   * Reads the table in parts, all of them as it was at one moment; rests between them. `take` says whether it takes
   * more; false if it did not. With `fetchRows` no more are held at a time.
   */
  async #readParts(
    sql: (part: Part) => string,
    { params, fetchRows }: { readonly params: readonly string[]; readonly fetchRows?: number },
    take: (rows: readonly Row[]) => boolean,
  ): Promise<boolean> {
    const { share, signal } = this.#options;
    let restMs = 0;
    await this.#query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    try {
      for (const part of await this.#parts()) {
        await delay(restMs, signal);
        signal.throwIfAborted();
        const begun = performance.now();
        const takesMore = fetchRows === undefined
          ? take(await this.#query(sql(part), params.length === 0 ? undefined : params))
          : await this.#fetch(sql(part), { params, fetchRows }, take);
        const tookMs = performance.now() - begun;
        if (!takesMore) return false;
        restMs = tookMs * (1 - share) / share;
      }
    } finally {
      await this.#query("COMMIT").catch(() => {});
    }
    // Without a snapshot, for which the server would keep old rows.
    await delay(restMs, signal);
    return true;
  }

  /** Reads through a cursor; false if `take` takes no more. */
  async #fetch(
    sql: string,
    { params, fetchRows }: { readonly params: readonly string[]; readonly fetchRows: number },
    take: (rows: readonly Row[]) => boolean,
  ): Promise<boolean> {
    await this.#query(`DECLARE opened NO SCROLL CURSOR FOR ${sql}`, params);
    for (;;) {
      const rows = await this.#query(`FETCH ${fetchRows} FROM opened`);
      if (!take(rows)) return false;
      if (rows.length < fetchRows) break;
    }
    await this.#query("CLOSE opened");
    return true;
  }

  /** Parts that together are the table. */
  async #parts(): Promise<Part[]> {
    const leaves = await this.#query(
      `${leavesOf(this.#scanned.table)} SELECT schema, name,
         (pg_relation_size(oid) / current_setting('block_size')::int)::text AS pages FROM leaf`,
    );
    return leaves.flatMap(({ schema, name, pages }) => {
      const from = `ONLY ${pg.escapeIdentifier(schema!)}.${pg.escapeIdentifier(name!)} t`;
      const ranges = this.#serverVersion < PAGE_RANGE_VERSION ? ["true"] : pageRanges(Number(pages));
      return ranges.map((range) => ({ from, pages: range }));
    });
  }
}

/** Conditions that together hold for every row; the last one for pages too that have come since. */
function pageRanges(pages: number): string[] {
  const step = Math.max(CHUNK_PAGES, Math.ceil(pages / MAX_CHUNKS));
  const bounds: number[] = [];
  for (let page = step; page < pages; page += step) bounds.push(page);
  if (bounds.length === 0) return ["true"];
  const place = (page: number) => `'(${page},0)'::tid`;
  return [0, ...bounds].map((page, i) => {
    const upper = i < bounds.length ? ` AND t.ctid < ${place(bounds[i])}` : "";
    return `t.ctid >= ${place(page)}${upper}`;
  });
}

/** Two columns that make up 64 bits of an MD5 in text. */
function parts(hash: string, name: string): string {
  return `hashtext(${hash})::text AS ${name}_low, hashtext(left(${hash}, 20))::text AS ${name}_high`;
}

function join(low: string, high: string): bigint {
  return BigInt.asUintN(64, BigInt.asUintN(32, BigInt(low)) | (BigInt(high) << 32n));
}

/** Rows of a multiset that lie in several parts, and rows that a key should have told apart. */
function merge(one: ScannedRow | undefined, other: ScannedRow): ScannedRow {
  if (one === undefined) return other;
  return {
    state: BigInt.asUintN(64, one.state + other.state),
    stamp: (one.stamp + other.stamp) >>> 0,
  };
}

function bitmap(places: readonly number[], size: number): string {
  const bits = Buffer.alloc(Math.ceil(size / 8));
  for (const place of places) bits[place >> 3] |= 1 << (place & 7);
  return `\\x${bits.toString("hex")}`;
}
