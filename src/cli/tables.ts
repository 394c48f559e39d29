/**
 * `mmlite tables`: the tables that a node replicates.
 */
import type { Command } from "commander";
import type { TableStatus } from "../api/schemas.ts";
import { callApi } from "./client.ts";
import { type Context, type GlobalOptions, setAction } from "./context.ts";
import { formatData, formatTable, heading } from "./output.ts";

/** Adds the commands. */
export function addTables(program: Command, context: Context, finish: (exitCode: number) => void): void {
  const tables = program.command("tables").description("the tables that a node replicates");
  setAction(tables.command("list").description("every table and how it is replicated"), {
    action: (options) => listTables(options, context),
    finish,
  });
}

function listTables(options: GlobalOptions, context: Context): Promise<number> {
  return callApi<{ items: TableStatus[] }>({ method: "GET", path: "/v1/tables" }, {
    options,
    context,
    show: ({ body }) => {
      context.print(
        options.output === "table"
          ? formatTables(body.items, context.colour)
          : formatData(body, options.output),
      );
      return 0;
    },
  });
}

function formatTables(tables: readonly TableStatus[], colour: boolean): string {
  if (tables.length === 0) return "no tables";
  const rows = tables.map((table) => [
    `${table.schema}.${table.name}`,
    table.state,
    table.key_columns.join(", ") || "-",
    table.estimated_rows === null ? "-" : String(table.estimated_rows),
    table.hint ?? "",
  ]);
  return formatTable([heading("TABLE", "STATE", "KEY", "ROWS (ABOUT)", "HINT"), ...rows], colour);
}
