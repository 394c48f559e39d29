/**
 * Prepared statements of an apply session: at most so many per relation and in all, the least recently used
 * forgotten first. A relation with many nullable columns or many TOASTed ones has no end of shapes.
 */
import type { Pipeline, ReplySink } from "../pg/pipeline.ts";
import type { StatementShape } from "./sql_text.ts";

/** Most prepared statements of one relation. */
export const RELATION_STATEMENTS = 32;
/** Most prepared statements of a session; a plan takes tens of KiB of the server's memory, more if it is wide. */
export const SESSION_STATEMENTS = 1_000;

/** A statement that the server knows by name. */
export interface PreparedStatement {
  readonly name: string;
  readonly shape: StatementShape;
  readonly sink: ReplySink;
}

interface Entry extends PreparedStatement {
  readonly owner: RelationStatements;
  readonly key: string;
  lastUsed: number;
}

/** One relation's prepared statements by shape key. */
export type RelationStatements = Map<string, Entry>;

/** The statements of one session. */
export class StatementCache {
  readonly #pipeline: Pipeline;
  readonly #entries = new Set<Entry>();
  #clock = 0;
  #made = 0;

  constructor(pipeline: Pipeline) {
    this.#pipeline = pipeline;
  }

  /** How many statements are prepared. */
  get size(): number {
    return this.#entries.size;
  }

  /** The relation's statement with that key; prepares what `build` returns if there is none. */
  get(owner: RelationStatements, key: string, build: () => StatementShape): PreparedStatement {
    const entry = owner.get(key) ?? this.#prepare(owner, key, build());
    entry.lastUsed = ++this.#clock;
    return entry;
  }

  /** Forgets all statements of a relation. */
  forgetAll(owner: RelationStatements): void {
    for (const entry of [...owner.values()]) this.#forget(entry);
  }

  /** Forgets every statement: of those prepared last the server may know none. Closing one that it does not know is
   * no error. */
  clear(): void {
    for (const entry of [...this.#entries]) this.#forget(entry);
  }

  #prepare(owner: RelationStatements, key: string, shape: StatementShape): Entry {
    if (owner.size >= RELATION_STATEMENTS) this.#forget(leastRecent(owner.values()));
    if (this.#entries.size >= SESSION_STATEMENTS) this.#forget(leastRecent(this.#entries));
    const name = `a${++this.#made}`;
    this.#pipeline.prepare({ name, sql: shape.sql, parameterTypes: shape.parameterTypes });
    const entry: Entry = {
      name,
      shape,
      sink: { doing: shape.doing, completed: () => {} },
      owner,
      key,
      lastUsed: 0,
    };
    owner.set(key, entry);
    this.#entries.add(entry);
    return entry;
  }

  #forget(entry: Entry): void {
    this.#pipeline.forget(entry.name);
    entry.owner.delete(entry.key);
    this.#entries.delete(entry);
  }
}

function leastRecent(entries: Iterable<Entry>): Entry {
  let oldest: Entry | undefined;
  for (const entry of entries) if (oldest === undefined || entry.lastUsed < oldest.lastUsed) oldest = entry;
  return oldest!;
}
