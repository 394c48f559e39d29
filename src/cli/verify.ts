/**
 * `mmlite verify`: whether this node and its peers hold the same rows.
 */
import type { Command } from "commander";
import process from "node:process";
import type { Job, VerifyReport } from "../api/job_schemas.ts";
import { delay } from "../backoff.ts";
import { ERROR_POLICY, isErrorKind, MmliteError } from "../errors.ts";
import { toPrintable } from "../printable.ts";
import { type ApiRequest, requestApi } from "./client.ts";
import { type Context, type GlobalOptions, setAction } from "./context.ts";
import { formatCurl } from "./curl.ts";
import { requireDuration } from "./duration.ts";
import { type Endpoint, findEndpoint } from "./endpoint.ts";
import { type Cell, type Colour, formatData, formatTable, heading } from "./output.ts";
import { untilSignal } from "./signals.ts";

interface VerifyOptions extends GlobalOptions {
  readonly peer?: readonly string[];
  readonly share?: string;
  readonly limit?: string;
  readonly timeout?: string;
}

/** How often it is asked how far the comparison is, milliseconds. */
const POLL_MS = 300;
/** A node that cannot tell of its job for longer is given up, milliseconds. */
const PATIENCE_MS = 30_000;
/** Rows of a table that are shown to people. */
const SHOWN_ROWS = 20;

const ABOUT = `
Both nodes may be written to meanwhile: a row that differs is looked at again after each node has applied what the
other had committed, so that what is on its way is not reported. Without TABLE all replicated tables are compared; a
TABLE may be a pattern such as 'public.*'.

Exit codes: 0 all equal; 1 something differs; 69 a peer cannot be reached; 75 some rows were written to all the time,
or replication did not come far enough: try again.`;

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
  const endpoint = await findEndpoint(options, context);
  const request = toRequest(options, tables);
  if (options.asCurl) {
    context.print(formatCurl(request, endpoint));
    return 0;
  }
  const { body: { id } } = await requestApi<Job>(request, endpoint);
  const job = await untilSignal((signal) =>
    follow(id, { endpoint, signal, isQuiet: options.quiet === true })
  );
  const report = requireReport(job);
  context.print(
    options.output === "table" ? formatReport(report, context.colour) : formatData(report, options.output),
  );
  return exitCodeOf(report);
}

function toRequest({ peer, share, limit, timeout }: VerifyOptions, tables: readonly string[]): ApiRequest {
  const body = {
    type: "verify",
    tables: tables.length === 0 ? undefined : tables,
    peers: peer,
    share: share === undefined ? undefined : requireNumber(share, "--share") / 100,
    limit: limit === undefined ? undefined : requireNumber(limit, "--limit"),
    settle_seconds: timeout === undefined ? undefined : requireDuration(timeout, "--timeout"),
  };
  return { method: "POST", path: "/v1/jobs", body };
}

function requireNumber(text: string, option: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new MmliteError("usage", `Cannot use ${option} ${JSON.stringify(text)}: it is no whole number`);
}

/** Waits for the end of a job; a signal cancels it. */
async function follow(
  id: string,
  { endpoint, signal, isQuiet }: {
    readonly endpoint: Endpoint;
    readonly signal: AbortSignal;
    readonly isQuiet: boolean;
  },
): Promise<Job> {
  const bar = new ProgressBar(process.stderr.isTTY === true && !isQuiet);
  const path = `/v1/jobs/${encodeURIComponent(id)}`;
  let heardAt = performance.now();
  try {
    for (;;) {
      let job: Job;
      try {
        ({ body: job } = await requestApi<Job>({ method: "GET", path }, endpoint));
      } catch (thrown) {
        // The job goes on where its node has lost PostgreSQL for a moment, or is busy.
        const passes = thrown instanceof MmliteError && thrown.disposition === "retry" && !signal.aborted;
        if (!passes || performance.now() - heardAt > PATIENCE_MS) throw thrown;
        await delay(POLL_MS, signal);
        continue;
      }
      heardAt = performance.now();
      if (job.state !== "queued" && job.state !== "running") return job;
      if (signal.aborted) {
        await requestApi<void>({ method: "DELETE", path }, endpoint);
        throw new MmliteError("aborted", `Cannot go on: stopped, and job ${id} is cancelled`);
      }
      bar.show(job);
      await delay(POLL_MS, signal);
    }
  } finally {
    bar.clear();
  }
}

/** One line that is written over again and again, where somebody looks. */
class ProgressBar {
  readonly #isShown: boolean;

  constructor(isShown: boolean) {
    this.#isShown = isShown;
  }

  show({ state, progress, rows, bytes, eta_seconds: eta }: Job): void {
    const parts = state === "queued" ? ["waiting for other jobs"] : [
      progress === null ? "reading" : `${Math.round(progress * 100)} %`,
      `${rows ?? 0} rows`,
      `${Math.round((bytes ?? 0) / 1000)} kB exchanged`,
      ...(eta === null ? [] : [`${Math.ceil(eta)} s left`]),
    ];
    this.#write(parts.join(", "));
  }

  clear(): void {
    this.#write("");
  }

  #write(text: string): void {
    if (this.#isShown) process.stderr.write(`\r\x1b[K${text}`);
  }
}

/** The report of a job that came to its end; throws what it failed of. */
function requireReport({ id, state, error, result }: Job): VerifyReport {
  if (result !== null) return result as VerifyReport;
  if (error !== null) {
    throw new MmliteError(isErrorKind(error.kind) ? error.kind : "internal", error.message, {
      hint: error.hint,
    });
  }
  throw new MmliteError("aborted", `Cannot tell whether the nodes are equal: job ${id} is ${state}`, {
    hint: "Run `mmlite verify` again",
  });
}

function exitCodeOf({ outcome, peers }: VerifyReport): number {
  switch (outcome) {
    case "equal":
      return 0;
    case "differs":
      return 1;
    case "undecided":
      return ERROR_POLICY.transient.exitCode;
    case "failed": {
      const kind = peers.find(({ error }) => error !== null)?.error?.kind ?? "internal";
      return ERROR_POLICY[isErrorKind(kind) ? kind : "internal"].exitCode;
    }
  }
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
    ...undecided.map(({ key, reason }) => `${REASONS[reason]}: ${key === null ? "rows" : describeKey(key)}`),
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

const REASONS: Readonly<Record<Table["undecided"][number]["reason"], string>> = {
  changing: "written to all the time",
  lagging: "not replicated far enough",
  awaiting_values: "values have not come yet",
};

function describeKey(key: Readonly<Record<string, string>>): string {
  return Object.entries(key).map(([column, value]) => `${column}=${JSON.stringify(value)}`).join(", ");
}
