/**
 * Patterns that say which tables are replicated: `public.*`, `app.orders`, `*.audit_?`, `app."odd.name"`.
 *
 * Schema and name are matched as PostgreSQL stores them, upper and lower case told apart; nothing is folded.
 */
import { MmliteError } from "../errors.ts";
import type { TableName } from "../table_name.ts";

/** Whether a table is wanted. */
export type TableMatcher = (table: TableName) => boolean;

/** A part: runs of plain characters, with `*` and `?`, and quoted runs that stand for themselves. */
const PART = /(?:[^\s".]|"(?:[^"]|"")+")+/y;

/** A matcher for tables that some `include` pattern and no `exclude` pattern matches. Throws `config`. */
export function tableMatcher(
  patterns: { readonly include: readonly string[]; readonly exclude?: readonly string[] },
): TableMatcher {
  const include = patterns.include.map(parseTablePattern);
  const exclude = (patterns.exclude ?? []).map(parseTablePattern);
  return (table) => include.some((matches) => matches(table)) && !exclude.some((matches) => matches(table));
}

/** Parses `schema.name` with the wildcards `*` (any characters) and `?` (one). Throws `config`. */
export function parseTablePattern(text: string): TableMatcher {
  const schema = partAt(text, 0);
  const name = text[schema.length] === "." ? partAt(text, schema.length + 1) : "";
  if (schema === "" || name === "" || schema.length + 1 + name.length !== text.length) {
    throw new MmliteError(
      "config",
      `Cannot use table pattern ${JSON.stringify(text)}: expected schema.table`,
      {
        hint:
          'Write for example public.* or app.orders, and names with dots in double quotes: app."odd.name"',
      },
    );
  }
  const schemaExpression = partExpression(schema);
  const nameExpression = partExpression(name);
  return (table) => schemaExpression.test(table.schema) && nameExpression.test(table.name);
}

function partAt(text: string, position: number): string {
  PART.lastIndex = position;
  return PART.exec(text)?.[0] ?? "";
}

function partExpression(part: string): RegExp {
  const source = part.replace(/"((?:[^"]|"")+)"|\*|\?|[^"*?]+/g, (run, quoted: string | undefined) => {
    if (quoted !== undefined) return RegExp.escape(quoted.replaceAll('""', '"'));
    if (run === "*") return "[^]*";
    return run === "?" ? "[^]" : RegExp.escape(run);
  });
  return new RegExp(`^${source}$`, "u");
}
