/**
 * `mmlite conflicts`: what happened where changes of two nodes met.
 */
import type { Command } from "commander";
import type { Conflict, ConflictList, WholeConflict } from "../api/conflict_schemas.ts";
import { MmliteError } from "../errors.ts";
import { callApi } from "./client.ts";
import { type Context, type GlobalOptions, setAction } from "./context.ts";
import { formatData, formatTable, heading } from "./output.ts";

interface ListOptions extends GlobalOptions {
  readonly since?: string;
  readonly table?: string;
  readonly type?: string;
  readonly resolution?: string;
  readonly limit?: string;
}

/** Adds the commands. */
export function addConflicts(program: Command, context: Context, finish: (exitCode: number) => void): void {
  const conflicts = program.command("conflicts").description(
    "changes of other nodes that met another state here",
  );
  const list = conflicts.command("list").description("the conflicts, the newest first")
    .option("--since <TIME>", "noted then or later: a time, or a duration such as 1h")
    .option("--table <TABLE>", "of this table, such as public.users")
    .option("--type <TYPE>", "of this type, such as update_missing")
    .option("--resolution <RESOLUTION>", "applied or skipped")
    .option("--limit <N>", "at most so many (default: 100)");
  setAction<ListOptions>(list, { action: (options) => listConflicts(options, context), finish });
  setAction(conflicts.command("show <ID>").description("one conflict with both rows"), {
    action: (options, [id]) => showConflict(options, { context, id }),
    finish,
  });
}

function listConflicts(options: ListOptions, context: Context): Promise<number> {
  const { since, table, type, resolution, limit } = options;
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries({ since, table, type, resolution, limit })) {
    if (value !== undefined) query.set(key, value);
  }
  const path = `/v1/conflicts${query.size === 0 ? "" : `?${query}`}`;
  return callApi<ConflictList>({ method: "GET", path }, {
    options,
    context,
    show: ({ body }) => {
      context.print(
        options.output === "table"
          ? formatConflicts(body.items, context.colour)
          : formatData(body, options.output),
      );
      if (options.output === "table" && body.next_cursor !== null && !options.quiet) {
        context.note(`There are more: raise --limit, or narrow it by --since, --table or --type`);
      }
      return 0;
    },
  });
}

function showConflict(
  options: GlobalOptions,
  { context, id }: { readonly context: Context; readonly id: string },
): Promise<number> {
  if (!/^[0-9]+$/.test(id)) {
    throw new MmliteError("usage", `Cannot show conflict ${JSON.stringify(id)}: it is no id`, {
      hint: "`mmlite conflicts list` shows the ids",
    });
  }
  return callApi<WholeConflict>({ method: "GET", path: `/v1/conflicts/${id}` }, {
    options,
    context,
    show: ({ body }) => {
      context.print(
        options.output === "table" ? formatConflict(body, context.colour) : formatData(body, options.output),
      );
      return 0;
    },
  });
}

function formatConflicts(conflicts: readonly Conflict[], colour: boolean): string {
  if (conflicts.length === 0) return "no conflicts";
  const rows = conflicts.map(({ id, noted_at, table, type, resolution, key, remote }) => [
    id,
    noted_at,
    table,
    type,
    resolution,
    remote.origin ?? "-",
    inOneLine(key),
  ]);
  return formatTable([heading("ID", "NOTED", "TABLE", "TYPE", "RESOLUTION", "FROM", "KEY"), ...rows], colour);
}

function formatConflict(conflict: WholeConflict, colour: boolean): string {
  const { id, noted_at, table, type, resolution, change, key, local, remote } = conflict;
  const about = [
    ["conflict", id],
    ["noted", noted_at],
    ["table", table],
    ["type", type],
    ["resolution", resolution],
    ["change", `${change}${remote.lsn === null ? "" : `, in the transaction that ends at ${remote.lsn}`}`],
    ["key", inOneLine(key)],
  ];
  const columns = [...new Set([...Object.keys(local.row ?? {}), ...Object.keys(remote.row ?? {})])];
  const rows = columns.map((column) => [column, valueOf(local.row, column), valueOf(remote.row, column)]);
  const versions = [
    heading("", "HERE", "CAME"),
    ["node", local.origin ?? "-", remote.origin ?? "-"],
    ["committed", local.commit_timestamp ?? "-", remote.commit_timestamp ?? "-"],
    ["row", local.row === null ? "none" : "", remote.row === null ? "none" : ""],
    ...rows.map(([column, here, came]) => [`  ${column}`, here, came]),
  ];
  return [formatTable(about, colour), "", formatTable(versions, colour)].join("\n");
}

/** A column of a row; nothing where the row has none. */
function valueOf(row: Readonly<Record<string, unknown>> | null, column: string): string {
  return row === null || !Object.hasOwn(row, column) ? "" : inOneLine(row[column]);
}

function inOneLine(value: unknown): string {
  return value === null ? "-" : JSON.stringify(value);
}
