/**
 * `mmlite copy`: rows of a peer, copied to this node.
 */
import type { Command } from "commander";
import type { CopyReport } from "../api/job_schemas.ts";
import { MmliteError } from "../errors.ts";
import { toPrintable } from "../printable.ts";
import { type Context, type GlobalOptions, setAction } from "./context.ts";
import { beginJob, followJob, jobError, requireResult } from "./job.ts";
import { type Cell, formatData, formatTable, heading } from "./output.ts";

interface CopyOptions extends GlobalOptions {
  readonly from?: string;
  readonly mode?: string;
  readonly maxRate?: string;
  readonly detach?: boolean;
  readonly createSchema?: boolean;
}

const MODES = ["empty", "replace", "keep", "merge"];

const ABOUT = `
What becomes of rows that are here already is the mode:
  empty    there must be none of this node's own (the default)
  replace  they are given up: the peer's take their place, and nothing of that is sent on
  keep     they must be equal to the peer's, which is looked at while everybody writes; nothing is copied
  merge    of each row that differs this node and its peers get the newer one; nothing is copied otherwise
With empty and replace nothing is received meanwhile, and nobody can write to the tables here.

--create-schema takes schemas, types, sequences, tables, constraints and indexes of the tables that the peer
replicates. What is here and equal stays, what differs is an error. Functions, triggers, rights and comments are not
taken; extensions have to be here.

The job goes on when this command is stopped: follow it by \`GET /v1/jobs/ID\`, cancel it by DELETE.

Exit codes: 0 done; 1 rows are here, or differ still, or the schemas differ; 69 this node cannot be reached; 75 stopped,
cancelled, or not all rows could be compared: try again. While the peer cannot be reached the job waits for it.`;

/** Adds the command. */
export function addCopy(program: Command, context: Context, finish: (exitCode: number) => void): void {
  const command = program.command("copy").description("copy the rows of a peer to this node")
    .option("--from <PEER>", "the peer that has the rows")
    .option("--mode <MODE>", `what becomes of rows here: ${MODES.join(", ")} (default: empty)`)
    .option("--max-rate <SIZE>", "read no more than this of them in a second")
    .option("--create-schema", "create first what is missing here of the peer's tables")
    .option("--detach", "print the job's id, and do not wait for its end")
    .addHelpText("after", ABOUT);
  setAction<CopyOptions>(command, { action: (options) => copy(options, context), finish });
}

async function copy(options: CopyOptions, context: Context): Promise<number> {
  const { from, mode, maxRate, createSchema } = options;
  if (from === undefined) {
    throw new MmliteError("usage", "Cannot copy without --from: whose rows?", {
      hint: "Name a peer of this node; `mmlite peers list` shows them",
    });
  }
  if (mode !== undefined && !MODES.includes(mode)) {
    throw new MmliteError(
      "usage",
      `Cannot copy with --mode ${JSON.stringify(mode)}: there is none of that name`,
      {
        hint: `Use one of ${MODES.join(", ")}`,
      },
    );
  }
  const begun = await beginJob({ type: "copy", from, mode, max_rate: maxRate, create_schema: createSchema }, {
    options,
    context,
  });
  if (begun === undefined) return 0;
  if (options.detach) {
    context.print(options.output === "table" ? begun.job.id : formatData(begun.job, options.output));
    return 0;
  }
  const job = await followJob(begun, { options, context, plain: true, leave: true });
  const report = requireResult(job, "mmlite copy") as CopyReport;
  context.print(
    options.output === "table" ? formatReport(report, context.colour) : formatData(report, options.output),
  );
  if (!options.quiet && options.output === "table") {
    if (report.created.length > 0) context.note(`created: ${report.created.length} (-o json lists them)`);
    for (const one of report.left_out) context.note(`left out: ${toPrintable(one)}`);
  }
  // One that has failed may have a report all the same.
  if (job.error !== null) throw jobError(job.error);
  return 0;
}

function formatReport({ mode, tables, peers }: CopyReport, colour: boolean): string {
  if (mode === "empty" || mode === "replace") {
    return formatTable(
      [heading("TABLE", "ROWS"), ...tables.map(({ table, rows }) => [table, String(rows)])],
      colour,
    );
  }
  return formatTable([
    heading("PEER", "TABLE", "OUTCOME", "TAKEN", "GIVEN", "REMOVED", "REMOVED THERE", "NOTES"),
    ...peers.flatMap(({ peer, tables }) =>
      tables.map((one): (Cell | string)[] => [
        ...[peer, one.table],
        { text: one.outcome, colour: one.outcome === "equal" ? "green" : "red" },
        String(one.overwritten + one.inserted),
        String(one.given.overwritten + one.given.inserted),
        ...[String(one.deleted), String(one.given.deleted)],
        notes(one),
      ])
    ),
  ], colour);
}

function notes(
  { problem, planned, refused, undecided }: CopyReport["peers"][number]["tables"][number],
): string {
  const count = (rows: number, what: string) => rows === 0 ? [] : [`${rows} ${what}`];
  return [
    ...(problem === "" ? [] : [problem]),
    ...count(planned.length, "differ, which -o json lists"),
    ...count(refused, "refused, which -o json lists"),
    ...count(undecided.length, "undecided"),
  ].join("; ");
}
