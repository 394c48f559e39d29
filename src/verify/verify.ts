/**
 * Compares the tables of this node with those of another one, and says for people what was found.
 */
import { Buffer } from "node:buffer";
import { MmliteError, toMmliteError } from "../errors.ts";
import { parseTablePattern, tableMatcher } from "../pg/table_pattern.ts";
import { MAX_BUCKETS } from "../pg/table_scan.ts";
import { formatTableName, tableKey, type TableName } from "../table_name.ts";
import { compareTable, type Comparison, type Difference, type DifferingRow } from "./compare.ts";
import type { ComparisonPlan, Key, Side, TableShape } from "./side.ts";

/** What {@link verifyTables} needs. */
export interface VerifyOptions {
  readonly here: Side;
  readonly there: Side;
  /** Which tables; all where left out. */
  readonly patterns: readonly string[] | undefined;
  /** Of the time, the share in which the servers read: above 0, up to 1. */
  readonly share: number;
  /** Keys to report of a table. */
  readonly limit: number;
  /** How long keys are looked at again, milliseconds. */
  readonly settleMs: number;
  readonly progress: VerifyProgress;
  /** Begins to repair a table whose rows can be looked up; all of its differences are handed over then. */
  readonly repair?: (table: TableName) => Promise<TableRepair>;
  readonly signal: AbortSignal;
}

/** Takes what differs of one table. */
export interface TableRepair {
  take(rows: readonly DifferingRow[]): Promise<void>;
  /** After all of it. */
  end(): Promise<Repairs>;
}

/** Rows that were written. */
export interface RepairCounts {
  readonly overwritten: number;
  readonly inserted: number;
  readonly deleted: number;
}

/** What came of the rows of a table that differed. */
export interface Repairs extends RepairCounts {
  /** At the other node, if rows were written there too. */
  readonly given: RepairCounts;
  /** Rows that were not as they had been seen any more, on either node, and were left. */
  readonly changed_meanwhile: number;
  /** Rows that could not be written. */
  readonly refused: number;
  /** The first of them. */
  readonly refusals: readonly Refusal[];
  /** What would be written if it were no dry run, the first of it. */
  readonly planned: readonly PlannedRow[];
  /** How many rows would be. */
  readonly plans: number;
}

/** A row that would be written, and on which node. */
export interface PlannedRow {
  readonly key: Readonly<Record<string, string>>;
  readonly action: "overwrite" | "insert" | "delete";
  readonly node: string;
}

/** A row that could not be written, and why. */
export interface Refusal {
  readonly key: Readonly<Record<string, string>>;
  readonly reason: string;
}

/** Is told how far it is. */
export interface VerifyProgress {
  /** Before the first table is read: how many rows there are, about. */
  readonly expect: (rows: number) => void;
  /** Rows were read here. */
  readonly read: (rows: number) => void;
}

/** A row that differs: its key by column, or of a table without key how often the same row is on each node. */
export type ReportedRow =
  | { readonly key: Readonly<Record<string, string>>; readonly difference: RowDifference }
  | { readonly row_hash: string; readonly here: number; readonly there: number };

/** How a row differs. */
export type RowDifference = "only_here" | "only_there" | "other_values";

/** A row of which it could not be told whether it differs. */
export interface UndecidedRow {
  readonly key: Readonly<Record<string, string>> | null;
  readonly reason: "changing" | "lagging" | "awaiting_values";
}

/** How a table compares. */
export interface VerifiedTable {
  readonly table: string;
  readonly outcome: "equal" | "differs" | "undecided";
  /** Why the rows were not compared, or not to the end; empty if they were. */
  readonly problem: string;
  /** When they were read; null where they were not. */
  readonly rows: { readonly here: number; readonly there: number } | null;
  readonly differences: readonly ReportedRow[];
  readonly undecided: readonly UndecidedRow[];
  /** Whether all differences are listed. */
  readonly complete: boolean;
  /** Rows that were looked at more than once and are alike, but for their versions. */
  readonly other_versions: number;
  /** It was marked as diverged, on either node. */
  readonly diverged: boolean;
  /** Of a repair, where the table could be compared and rows can be looked up; differences are not listed then. */
  readonly repairs?: Repairs;
}

/** Rows of a bucket, about: few, so that little is opened because of one that differs. */
const ROWS_PER_BUCKET = 32;
/** As `settleMs`, for a table after one that replication did not come far enough for. */
const LAGGING_SETTLE_MS = 2_000;
const MIN_BUCKETS = 256;

/** Compares all wanted tables that either node replicates, one after the other. Throws where a node cannot be asked. */
export async function verifyTables(options: VerifyOptions): Promise<VerifiedTable[]> {
  const { here, there, patterns, progress } = options;
  const [mine, theirs] = await Promise.all([here.tables(), there.tables()]);
  requireMatches(patterns ?? [], [...mine, ...theirs]);
  const isWanted = tableMatcher({ include: patterns ?? ["*.*"] });
  const byKey = (tables: readonly TableShape[]) =>
    new Map(tables.filter(isWanted).map((one) => [tableKey(one), one]));
  const [my, their] = [byKey(mine), byKey(theirs)];
  progress.expect([...my.values()].reduce((rows, { estimatedRows }) => rows + estimatedRows, 0));
  const keys = [...new Set([...my.keys(), ...their.keys()])].sort();
  const verified: VerifiedTable[] = [];
  let { settleMs } = options;
  for (const key of keys) {
    const table = await verifyTable({ ...options, settleMs }, my.get(key), their.get(key));
    // Replication that stands still is not waited for with every table.
    const isLagging = table.undecided.some(({ reason }) => reason === "lagging");
    settleMs = isLagging ? Math.min(LAGGING_SETTLE_MS, options.settleMs) : options.settleMs;
    verified.push(table);
  }
  return verified;
}

/** Throws `invalid_input` where a pattern stands for no table on either node. */
function requireMatches(patterns: readonly string[], tables: readonly TableName[]): void {
  const unmatched = patterns.filter((pattern) => !tables.some(parseTablePattern(pattern)));
  if (unmatched.length === 0) return;
  throw new MmliteError(
    "invalid_input",
    `Cannot verify ${unmatched.join(", ")}: no such table is replicated`,
    {
      hint: "`mmlite tables list` shows the tables that this node replicates",
    },
  );
}

async function verifyTable(
  options: VerifyOptions,
  mine: TableShape | undefined,
  theirs: TableShape | undefined,
): Promise<VerifiedTable> {
  const { here, there, share, limit, settleMs, signal, progress } = options;
  const { schema, name } = (mine ?? theirs)!;
  const untouched: VerifiedTable = {
    ...{
      table: formatTableName({ schema, name }),
      outcome: "differs",
      problem: "",
      rows: null,
    },
    ...{ differences: [], undecided: [], complete: false, other_versions: 0 },
    diverged: (mine?.diverged ?? false) || (theirs?.diverged ?? false),
  };
  const unlike = howUnlike(options, mine, theirs);
  if (unlike !== null || mine === undefined || theirs === undefined) {
    return { ...untouched, problem: unlike ?? "" };
  }
  const plan = planOf(mine, theirs, share);
  try {
    const repair = plan.keyed ? await options.repair?.(plan.table) : undefined;
    const found = await compareTable({
      ...{ here, there, plan, settleMs, read: progress.read, signal },
      limit: repair === undefined ? limit : Infinity,
      take: repair && ((rows) => repair.take(rows)),
    });
    const report = { ...untouched, ...toReport(found, plan.keyed ? mine.key : null) };
    return repair === undefined ? report : repaired(report, await repair.end());
  } catch (thrown) {
    const error = toMmliteError(thrown);
    if (!isOfTable(error)) throw error;
    return { ...untouched, outcome: "undecided", problem: error.message };
  }
}

/** The table as it is after its repair: equal, but for what was left. */
function repaired(report: VerifiedTable, repairs: Repairs): VerifiedTable {
  const outcome = repairs.refused > 0 || repairs.plans > 0
    ? "differs"
    : repairs.changed_meanwhile > 0 && report.outcome === "equal"
    ? "undecided"
    : report.outcome;
  const complete = report.complete && repairs.planned.length === repairs.plans;
  return { ...report, outcome, complete, repairs };
}

/** Whether an error is about one table, so that the others can be compared all the same. */
function isOfTable({ kind }: MmliteError): boolean {
  return ["not_found", "permission", "schema_mismatch", "apply_failed", "internal"].includes(kind);
}

/** Why the rows of two tables cannot be compared, or null. */
function howUnlike(
  { here, there }: VerifyOptions,
  mine: TableShape | undefined,
  theirs: TableShape | undefined,
): string | null {
  if (theirs === undefined) return `not replicated by "${there.node}"`;
  if (mine === undefined) return `not replicated by "${here.node}"`;
  const only = (one: TableShape, other: TableShape, node: string) => {
    const names = one.columns.filter((column) => !other.columns.includes(column));
    return names.length === 0 ? [] : [`only on "${node}": ${names.join(", ")}`];
  };
  const differences = [...only(mine, theirs, here.node), ...only(theirs, mine, there.node)];
  return differences.length === 0 ? null : `other columns, ${differences.join("; ")}`;
}

/** Whichever node is asked, both read in the same buckets. */
function planOf(mine: TableShape, theirs: TableShape, share: number): ComparisonPlan {
  const rows = Math.max(mine.estimatedRows, theirs.estimatedRows);
  const buckets = 2 ** Math.ceil(Math.log2(Math.max(1, rows / ROWS_PER_BUCKET)));
  const keyed = mine.key.length > 0 && JSON.stringify(mine.key) === JSON.stringify(theirs.key);
  return {
    table: { schema: mine.schema, name: mine.name },
    keyed,
    buckets: Math.min(MAX_BUCKETS, Math.max(MIN_BUCKETS, buckets)),
    share,
  };
}

function toReport(found: Comparison, columns: readonly string[] | null) {
  const { rows, differences, undecided, complete, otherVersions, lagging } = found;
  const links = lagging.map(({ from, to }) => `from "${from}" to "${to}"`).join(", ");
  return {
    outcome: differences.length > 0
      ? "differs" as const
      : undecided.length > 0
      ? "undecided" as const
      : "equal" as const,
    problem: lagging.length === 0 ? "" : `replication did not come far enough in time ${links}`,
    rows,
    differences: differences.map((one) => toRow(one, columns)),
    undecided: undecided.map(({ key, reason }) => ({ key: toKey(key, columns), reason })),
    complete: complete && undecided.length === 0,
    other_versions: otherVersions,
  };
}

function toRow({ hash, key, here, there }: Difference, columns: readonly string[] | null): ReportedRow {
  const named = toKey(key, columns);
  if (named === null) {
    return {
      row_hash: hash.toString(16).padStart(16, "0"),
      here: Number(here ?? 0n),
      there: Number(there ?? 0n),
    };
  }
  return {
    key: named,
    difference: there === null ? "only_here" : here === null ? "only_there" : "other_values",
  };
}

function toKey(key: Key | null, columns: readonly string[] | null): Record<string, string> | null {
  return key === null || columns === null ? null : namedKey(key, columns);
}

/** A key for people, by the names of its columns. */
export function namedKey(key: Key, columns: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    columns.map((column, i) => [column, Buffer.from(key[i], "hex").toString("utf8")]),
  );
}
