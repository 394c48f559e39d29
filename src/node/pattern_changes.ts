/**
 * Changes of the table patterns on a running node: each at once in the publications, or not at all.
 */
import type { PatternChange, PatternKind, TablePattern } from "../api/pattern_schemas.ts";
import { MmliteError, toMmliteError } from "../errors.ts";
import { log } from "../log.ts";
import { parseTablePattern, type TableMatcher, tableMatcher } from "../pg/table_pattern.ts";
import { type LocalTable, readTables } from "../pg/tables.ts";
import { formatTableName, parseTableName, tableKey, type TableName } from "../table_name.ts";
import type { Database } from "./database.ts";
import { planTables, type PublicationKeeper } from "./publication_keeper.ts";
import type { TablePatterns } from "./table_patterns.ts";

interface PatternChangesOptions {
  readonly database: Pick<Database, "control" | "facts">;
  readonly patterns: TablePatterns;
  readonly publications: PublicationKeeper;
}

/** See the module. They happen one after the other. */
export class PatternChanges {
  readonly #options: PatternChangesOptions;
  readonly #logger = log("tables");
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: PatternChangesOptions) {
    this.#options = options;
  }

  list(): TablePattern[] {
    return this.#options.patterns.list();
  }

  /** Adds a pattern, or makes it one of that kind. Throws `invalid_input` for what is none. */
  async put(
    pattern: string,
    kind: PatternKind,
    { dryRun }: { readonly dryRun: boolean },
  ): Promise<{ created: boolean; change: PatternChange }> {
    requirePattern(pattern);
    return await this.#inTurn(async () => {
      const created = this.#options.patterns.find(pattern)?.kind !== kind;
      const change = await this.#change({ pattern, kind, dryRun });
      const { from } = this.#options.patterns.imagine(pattern, kind).find(pattern)!;
      return { created, change: { pattern, kind, from, active: true, ...change } };
    });
  }

  /** Takes a pattern away. Throws `not_found` for one that nobody has set. */
  async remove(pattern: string, { dryRun }: { readonly dryRun: boolean }): Promise<PatternChange> {
    return await this.#inTurn(async () => {
      const { patterns } = this.#options;
      if (!patterns.isKnown(pattern)) throw await this.#unknown(pattern);
      const was = patterns.list().find((one) => one.pattern === pattern)!;
      const change = await this.#change({ pattern, kind: null, dryRun });
      return { ...was, active: false, ...change };
    });
  }

  async #change({ pattern, kind, dryRun }: {
    readonly pattern: string;
    readonly kind: PatternKind | null;
    readonly dryRun: boolean;
  }): Promise<Pick<PatternChange, "matches" | "published" | "withdrawn">> {
    const { patterns, publications, database } = this.#options;
    const query = this.#query(kind === null ? `remove pattern ${pattern}` : `add pattern ${pattern}`);
    // What is new by now is looked at under the patterns as they were: rows of what is named on purpose are not sent.
    const wasWrong = dryRun ? undefined : await publications.trySync();
    const serverVersion = database.facts.versionNumber;
    const plan = async (of: TablePatterns) => await planTables(query, { patterns: of, serverVersion });
    const before = await plan(patterns);
    const after = await plan(patterns.imagine(pattern, kind));
    const change = {
      matches: after.present.filter(parseTablePattern(pattern)).map(nameOf),
      published: without(after.tables, before.tables).map((table) => ({
        ...nameOf(table),
        ...{ state: table.state, hint: table.hint },
      })),
      withdrawn: without(before.tables, after.tables).map(nameOf),
    };
    if (dryRun) return change;
    const takeBack = await patterns.set(query, { pattern, kind });
    try {
      await publications.sync({ anew: true });
    } catch (thrown) {
      const error = toMmliteError(thrown);
      // What goes by itself is tried again, and what stood in the way before is not of this change.
      if (error.disposition === "retry" || wasWrong !== undefined) throw kept(error, { pattern, kind });
      await takeBack().catch((another) => {
        throw notTakenBack(error, { pattern, another: toMmliteError(another) });
      });
      await publications.trySync({ anew: true });
      throw error;
    }
    this.#logger.info(
      "Pattern {pattern} is {word}: {published} tables more and {withdrawn} less are published",
      {
        pattern,
        word: wordOf(kind),
        published: change.published.length,
        withdrawn: change.withdrawn.length,
      },
    );
    return change;
  }

  /** Often the name of a table that another pattern matches. */
  async #unknown(pattern: string): Promise<MmliteError> {
    const { patterns } = this.#options;
    const given = JSON.stringify(pattern);
    const table = parseTableName(pattern);
    const by = table === null ? undefined : patterns.include.find((one) => parseTablePattern(one)(table));
    const isReplicated = table !== null && by !== undefined && tableMatcher(patterns)(table) &&
      await this.#exists(table);
    const hint = isReplicated
      ? `Table ${formatTableName(table)} is matched by ${by}: leave it out by \`mmlite tables add --exclude ${
        formatTableName(table)
      }\``
      : "`mmlite tables list` shows them all";
    return new MmliteError("not_found", `Cannot remove pattern ${given}: there is no such pattern`, { hint });
  }

  async #exists(table: TableName): Promise<boolean> {
    const isIt: TableMatcher = (one) => tableKey(one) === tableKey(table);
    return (await readTables(this.#query("list the tables"))).some(isIt);
  }

  #query(doing: string) {
    return this.#options.database.control.query(doing);
  }

  #inTurn<T>(change: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(change, change);
    this.#turn = turn.catch(() => {});
    return turn;
  }
}

function wordOf(kind: PatternKind | null): string {
  return kind === null ? "removed" : kind === "include" ? "added" : "left out";
}

/** What else keeps the publications from following a change that is durable. */
function kept(
  error: MmliteError,
  { pattern, kind }: { readonly pattern: string; readonly kind: PatternKind | null },
): MmliteError {
  const { message, hint } = error;
  return new MmliteError(
    error.kind,
    `Pattern ${pattern} is ${wordOf(kind)}, but the publications do not fit all patterns yet: ${message}`,
    { hint, cause: error },
  );
}

function notTakenBack(
  error: MmliteError,
  { pattern, another }: { readonly pattern: string; readonly another: MmliteError },
): MmliteError {
  const { kind, message, hint } = error;
  return new MmliteError(
    kind,
    `${message}; and pattern ${pattern} could not be taken back: ${another.message}`,
    { hint: `${hint}. \`mmlite tables list\` shows the patterns as they are`, cause: error },
  );
}

function requirePattern(pattern: string): void {
  try {
    parseTablePattern(pattern);
  } catch (thrown) {
    const { message, hint } = toMmliteError(thrown);
    throw new MmliteError("invalid_input", message, { hint });
  }
}

function nameOf({ schema, name }: TableName): TableName {
  return { schema, name };
}

function without(tables: readonly LocalTable[], others: readonly LocalTable[]): LocalTable[] {
  const keys = new Set(others.map(tableKey));
  return tables.filter((table) => !keys.has(tableKey(table)));
}
