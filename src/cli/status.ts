/**
 * `mmlite status`: the whole node on one page, once or again and again.
 */
import type { Command } from "commander";
import type { NodeStatus } from "../api/schemas.ts";
import { delay } from "../backoff.ts";
import { MmliteError } from "../errors.ts";
import { callApi } from "./client.ts";
import { type Context, type GlobalOptions, setAction } from "./context.ts";
import { reportFailure } from "./failure.ts";
import { type Cell, formatData, formatTable } from "./output.ts";
import { formatPeers, needsOperator } from "./peer_table.ts";
import { untilSignal } from "./signals.ts";

/** How often `--watch` looks when it is not told. */
const DEFAULT_WATCH = "2s";
/** Shortest interval of `--watch`, milliseconds: each look asks the database. */
const MIN_WATCH_MS = 100;
const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000 };
const CLEAR_SCREEN = "\x1b[H\x1b[2J";

interface StatusOptions extends GlobalOptions {
  readonly watch?: string | true;
}

/** Adds the command. */
export function addStatus(program: Command, context: Context, finish: (exitCode: number) => void): void {
  const command = program.command("status").description(
    "the node, its database, peers and tables; 1 if unhealthy",
  )
    .option("--watch [INTERVAL]", `look again every INTERVAL, such as 500ms or ${DEFAULT_WATCH}`);
  setAction<StatusOptions>(command, { action: (options) => showStatus(options, context), finish });
}

async function showStatus(options: StatusOptions, context: Context): Promise<number> {
  if (options.watch === undefined || options.asCurl) return await look(options, context);
  const intervalMs = parseInterval(options.watch === true ? DEFAULT_WATCH : options.watch);
  return await untilSignal((signal) => watch(options, { context, intervalMs, signal }));
}

async function watch(
  options: StatusOptions,
  { context, intervalMs, signal }: {
    readonly context: Context;
    readonly intervalMs: number;
    readonly signal: AbortSignal;
  },
): Promise<number> {
  let exitCode = 0;
  while (!signal.aborted) {
    try {
      exitCode = await look(options, context);
    } catch (error) {
      // A node that restarts is what one watches for.
      exitCode = reportFailure(error, context, options);
    }
    await delay(intervalMs, signal);
  }
  return exitCode;
}

function look(options: StatusOptions, context: Context): Promise<number> {
  return callApi<NodeStatus>({ method: "GET", path: "/v1/status" }, {
    options,
    context,
    show: ({ body }) => {
      if (options.watch !== undefined && context.terminal) context.print(CLEAR_SCREEN);
      context.print(formatLook(body, options, context));
      return body.ready && !body.peers.some(needsOperator) ? 0 : 1;
    },
  });
}

function formatLook(status: NodeStatus, { output, watch }: StatusOptions, { colour }: Context): string {
  if (output === "table") return formatStatus(status, colour);
  // Looks that follow each other are JSON lines, or YAML documents.
  if (watch === undefined) return formatData(status, output);
  return output === "json" ? JSON.stringify(status) : `---\n${formatData(status, output)}`;
}

/** Parses `500ms`, `2s` or `1m` to milliseconds; throws `usage` for anything else and what is too short. */
export function parseInterval(text: string): number {
  const match = /^(\d{1,6}(?:\.\d{1,3})?)(ms|s|m)$/.exec(text);
  const interval = match === null ? 0 : Number(match[1]) * UNIT_MS[match[2]];
  if (interval >= MIN_WATCH_MS) return interval;
  throw new MmliteError(
    "usage",
    `Cannot watch every ${JSON.stringify(text)}: it is no interval of 100ms or more`,
    {
      hint: "Write a number and its unit, such as 500ms, 2s or 1m",
    },
  );
}

/** The page for people. */
export function formatStatus(status: NodeStatus, colour: boolean): string {
  const { node, postgres, tables, ready } = status;
  const about: (Cell | string)[][] = [
    ["node", { text: ready ? "ready" : "not ready", colour: ready ? "green" : "red" }, describeNode(node)],
    ["tls", ...describeTls(status.tls)],
    ["postgres", {
      text: postgres.connected ? "connected" : "away",
      colour: postgres.connected ? "green" : "red",
    }, describePostgres(postgres)],
    ["tables", "published", describeTables(tables)],
    ["conflicts", describeConflicts(status.conflicts)],
  ];
  // An unreachable database is among the problems too.
  const all = [postgres.problem, ...status.problems].filter((problem) => problem !== null);
  const problems = [...new Map(all.map((problem) => [problem.message, problem])).values()];
  const lines = problems.flatMap(({ message, hint }) => [`! ${message}`, `  hint: ${hint}`]);
  return [formatTable(about, colour), ...lines, "", formatPeers(status.peers, colour)].join("\n");
}

function describeNode(
  { name, cluster, version, peer_address, advertised_url }: NodeStatus["node"],
): string {
  const advertised = advertised_url === null ? "" : ` as ${advertised_url}`;
  return `${name} of cluster ${cluster ?? "-"}, mmlite ${version}, peers at ${peer_address}${advertised}`;
}

function describeTls(tls: NodeStatus["tls"]): (Cell | string)[] {
  if (tls === null) return [{ text: "off (insecure)", colour: "yellow" }];
  const { identity, certificate_expires_at, ca_expires_at } = tls;
  return [
    { text: "on", colour: "green" },
    `${identity}, certificate until ${day(certificate_expires_at)}, CA until ${day(ca_expires_at)}`,
  ];
}

function describeTables({ replicated, insert_only, diverged }: NodeStatus["tables"]): string {
  const marked = diverged === 0 ? "" : `, ${diverged} diverged`;
  return `${replicated} replicated, ${insert_only} insert-only${marked}`;
}

function describeConflicts({ since_start, kept }: NodeStatus["conflicts"]): string {
  const met = Object.values(since_start).reduce((sum, count) => sum + count, 0);
  return `${met} since start, ${kept ?? "?"} on record`;
}

/** The day of a time, `2026-11-22`. */
function day(time: string): string {
  return time.slice(0, 10);
}

function describePostgres({ version, database, host, wal_lsn }: NodeStatus["postgres"]): string {
  if (version === null) return "never reached";
  return `PostgreSQL ${version}, database ${database ?? "-"} at ${host ?? "-"}, WAL at ${wal_lsn ?? "-"}`;
}
