/**
 * `mmlite tables`: the tables that a node replicates, and how their conflicts are settled.
 */
import type { Command } from "commander";
import type { TablePattern } from "../api/pattern_schemas.ts";
import type { TableStatus } from "../api/schemas.ts";
import { MmliteError } from "../errors.ts";
import { formatTableName } from "../table_name.ts";
import { type ApiRequest, callApi } from "./client.ts";
import { type Context, type GlobalOptions, setAction } from "./context.ts";
import type { ComparisonOptions } from "./job.ts";
import { addPatterns, formatPatterns } from "./patterns.ts";
import { resync } from "./repair.ts";
import { type Cell, formatData, formatTable, heading } from "./output.ts";

interface PolicyOptions extends GlobalOptions {
  readonly type?: readonly string[];
  readonly allowDivergence?: boolean;
  readonly reset?: boolean;
  readonly dryRun?: boolean;
}

interface ResyncOptions extends ComparisonOptions {
  readonly from?: string;
  readonly dryRun?: boolean;
}

const ABOUT_RESYNC = `
The table stays in use, is never empty meanwhile, and links go on: only rows that differ are written, as
\`mmlite verify TABLE --repair --source PEER\` does. None of it is sent to other nodes.

Exit codes: 0 the table is equal; 1 some rows differ still; 69 the peer cannot be reached; 75 rows changed meanwhile, or
replication did not come far enough: try again.`;

/** Adds the commands. */
export function addTables(program: Command, context: Context, finish: (exitCode: number) => void): void {
  const tables = program.command("tables").description("the tables that a node replicates");
  setAction(tables.command("list").description("every table and how it is replicated, and the patterns"), {
    action: (options) => listTables(options, context),
    finish,
  });
  addPatterns(tables, context, finish);
  const policy = tables.command("policy <TABLE> [POLICY]")
    .description("set how conflicts of a table are settled, on this node")
    .option(
      "--type <TYPE=POLICY>",
      "for one type of conflict another policy (repeatable)",
      (one: string, others: string[] = []) => [...others, one],
    )
    .option("--allow-divergence", "nodes may come to hold different rows")
    .option("--reset", "go back to the policy of the file, or to the default")
    .option("--dry-run", "check it and change nothing");
  setAction<PolicyOptions>(policy, {
    action: (options, [table, name]) => setPolicy(options, { context, table, policy: name }),
    finish,
  });
  const resync = tables.command("resync <TABLE>")
    .description("make the rows of a table what they are at a peer, on this node alone")
    .option("--from <PEER>", "the peer whose rows are right")
    .option("--dry-run", "show what would be written, and write nothing")
    .option("--share <PERCENT>", "of the time, how much the servers may read for it (default: 100)")
    .option("--limit <N>", "of a dry run: differing rows to list (default: 10000)")
    .option("--timeout <TIME>", "how long to look again at rows that differ (default: 1m)")
    .addHelpText("after", ABOUT_RESYNC);
  setAction<ResyncOptions>(resync, {
    action: (options, [table]) => resyncTable(options, { context, table }),
    finish,
  });
  setAction(
    tables.command("clear <TABLE>").description("say that a diverged table is equal on all nodes again"),
    {
      action: (options, [table]) => clearTable(options, { context, table }),
      finish,
    },
  );
}

function setPolicy(
  options: PolicyOptions,
  { context, table, policy }: {
    readonly context: Context;
    readonly table: string;
    readonly policy: string | undefined;
  },
): Promise<number> {
  const path = `${tablePath(table)}${options.dryRun ? "?dry_run=true" : ""}`;
  return changeTable(policyRequest(path, policy, options), {
    options,
    context,
    done: (shown) =>
      `Conflicts of table ${table} ${options.dryRun ? "would be" : "are"} settled by ${
        describePolicy(shown)
      }`,
  });
}

function policyRequest(path: string, policy: string | undefined, options: PolicyOptions): ApiRequest {
  const { type = [], allowDivergence, reset } = options;
  if (reset) {
    if (policy === undefined && type.length === 0 && !allowDivergence) return { method: "DELETE", path };
    throw new MmliteError("usage", "Cannot set a policy and --reset it");
  }
  if (policy === undefined) {
    throw new MmliteError("usage", "Missing required argument 'POLICY'", {
      hint: "Name a policy such as last_update_wins, or --reset",
    });
  }
  const types = type.length === 0 ? undefined : Object.fromEntries(type.map(parseType));
  return { method: "PUT", path, body: { policy, types, allow_divergence: allowDivergence } };
}

function parseType(text: string): readonly [type: string, policy: string] {
  const [type, policy, ...rest] = text.split("=");
  if (type && policy && rest.length === 0) return [type, policy];
  throw new MmliteError("usage", `Cannot use --type ${JSON.stringify(text)}: expected TYPE=POLICY`, {
    hint: "Write for example --type update_missing=error",
  });
}

async function resyncTable(
  options: ResyncOptions,
  { context, table }: { readonly context: Context; readonly table: string },
): Promise<number> {
  if (options.from === undefined) {
    throw new MmliteError("usage", "Cannot resync without --from: which node has the right rows?", {
      hint: "Name a peer of this node with --from; only this node is changed, to have the rows of that one",
    });
  }
  return await resync(options.from, { table, options, context });
}

function clearTable(
  options: GlobalOptions,
  { context, table }: { readonly context: Context; readonly table: string },
): Promise<number> {
  return changeTable({ method: "POST", path: `${tablePath(table)}/clear` }, {
    options,
    context,
    done: () => `Table ${table} counts as equal on all nodes again`,
  });
}

function changeTable(
  request: ApiRequest,
  { options, context, done }: {
    readonly options: GlobalOptions;
    readonly context: Context;
    readonly done: (table: TableStatus) => string;
  },
): Promise<number> {
  return callApi<TableStatus>(request, {
    options,
    context,
    show: ({ body }) => {
      if (options.output !== "table") context.print(formatData(body, options.output));
      else if (!options.quiet) context.note(done(body));
      return 0;
    },
  });
}

function tablePath(table: string): string {
  return `/v1/tables/${encodeURIComponent(table)}`;
}

/** A policy in one line: `keep_local (update_missing: error), set here`. */
function describePolicy({ policy, types, policy_from }: TableStatus): string {
  const others = Object.entries(types).map(([type, one]) => `${type}: ${one}`).join(", ");
  const from = { default: "", file: ", by the file", api: ", set here" }[policy_from];
  return `${policy}${others === "" ? "" : ` (${others})`}${from}`;
}

function listTables(options: GlobalOptions, context: Context): Promise<number> {
  return callApi<{ items: TableStatus[]; patterns: TablePattern[] }>({ method: "GET", path: "/v1/tables" }, {
    options,
    context,
    show: ({ body }) => {
      context.print(
        options.output === "table"
          ? `${formatTables(body.items, context.colour)}\n\n${formatPatterns(body.patterns, context.colour)}`
          : formatData(body, options.output),
      );
      return 0;
    },
  });
}

function formatTables(tables: readonly TableStatus[], colour: boolean): string {
  if (tables.length === 0) return "no tables";
  const rows = tables.map((table): (Cell | string)[] => [
    formatTableName(table),
    table.diverged === null ? table.state : { text: "diverged", colour: "red" },
    table.key_columns.join(", ") || "-",
    table.estimated_rows === null ? "-" : String(table.estimated_rows),
    describePolicy(table),
    table.diverged?.reason ?? table.hint ?? "",
  ]);
  return formatTable(
    [heading("TABLE", "STATE", "KEY", "ROWS (ABOUT)", "CONFLICTS", "HINT"), ...rows],
    colour,
  );
}
