/**
 * The table patterns of this node: those of the configuration, and over them what was said through the API.
 *
 * Whoever needs them holds this and reads `include` and `exclude` at each use, so a change is seen by all at once.
 */
import type { PatternKind, TablePattern } from "../api/pattern_schemas.ts";
import {
  type PatternWord,
  readTablePatterns,
  saveTablePattern,
  type TablePatternRow,
} from "../pg/table_patterns.ts";
import type { Query } from "../pg/query.ts";

/** Patterns that say which tables are replicated. */
export interface Patterns {
  readonly include: readonly string[];
  readonly exclude: readonly string[];
}

/** See the module. */
export class TablePatterns implements Patterns {
  readonly #configured: Patterns;
  /** What the API has said, by the text of the pattern. */
  #said: ReadonlyMap<string, PatternWord> = new Map();

  constructor(configured: Patterns) {
    this.#configured = configured;
  }

  /** Takes up what was said through the API. */
  async load(query: Query): Promise<void> {
    this.#said = toMap(await readTablePatterns(query));
  }

  get include(): readonly string[] {
    return this.#effective("include");
  }

  get exclude(): readonly string[] {
    return this.#effective("exclude");
  }

  /** Those that hold, and those of the file that do not, in the order of their text. */
  list(): TablePattern[] {
    const ofFile = KINDS.flatMap((kind) =>
      this.#configured[kind].map((pattern): TablePattern => ({
        ...{ pattern, kind, from: "file" },
        active: !this.#said.has(pattern),
      }))
    );
    const ofApi = [...this.#said].flatMap(([pattern, kind]): TablePattern[] =>
      kind === "removed" ? [] : [{ pattern, kind, from: "api", active: true }]
    );
    return [...ofFile, ...ofApi].sort((a, b) => a.pattern < b.pattern ? -1 : a.pattern > b.pattern ? 1 : 0);
  }

  /** How a pattern holds; undefined if it does not. */
  find(pattern: string): TablePattern | undefined {
    return this.list().find((one) => one.pattern === pattern && one.active);
  }

  /** Whether the file has it, or the API has said something of it. */
  isKnown(pattern: string): boolean {
    return this.#ofFile(pattern).length > 0 || this.#said.has(pattern);
  }

  /** The patterns as they would be if this one was of that kind, or with null none. */
  imagine(pattern: string, kind: PatternKind | null): TablePatterns {
    const imagined = new TablePatterns(this.#configured);
    const word = this.#wordFor(pattern, kind);
    const others = [...this.#said].filter(([one]) => one !== pattern);
    imagined.#said = new Map(word === null ? others : [...others, [pattern, word]]);
    return imagined;
  }

  /** Makes a pattern one of that kind, or with null none, durably; returns how to take that back. */
  async set(
    query: Query,
    { pattern, kind }: { readonly pattern: string; readonly kind: PatternKind | null },
  ): Promise<() => Promise<void>> {
    const before = this.#said;
    const next = this.imagine(pattern, kind).#said;
    await saveTablePattern(query, { pattern, word: next.get(pattern) ?? null });
    this.#said = next;
    return async () => {
      await saveTablePattern(query, { pattern, word: before.get(pattern) ?? null });
      this.#said = before;
    };
  }

  /** What has to be said for it; null where the file says so already. */
  #wordFor(pattern: string, kind: PatternKind | null): PatternWord | null {
    const ofFile = this.#ofFile(pattern);
    if (kind === null) return ofFile.length === 0 ? null : "removed";
    return ofFile.length === 1 && ofFile[0] === kind ? null : kind;
  }

  #ofFile(pattern: string): PatternKind[] {
    return KINDS.filter((kind) => this.#configured[kind].includes(pattern));
  }

  #effective(kind: PatternKind): string[] {
    const ofApi = [...this.#said].filter(([_, word]) => word === kind).map(([pattern]) => pattern);
    return [...this.#configured[kind].filter((pattern) => !this.#said.has(pattern)), ...ofApi];
  }
}

const KINDS = ["include", "exclude"] as const;

function toMap(rows: readonly TablePatternRow[]): ReadonlyMap<string, PatternWord> {
  return new Map(rows.map(({ pattern, word }) => [pattern, word]));
}
