/**
 * One of the two nodes whose tables are compared, as the comparison sees it: this node's database, or a peer that is
 * asked over the network.
 */
import type { Mark } from "../pg/marks.ts";
import type { LookedUp, ScannedRow } from "../pg/table_scan.ts";
import type { Version, WholeRow } from "../pg/whole_rows.ts";
import type { TableName } from "../table_name.ts";

/** A table as one node has it. */
export interface TableShape extends TableName {
  /** Columns that are compared, by name. */
  readonly columns: readonly string[];
  /** Columns that rows are looked up by, by name; empty where they cannot be. */
  readonly key: readonly string[];
  readonly estimatedRows: number;
  /** It is marked as one of which nodes may hold different rows. */
  readonly diverged: boolean;
}

/** How a table is compared. */
export interface ComparisonPlan {
  readonly table: TableName;
  /** Whether rows are told apart by their key, or are a multiset. */
  readonly keyed: boolean;
  /** A power of two. */
  readonly buckets: number;
  /** Of the time, the share in which the servers read: above 0, up to 1. */
  readonly share: number;
}

/** Each value of a key as the hexadecimal digits of its text's bytes, in the order of the key's columns. */
export type Key = readonly string[];

/** One node; one table at a time. */
export interface Side {
  /** The node's name. */
  readonly node: string;
  /** The tables that it replicates. */
  tables(): Promise<TableShape[]>;
  /** Reads a table; `read` is told of rows as they are read. Whatever is asked next is about this table. */
  read(
    plan: ComparisonPlan,
    read: (rows: number) => void,
  ): Promise<{ readonly rows: number; readonly total: bigint }>;
  /** The sum over each group of buckets. */
  groups(): Promise<BigUint64Array>;
  /** The sums of all buckets of some groups, one group after the other. */
  bucketsOf(groups: readonly number[]): Promise<BigUint64Array>;
  /**
   * The rows of some buckets, as they are now, by the hash of their key; null if these are too many at once: one never is, nor are
   * those of a multiset.
   */
  open(buckets: readonly number[]): Promise<Map<bigint, ScannedRow> | null>;
  /** Keys of rows that were opened last; null for one that was not there. */
  keys(hashes: readonly bigint[]): Promise<(Key | null)[]>;
  /** Rows as they are now. */
  look(keys: readonly Key[]): Promise<(LookedUp | null)[]>;
  /** Rows with all their values, of the first keys as many as one answer holds: one at least. */
  rows(keys: readonly Key[]): Promise<WholeRow[]>;
  /** Sets a mark behind all that it has shown. */
  mark(): Promise<Mark>;
  /** What it waits for until both nodes have passed each other's marks; empty when that is so on its part. */
  behind(marks: { readonly own: Mark; readonly other: Mark }): Promise<Link[]>;
}

/** A row that one node is to have as the other has it. */
export interface WantedRow {
  readonly key: Key;
  /** Of the row that is there, as it was looked at; null for none. */
  readonly stamp: number | null;
  /** Null if there is to be none. */
  readonly values: readonly (string | null)[] | null;
  readonly version: Version | null;
}

/** What became of it: written, left as it has changed meanwhile, or refused and why. */
export type WriteOutcome = "written" | "changed" | { readonly refused: string };

/** Writes rows of one node. */
export interface RowWriter {
  /** Before a table is read: rows that are written next are of it. */
  begin(table: TableName): Promise<void>;
  /** With `alone` what is refused is tried by itself, so that it is said what by. */
  write(rows: readonly WantedRow[], options?: { readonly alone?: boolean }): Promise<WriteOutcome[]>;
}

/** Replication from one node to another. */
export interface Link {
  readonly from: string;
  readonly to: string;
}

/** Groups of buckets that are compared before the buckets. */
export const GROUPS = 256;

/** The sums of groups from those of buckets. */
export function groupSums(sums: BigUint64Array): BigUint64Array {
  const groups = new BigUint64Array(Math.min(GROUPS, sums.length));
  const size = sums.length / groups.length;
  for (let bucket = 0; bucket < sums.length; bucket++) groups[Math.floor(bucket / size)] += sums[bucket];
  return groups;
}

/** The sums of all buckets of some groups. */
export function sumsOfGroups(sums: BigUint64Array, groups: readonly number[]): BigUint64Array {
  const size = sums.length / Math.min(GROUPS, sums.length);
  const found = new BigUint64Array(groups.length * size);
  groups.forEach((group, i) => found.set(sums.subarray(group * size, (group + 1) * size), i * size));
  return found;
}

/** The sum over all buckets. */
export function totalOf(sums: BigUint64Array): bigint {
  return BigInt.asUintN(64, sums.reduce((total, sum) => total + sum, 0n));
}
