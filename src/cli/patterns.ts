/**
 * `mmlite tables add` and `remove`: patterns that say which tables a node replicates.
 */
import type { Command } from "commander";
import type { PatternChange, TablePattern } from "../api/pattern_schemas.ts";
import { formatTableName, type TableName } from "../table_name.ts";
import { callApi } from "./client.ts";
import { type Context, type GlobalOptions, setAction } from "./context.ts";
import { type Cell, formatData, formatTable, heading } from "./output.ts";

interface PatternOptions extends GlobalOptions {
  readonly exclude?: boolean;
  readonly dryRun?: boolean;
}

/** Tables that one line names; more are counted. */
const MAX_NAMED = 10;

const ABOUT_PATTERNS = `
A pattern is SCHEMA.TABLE with the wildcards * (any characters) and ? (one); put it in quotes for the shell. Names that hold a
dot or such a character stand in double quotes: 'app."odd.name"'. Each node has its own patterns: run it on all of them.
What is set here is durable and wins over the configuration, also for a pattern of the configuration.`;

const ABOUT_ADD = `${ABOUT_PATTERNS}

Rows that are there already are not sent. A table that is created later, and matches, is published with all its rows.`;

const ABOUT_REMOVE = `${ABOUT_PATTERNS}

What is written here to tables that no other pattern matches is not sent any more. What peers send of them is applied still: each
node decides what it sends.`;

/** Adds the commands to `mmlite tables`. */
export function addPatterns(tables: Command, context: Context, finish: (exitCode: number) => void): void {
  const add = tables.command("add <PATTERN>")
    .description("replicate tables that match a pattern")
    .option("--exclude", "leave tables out that match it, whatever else they match")
    .option("--dry-run", "show what it would do, and change nothing")
    .addHelpText("after", ABOUT_ADD);
  setAction<PatternOptions>(add, {
    action: (options, [pattern]) => changePattern("PUT", { options, context, pattern }),
    finish,
  });
  const remove = tables.command("remove <PATTERN>")
    .description("take a pattern away, of either kind")
    .option("--dry-run", "show what it would do, and change nothing")
    .addHelpText("after", ABOUT_REMOVE);
  setAction<PatternOptions>(remove, {
    action: (options, [pattern]) => changePattern("DELETE", { options, context, pattern }),
    finish,
  });
}

function changePattern(
  method: "PUT" | "DELETE",
  { options, context, pattern }: {
    readonly options: PatternOptions;
    readonly context: Context;
    readonly pattern: string;
  },
): Promise<number> {
  const path = `/v1/tables/patterns/${encodeURIComponent(pattern)}${options.dryRun ? "?dry_run=true" : ""}`;
  const body = method === "PUT" ? { kind: options.exclude ? "exclude" : "include" } : undefined;
  return callApi<PatternChange>({ method, path, body }, {
    options,
    context,
    show: ({ status, body: change }) => {
      if (options.output !== "table") context.print(formatData(change, options.output));
      else if (!options.quiet) {
        const isNew = status === 201 || options.dryRun === true;
        for (const line of describeChange(change, { isNew, dryRun: options.dryRun === true })) {
          context.note(line);
        }
      }
      return 0;
    },
  });
}

/** What a change did, or would do, in lines. */
export function describeChange(
  change: PatternChange,
  { isNew, dryRun }: { readonly isNew: boolean; readonly dryRun: boolean },
): string[] {
  const { published, withdrawn } = change;
  const lines = [headline(change, { isNew, dryRun })];
  const verb = (one: string, would: string) => dryRun ? would : one;
  if (published.length > 0) {
    lines.push(`${verb("Published from now on", "Would be published")}: ${named(published)}`);
  }
  for (const table of published) {
    if (table.state === "insert_only") {
      lines.push(
        `  ${formatTableName(table)}: only its inserts, as it has no usable key. ${table.hint ?? ""}`
          .trimEnd(),
      );
    }
  }
  if (withdrawn.length > 0) {
    lines.push(`${verb("Not published any more", "Would not be published any more")}: ${named(withdrawn)}`);
  }
  if (dryRun) return lines;
  if (published.length > 0) {
    const first = formatTableName(published.find(({ state }) => state === "replicated") ?? published[0]);
    lines.push(
      "Rows that they have already are not sent. Do the same on each node; then `mmlite verify " +
        `${first}\` shows what differs, and \`mmlite tables resync ${first} --from PEER\` makes the rows here what they are there`,
    );
  }
  if (withdrawn.length > 0) {
    lines.push("What peers send of them is applied still: do the same on each node that is not to send them");
  }
  return lines;
}

function headline(
  { pattern, kind, active, matches, published, withdrawn }: PatternChange,
  { isNew, dryRun }: { readonly isNew: boolean; readonly dryRun: boolean },
): string {
  const now = dryRun ? "would be" : "is";
  const what = !active
    ? `${now} removed`
    : kind === "exclude"
    ? `${isNew ? now : "is"} left out${isNew ? "" : " already"}`
    : isNew
    ? `${now} added`
    : "is there already";
  if (matches.length === 0) {
    const later = active && kind === "include"
      ? ", and one that is created later is published by itself"
      : "";
    return `Pattern ${pattern} ${what}; it matches no table here${later}`;
  }
  const nothing = published.length + withdrawn.length === 0 ? "; what is published stays as it is" : "";
  return `Pattern ${pattern} ${what}; it matches ${
    matches.length === 1 ? "1 table" : `${matches.length} tables`
  }${nothing}`;
}

function named(tables: readonly TableName[]): string {
  const names = tables.slice(0, MAX_NAMED).map(formatTableName).join(", ");
  return tables.length > MAX_NAMED ? `${names} and ${tables.length - MAX_NAMED} more` : names;
}

/** The patterns as a table for people. */
export function formatPatterns(patterns: readonly TablePattern[], colour: boolean): string {
  const rows = patterns.map(({ pattern, kind, from, active }): (Cell | string)[] => [
    pattern,
    active ? kind : { text: "removed", colour: "yellow" },
    from === "api" ? "set here" : active ? "the configuration" : "the configuration, overruled here",
  ]);
  return formatTable([heading("PATTERN", "KIND", "FROM"), ...rows], colour);
}
