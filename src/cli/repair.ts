/**
 * Repairs, by whichever command: `mmlite verify --repair` and `mmlite tables resync`.
 */
import type { RepairedTable, RepairReport } from "../api/job_schemas.ts";
import { toPrintable } from "../printable.ts";
import type { Context } from "./context.ts";
import { comparisonInput, type ComparisonOptions, exitCodeOf, requireResult, runJob } from "./job.ts";
import { type Cell, type Colour, formatData, formatTable, heading } from "./output.ts";

interface RepairOptions extends ComparisonOptions {
  readonly dryRun?: boolean;
}

/** Rows of a table that are shown to people. */
const SHOWN_ROWS = 20;

/** Which rows are right. */
export type RightRows = { readonly source: string } | { readonly newest: true; readonly peer?: string };

/** Repairs tables by the rows of a peer, or by the newer ones of both. */
export function repair(
  right: RightRows,
  { tables, options, context }: {
    readonly tables: readonly string[] | undefined;
    readonly options: RepairOptions;
    readonly context: Context;
  },
): Promise<number> {
  return run({ type: "repair", ...right, tables }, { command: "mmlite verify --repair", options, context });
}

/** Repairs one table. */
export function resync(
  from: string,
  { table, options, context }: {
    readonly table: string;
    readonly options: RepairOptions;
    readonly context: Context;
  },
): Promise<number> {
  return run({ type: "resync", table, from }, { command: "mmlite tables resync", options, context });
}

async function run(
  input: object,
  { command, options, context }: {
    readonly command: string;
    readonly options: RepairOptions;
    readonly context: Context;
  },
): Promise<number> {
  const whole = { ...input, dry_run: options.dryRun, ...comparisonInput(options) };
  const job = await runJob(whole, { options, context });
  if (job === undefined) return 0;
  const report = requireResult(job, command) as RepairReport;
  const isTable = options.output === "table";
  context.print(isTable ? formatReport(report, context.colour) : formatData(report, options.output));
  if (isTable && !options.quiet && !report.dry_run) {
    for (
      const { table } of report.tables.filter(({ diverged, outcome }) => diverged && outcome === "equal")
    ) {
      context.note(
        `hint: ${table} is marked as diverged: where it is equal on all nodes again, ` +
          `run \`mmlite tables clear ${table}\` on each that has the mark`,
      );
    }
  }
  return exitCodeOf(report.outcome, "internal");
}

const COLOURS: Readonly<Record<RepairedTable["outcome"], Colour>> = {
  equal: "green",
  differs: "red",
  undecided: "yellow",
};

function formatReport(report: RepairReport, colour: boolean): string {
  if (report.tables.length === 0) return "no tables";
  const { node, source, dry_run: isDryRun } = report;
  const nodes = report.newest ? [node, source] : [node];
  const overview = formatTable([
    heading(
      ...(report.newest ? ["NODE"] : []),
      "TABLE",
      "OUTCOME",
      "OVERWRITTEN",
      "INSERTED",
      "DELETED",
      "NOTES",
    ),
    ...report.tables.flatMap((table) =>
      nodes.map((where): (Cell | string)[] => [
        ...(report.newest ? [where] : []),
        table.table,
        { text: table.outcome, colour: COLOURS[table.outcome] },
        ...ACTIONS.map((action) => countOf(table, action, { where, node, isDryRun })),
        where === node ? notes(table, isDryRun) : "",
      ])
    ),
  ], colour);
  return [overview, ...report.tables.flatMap((table) => formatRows(table, report))].join("\n");
}

const ACTIONS = ["overwrite", "insert", "delete"] as const;
const COUNTS = { overwrite: "overwritten", insert: "inserted", delete: "deleted" } as const;

/** On one of the two nodes, of which `node` did the repair; of a dry run what would be done. */
function countOf(
  table: RepairedTable,
  action: keyof typeof COUNTS,
  { where, node, isDryRun }: { readonly where: string; readonly node: string; readonly isDryRun: boolean },
): string {
  if (!isDryRun) return String((where === node ? table : table.given)[COUNTS[action]]);
  return String(table.planned.filter((row) => row.action === action && row.node === where).length);
}

function notes(table: RepairedTable, isDryRun: boolean): string {
  const { problem, changed_meanwhile: changed, refused, undecided, complete, diverged } = table;
  return [
    ...(problem === "" ? [] : [problem]),
    ...(isDryRun && table.planned.length > 0 ? [complete ? "a dry run" : "a dry run, of more rows"] : []),
    ...(changed === 0 ? [] : [`${countRows(changed)} changed meanwhile`]),
    ...(refused === 0 ? [] : [`${countRows(refused)} refused`]),
    ...(undecided.length === 0 ? [] : [`${countRows(undecided.length)} undecided`]),
    ...(diverged ? ["marked as diverged"] : []),
  ].join("; ");
}

function formatRows({ table, planned, refusals, undecided }: RepairedTable, report: RepairReport): string[] {
  const lines = [
    ...planned.map(({ key, action, node }) =>
      `would ${action}${report.newest ? ` on ${node}` : ""}: ${describeKey(key)}`
    ),
    ...refusals.map(({ key, reason }) => `refused: ${describeKey(key)}: ${reason}`),
    ...undecided.map(({ key, reason }) =>
      `${UNDECIDED_REASONS[reason]}: ${key === null ? "rows" : describeKey(key)}`
    ),
  ];
  if (lines.length === 0) return [];
  const more = lines.length - SHOWN_ROWS;
  return [
    "",
    report.newest
      ? `${table} on ${report.node} and ${report.source}, by the newer rows:`
      : `${table} on ${report.node}, by the rows of ${report.source}:`,
    ...lines.slice(0, SHOWN_ROWS).map((line) => `  ${toPrintable(line)}`),
    ...(more > 0 ? [`  and ${countRows(more)} more, which -o json lists`] : []),
  ];
}

/** Why it could not be told of a row whether it differs. */
export const UNDECIDED_REASONS: Readonly<Record<RepairedTable["undecided"][number]["reason"], string>> = {
  changing: "written to all the time",
  lagging: "not replicated far enough",
  awaiting_values: "values have not come yet",
};

/** A key in one line. */
export function describeKey(key: Readonly<Record<string, string>>): string {
  return Object.entries(key).map(([column, value]) => `${column}=${JSON.stringify(value)}`).join(", ");
}

function countRows(count: number): string {
  return count === 1 ? "1 row" : `${count} rows`;
}
