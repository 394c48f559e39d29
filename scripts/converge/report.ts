/**
 * What the convergence test prints: a line per seed, the history of keys that differ, and the sums in one table.
 */
import { formatTable } from "../text_table.ts";
import type { Difference, HeldRow } from "./compare.ts";
import { type HistoryLine, historyOf, splitRowKey } from "./model.ts";
import { FAULT_KINDS, OPERATION_WEIGHTS, type Plan } from "./plan.ts";
import type { SeedOutcome } from "./seed_run.ts";
import { showKey } from "./tables.ts";

/** How many keys of a seed are shown with their history. */
const HISTORIES = 3;

/** A seed's figures, as `--json` writes them. */
export interface SeedFigures {
  readonly seed: number;
  readonly nodes: readonly string[];
  readonly transactions: number;
  /** Undone, by SQLSTATE. */
  readonly undone: Readonly<Record<string, number>>;
  readonly operations: Readonly<Record<string, number>>;
  readonly conflicts: Readonly<Record<string, number>>;
  readonly faults: Readonly<Record<string, number>>;
  /** Keys that were written. */
  readonly keys: number;
  /** Rows and versions that are not as the model says, and keys of which nodes hold different rows. */
  readonly rowsWrong: number;
  readonly versionsWrong: number;
  readonly unequal: number;
  readonly standing: readonly string[];
  readonly violations: readonly string[];
  readonly tombstones: number;
  readonly groups: number;
  readonly tookMs: number;
}

/** The figures of an outcome. */
export function figuresOf(outcome: SeedOutcome): SeedFigures {
  const { plan, attempts, committed, verdict } = outcome;
  const done = new Set(committed.map(({ id }) => id));
  const failed = attempts.filter(({ id }) => !done.has(id));
  const kinds = attempts.filter(({ id }) => done.has(id)).flatMap(({ kinds }) => kinds);
  return {
    seed: plan.seed,
    nodes: describeNodes(plan),
    transactions: committed.length,
    undone: tally(failed.map(({ failure }) => failure ?? "told")),
    operations: tally(kinds, Object.keys(OPERATION_WEIGHTS)),
    conflicts: outcome.conflicts,
    faults: { ...tally(plan.faults.map(({ kind }) => kind), FAULT_KINDS), ...skewsOf(plan) },
    rowsWrong: verdict.differences.filter(({ kind }) => kind === "row").length,
    versionsWrong: verdict.differences.filter(({ kind }) => kind === "version").length,
    keys: outcome.keys,
    unequal: outcome.unequal,
    standing: outcome.standing,
    violations: verdict.violations,
    tombstones: outcome.tombstones,
    groups: outcome.groups,
    tookMs: Math.round(outcome.tookMs),
  };
}

function describeNodes({ nodes }: Plan): string[] {
  const seconds = (ms: number) => `${ms > 0 ? "+" : ""}${ms / 1000} s`;
  return nodes.map(({ name, major, serverSkewMs, mmliteSkewMs }) => {
    const server = serverSkewMs === 0 ? "" : ` (clock ${seconds(serverSkewMs)})`;
    const mmlite = mmliteSkewMs === 0 ? "" : ` (mmlite's clock ${seconds(mmliteSkewMs)})`;
    return `${name} on ${major}${server}${mmlite}`;
  });
}

function skewsOf({ nodes }: Plan): Record<string, number> {
  return {
    skewed_server: nodes.filter(({ serverSkewMs }) => serverSkewMs !== 0).length,
    skewed_mmlite: nodes.filter(({ mmliteSkewMs }) => mmliteSkewMs !== 0).length,
  };
}

function tally(names: readonly string[], all: readonly string[] = []): Record<string, number> {
  const counts: Record<string, number> = Object.fromEntries(all.map((name) => [name, 0]));
  for (const name of names) counts[name] = (counts[name] ?? 0) + 1;
  return counts;
}

/** Whether a seed shows that something is wrong. */
export function isBad({ rowsWrong, versionsWrong, standing, violations }: SeedFigures): boolean {
  return rowsWrong + versionsWrong + standing.length + violations.length > 0;
}

/** One line for a seed. */
export function seedLine(figures: SeedFigures): string {
  const { seed, nodes, transactions, undone, operations, conflicts, faults, tookMs } = figures;
  const named = Object.entries(faults).filter(([, count]) => count > 0).map(([kind, n]) => `${kind} ${n}`);
  const parts = [
    nodes.join(", "),
    `${transactions} transactions, ${sum(undone)} undone`,
    `${sum(operations)} changes`,
    `${sum(conflicts)} conflicts`,
    named.join(" ") || "no faults",
    `${(tookMs / 1000).toFixed(1)} s`,
  ];
  return `seed ${seed}: ${parts.join("; ")}: ${verdictText(figures)}`;
}

function verdictText({ rowsWrong, versionsWrong, unequal, standing, violations }: SeedFigures): string {
  const wrong = [
    ...(rowsWrong > 0 ? [`${rowsWrong} rows wrong (${unequal} not the same everywhere)`] : []),
    ...(versionsWrong > 0 ? [`${versionsWrong} versions wrong`] : []),
    ...(standing.length > 0 ? [`${standing.length} that do not go on`] : []),
    ...(violations.length > 0 ? [`${violations.length} other violations`] : []),
  ];
  return wrong.length === 0 ? "equal" : wrong.join("; ");
}

/** What is wrong, what happened to the first keys that differ, and what each node holds. */
export function historyLines({ committed, standing, verdict }: SeedOutcome): string[] {
  const lines = [...standing, ...verdict.violations].map((sentence) => `  ${sentence}`);
  for (const difference of verdict.differences.slice(0, HISTORIES)) {
    const { table, key } = splitRowKey(difference.key);
    lines.push(`  ${table} ${showKey(key)}: the ${difference.kind} differs`);
    for (const line of historyOf(committed, { table, key })) lines.push(`    ${showChange(line)}`);
    lines.push(...heldLines(difference));
  }
  const rest = verdict.differences.length - HISTORIES;
  if (rest > 0) lines.push(`  and ${rest} more keys`);
  return lines;
}

function showChange({ timestamp, node, transaction, change }: HistoryLine): string {
  const row = change.kind === "put" ? ` ${change.row}` : "";
  return `${timestamp.slice(11)} ${node} ${change.kind}${row} (transaction ${transaction})`;
}

function heldLines({ expected, held }: Difference): string[] {
  const show = (row: HeldRow | undefined) =>
    row === undefined ? "no row" : `${row.row} of ${row.timestamp?.slice(11) ?? "?"} ${row.node ?? "?"}`;
  const nodes = [...held].map(([node, row]) => `    ${node} holds ${show(row)}`);
  return [`    expected: ${show(expected)}`, ...nodes];
}

/** The sums over all seeds. */
export function sumTable(all: readonly SeedFigures[], wanted: { readonly builtin: boolean }): string[] {
  const named = (title: string, counts: (figures: SeedFigures) => Readonly<Record<string, number>>) => {
    const totals = new Map<string, number>();
    for (const figures of all) {
      for (const [name, count] of Object.entries(counts(figures))) {
        totals.set(name, (totals.get(name) ?? 0) + count);
      }
    }
    return [...totals].map(([name, count]) => [`${title}: ${name}`, String(count)]);
  };
  const total = (count: (figures: SeedFigures) => number) =>
    String(all.reduce((sum, figures) => sum + count(figures), 0));
  return formatTable([
    ["what", "count"],
    ["seeds", String(all.length)],
    ["nodes", total(({ nodes }) => nodes.length)],
    ["transactions committed", total(({ transactions }) => transactions)],
    ...named("undone", ({ undone }) => undone),
    ...named("operations", ({ operations }) => operations),
    ...named("conflicts", ({ conflicts }) => conflicts),
    ...named("faults", ({ faults }) => faults),
    ["seeds with a difference", total((figures) => isBad(figures) ? 1 : 0)],
    ["keys written", total(({ keys }) => keys)],
    ["rows not the same everywhere", total(({ unequal }) => unequal)],
    [
      wanted.builtin ? "rows other than by last-update-wins" : "rows wrong",
      total(({ rowsWrong }) => rowsWrong),
    ],
    ...(wanted.builtin
      ? [
        ["seeds with a subscription that stands still", total(({ standing }) => standing.length > 0 ? 1 : 0)],
        ["subscriptions that stand still", total(({ standing }) => standing.length)],
        ["subscriptions", total(({ nodes: { length } }) => length * (length - 1))],
      ]
      : [
        ["versions wrong", total(({ versionsWrong }) => versionsWrong)],
        ["what did not go on", total(({ standing }) => standing.length)],
        ["other violations", total(({ violations }) => violations.length)],
        ["groups applied", total(({ groups }) => groups)],
        ["tombstones left", total(({ tombstones }) => tombstones)],
      ]),
  ]);
}

function sum(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((total, count) => total + count, 0);
}
