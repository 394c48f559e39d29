/**
 * `mmlite quarantine`: transactions of other nodes that could not be applied here and were set aside.
 */
import type { Command } from "commander";
import type {
  QuarantineChange,
  QuarantineDetail,
  QuarantineEntry,
  QuarantineList,
} from "../api/quarantine_schemas.ts";
import { toPrintable } from "../printable.ts";
import { callApi, requestApi } from "./client.ts";
import { type Context, type GlobalOptions, setAction } from "./context.ts";
import { formatCurl } from "./curl.ts";
import { type Endpoint, findEndpoint } from "./endpoint.ts";
import { formatData, formatTable, heading } from "./output.ts";

interface Given {
  readonly context: Context;
  readonly id: string;
}

/** Adds the commands. */
export function addQuarantine(program: Command, context: Context, finish: (exitCode: number) => void): void {
  const quarantine = program.command("quarantine").description("transactions that were set aside");
  setAction(quarantine.command("list").description("every transaction and what it failed of, without rows"), {
    action: (options) => list(options, context),
    finish,
  });
  setAction(quarantine.command("show <ID>").description("one transaction with all its rows"), {
    action: (options, [id]) => show(options, { context, id }),
    finish,
  });
  setAction(quarantine.command("retry <ID>").description("apply it, and take it out of quarantine"), {
    action: (options, [id]) => retry(options, { context, id }),
    finish,
  });
  setAction(quarantine.command("discard <ID>").description("forget it for good"), {
    action: (options, [id]) => discard(options, { context, id }),
    finish,
  });
}

async function list(options: GlobalOptions, context: Context): Promise<number> {
  const endpoint = await findEndpoint(options, context);
  if (options.asCurl) return asCurl("/v1/quarantine", context, endpoint);
  const items: QuarantineEntry[] = [];
  for await (const page of pages<QuarantineList>("/v1/quarantine", endpoint, (body) => body.next_cursor)) {
    items.push(...page.items);
  }
  context.print(
    options.output === "table"
      ? formatEntries(items, context.colour)
      : formatData({ items, next_cursor: null }, options.output),
  );
  return 0;
}

/** For people rows are printed page by page; a document holds them all. */
async function show(options: GlobalOptions, { context, id }: Given): Promise<number> {
  const endpoint = await findEndpoint(options, context);
  if (options.asCurl) return asCurl(entryPath(id), context, endpoint);
  const changes: QuarantineChange[] = [];
  let entry: QuarantineDetail | undefined;
  const all = pages<QuarantineDetail>(entryPath(id), endpoint, (body) => body.rows.next_cursor);
  for await (const page of all) {
    if (options.output !== "table") changes.push(...page.rows.items);
    else {
      if (entry === undefined) context.print(formatEntry(page));
      for (const change of page.rows.items) context.print(formatChange(change));
    }
    entry = page;
  }
  if (options.output !== "table") {
    context.print(formatData({ ...entry, rows: { items: changes, next_cursor: null } }, options.output));
  }
  return 0;
}

function retry(options: GlobalOptions, { context, id }: Given): Promise<number> {
  return callApi<QuarantineEntry>({ method: "POST", path: `${entryPath(id)}/retry` }, {
    options,
    context,
    show: ({ body }) => {
      if (options.output !== "table") context.print(formatData(body, options.output));
      else if (!options.quiet) {
        context.note(
          `The transaction of "${body.origin}" at ${body.commit_lsn} is applied: ${changesOf(body)}`,
        );
      }
      return 0;
    },
  });
}

function discard(options: GlobalOptions, { context, id }: Given): Promise<number> {
  return callApi<unknown>({ method: "DELETE", path: entryPath(id) }, {
    options,
    context,
    show: () => {
      if (!options.quiet) context.note(`Transaction ${id} is discarded`);
      return 0;
    },
  });
}

/** Page after page of a list. */
async function* pages<Body>(
  path: string,
  endpoint: Endpoint,
  cursorOf: (body: Body) => string | null,
): AsyncGenerator<Body> {
  for (let cursor: string | null = "";;) {
    const query: string = cursor === "" ? "" : `?cursor=${encodeURIComponent(cursor)}`;
    const { body } = await requestApi<Body>({ method: "GET", path: `${path}${query}` }, endpoint);
    yield body;
    cursor = cursorOf(body);
    if (cursor === null) return;
  }
}

function asCurl(path: string, context: Context, endpoint: Endpoint): number {
  context.print(formatCurl({ method: "GET", path }, endpoint));
  return 0;
}

function formatEntries(entries: readonly QuarantineEntry[], colour: boolean): string {
  if (entries.length === 0) return "nothing is in quarantine";
  const rows = entries.map((entry) => [
    entry.id,
    entry.origin,
    entry.commit_lsn,
    entry.commit_timestamp,
    String(entry.changes),
    entry.error.message,
  ]);
  return formatTable([heading("ID", "FROM", "LSN", "COMMITTED", "CHANGES", "ERROR"), ...rows], colour);
}

function formatEntry(entry: QuarantineDetail): string {
  return [
    `transaction of "${entry.origin}" at ${entry.commit_lsn}, committed ${entry.commit_timestamp}, ${
      changesOf(entry)
    }`,
    toPrintable(`failed ${entry.error.at}: ${entry.error.message}`),
    toPrintable(`  hint: ${entry.error.hint}`),
  ].join("\n");
}

function changesOf({ changes }: QuarantineEntry): string {
  return changes === 1 ? "1 change" : `${changes} changes`;
}

function formatChange({ number, table, kind, old, new: now, unchanged }: QuarantineChange): string {
  const lines = [`${number} ${kind} ${table}`];
  if (old !== null) lines.push(`  old ${JSON.stringify(old)}`);
  if (now !== null) lines.push(`  new ${JSON.stringify(now)}`);
  if (unchanged.length > 0) lines.push(`  unchanged, did not come: ${unchanged.join(", ")}`);
  return lines.map(toPrintable).join("\n");
}

function entryPath(id: string): string {
  return `/v1/quarantine/${encodeURIComponent(id)}`;
}
