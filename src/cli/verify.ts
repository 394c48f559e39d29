/**
 * `mmlite verify`: whether this node and its peers hold the same rows.
 */
import type { Command } from "commander";
import type { VerifyReport } from "../api/job_schemas.ts";
import { MmliteError } from "../errors.ts";
import { toPrintable } from "../printable.ts";
import { type Context, setAction } from "./context.ts";
import { comparisonInput, type ComparisonOptions, exitCodeOf, requireResult, runJob } from "./job.ts";
import { type Cell, type Colour, formatData, formatTable, heading } from "./output.ts";
import { describeKey, repair, type RightRows, UNDECIDED_REASONS } from "./repair.ts";

interface VerifyOptions extends ComparisonOptions {
  readonly peer?: readonly string[];
  readonly repair?: boolean;
  readonly source?: string;
  readonly newest?: boolean;
  readonly dryRun?: boolean;
}

/** Rows of a table that are shown to people. */
const SHOWN_ROWS = 20;

const ABOUT = `
Both nodes may be written to meanwhile: a row that differs is looked at again after each node has applied what the
other had committed, so that what is on its way is not reported. Without TABLE all replicated tables are compared; a
TABLE may be a pattern such as 'public.*'.

With --repair --source only this node is changed: rows that differ are overwritten, rows that only the source has are
inserted, rows that it has not are deleted. With --repair --newest both nodes are changed: of each row that differs the
newer one counts, and a delete that is newer than the row of the other node; a row that only one node has stays where
nothing is known of a delete. None of it is sent on. A row that changes meanwhile is left: run it again.

Exit codes: 0 all equal; 1 something differs; 69 a peer cannot be reached, or tells nothing; 75 some rows were written to all the time,
or replication did not come far enough, or rows changed while they were repaired: try again. After a repair what counts is
what is left.`;

/** Adds the command. */
export function addVerify(program: Command, context: Context, finish: (exitCode: number) => void): void {
  const command = program.command("verify [TABLE...]").description("compare tables with those of the peers")
    .option(
      "--peer <NAME>",
      "compare with this peer (repeatable; default: all)",
      (name: string, names: string[] = []) => [...names, name],
    )
    .option("--share <PERCENT>", "of the time, how much the servers may read for it (default: 100)")
    .option("--limit <N>", "differing rows of a table to find (default: 10000)")
    .option("--timeout <TIME>", "how long to look again at rows that differ (default: 1m)")
    .option("--repair", "make rows of this node what they are at --source, where they differ")
    .option("--source <NAME>", "of a repair: the peer whose rows are right")
    .option("--newest", "of a repair: make rows of this node and of --peer what the newer ones are, on both")
    .option("--dry-run", "of a repair: show what would be written, and write nothing")
    .addHelpText("after", ABOUT);
  setAction<VerifyOptions>(command, {
    action: (options, tables) => verify(options, { context, tables }),
    finish,
  });
}

async function verify(
  options: VerifyOptions,
  { context, tables }: { readonly context: Context; readonly tables: readonly string[] },
): Promise<number> {
  const wanted = tables.length === 0 ? undefined : tables;
  if (options.repair) return await repair(rightOf(options), { tables: wanted, options, context });
  for (const name of ["source", "newest", "dryRun"] as const) {
    if (options[name]) throw new MmliteError("usage", `Cannot use ${FLAGS[name]} without --repair`);
  }
  const input = { type: "verify", tables: wanted, peers: options.peer, ...comparisonInput(options) };
  const job = await runJob(input, { options, context });
  if (job === undefined) return 0;
  const report = requireResult(job, "mmlite verify") as VerifyReport;
  context.print(
    options.output === "table" ? formatReport(report, context.colour) : formatData(report, options.output),
  );
  const failed = report.peers.find(({ error }) => error !== null);
  return exitCodeOf(report.outcome, failed?.error?.kind ?? "internal");
}

const FLAGS = { source: "--source", newest: "--newest", dryRun: "--dry-run" } as const;

/** Which rows are right: nobody is asked to guess. */
function rightOf({ source, newest, peer = [] }: VerifyOptions): RightRows {
  if (newest) {
    if (source !== undefined) {
      throw new MmliteError("usage", "Cannot repair by --newest rows and by those of a --source", {
        hint:
          "With --newest the newer one of each row counts, whoever has it: name the other node with --peer",
      });
    }
    if (peer.length <= 1) return { newest, peer: peer[0] };
    throw new MmliteError("usage", "Cannot repair with several peers at once", {
      hint: "Run it with one --peer after the other, then with all but the last once more",
    });
  }
  if (source === undefined) {
    throw new MmliteError("usage", "Cannot --repair without --source: which node has the right rows?", {
      hint:
        "Name a peer of this node with --source, and only this node is changed, to have the rows of that one; or " +
        "have of each row the newer one on both nodes, by --newest",
    });
  }
  const other = peer.find((name) => name !== source);
  if (other === undefined) return { source };
  throw new MmliteError("usage", `Cannot repair by rows of "${source}" and compare with "${other}"`, {
    hint: "Leave --peer out: a repair compares with its source alone",
  });
}

const COLOURS: Readonly<Record<VerifyReport["outcome"], Colour>> = {
  equal: "green",
  differs: "red",
  undecided: "yellow",
  failed: "red",
};

/** For people: each table, then the rows that differ. */
export function formatReport({ node, peers }: VerifyReport, colour: boolean): string {
  const rows = peers.flatMap(({ peer, outcome, error, tables }): (Cell | string)[][] =>
    error !== null
      ? [[
        peer,
        "-",
        { text: outcome, colour: COLOURS[outcome] },
        "-",
        "-",
        `${error.message}; ${error.hint}`,
      ]]
      : tables.map((table) => [
        peer,
        table.table,
        { text: table.outcome, colour: COLOURS[table.outcome] },
        String(table.rows?.here ?? "-"),
        String(table.rows?.there ?? "-"),
        notes(table),
      ])
  );
  if (rows.length === 0) return "no tables";
  const overview = formatTable([
    heading("PEER", "TABLE", "OUTCOME", "ROWS HERE", "ROWS THERE", "NOTES"),
    ...rows,
  ], colour);
  const details = peers.flatMap(({ peer, tables }) =>
    tables.flatMap((table) => formatRows(table, { node, peer }))
  );
  return [overview, ...details].join("\n");
}

type Table = VerifyReport["peers"][number]["tables"][number];

function notes(
  { problem, differences, undecided, complete, other_versions: versions, diverged }: Table,
): string {
  return [
    ...(problem === "" ? [] : [problem]),
    ...(differences.length === 0 ? [] : [
      `${countRows(differences.length)} ${differences.length === 1 ? "differs" : "differ"}${
        complete ? "" : ", or more"
      }`,
    ]),
    ...(undecided.length === 0 ? [] : [`${countRows(undecided.length)} undecided`]),
    ...(versions === 0 ? [] : [`${countRows(versions)} alike with other versions`]),
    ...(diverged ? ["marked as diverged"] : []),
  ].join("; ");
}

function countRows(count: number): string {
  return count === 1 ? "1 row" : `${count} rows`;
}

function formatRows(
  { table, differences, undecided }: Table,
  { node, peer }: { node: string; peer: string },
): string[] {
  const where = { only_here: `only on ${node}`, only_there: `only on ${peer}`, other_values: "other values" };
  const lines = [
    ...differences.map((row) =>
      "key" in row
        ? `${where[row.difference]}: ${describeKey(row.key)}`
        : `${
          row.here === 1 ? "once" : `${row.here} times`
        } on ${node}, ${row.there} on ${peer}: row ${row.row_hash}`
    ),
    ...undecided.map(({ key, reason }) =>
      `${UNDECIDED_REASONS[reason]}: ${key === null ? "rows" : describeKey(key)}`
    ),
  ];
  if (lines.length === 0) return [];
  const more = lines.length - SHOWN_ROWS;
  return [
    "",
    `${table} on ${node} and ${peer}:`,
    ...lines.slice(0, SHOWN_ROWS).map((line) => `  ${toPrintable(line)}`),
    ...(more > 0 ? [`  and ${countRows(more)} more, which -o json lists`] : []),
  ];
}
