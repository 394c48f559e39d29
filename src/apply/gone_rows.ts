/**
 * Rows that a transaction deletes one by one and that may not have been here: before its commit it is looked whether
 * another session has written them meanwhile.
 *
 * Of a row that was here nothing has to be looked at again: nobody else can write its key before the commit, and whoever
 * does it after that meets the note of the delete.
 */
import type { Tuple } from "../pgoutput/message.ts";
import type { TargetRelation } from "./target_relation.ts";

/** Rows that are kept in memory, at most; of a longer transaction the others are kept in the server. */
const MAX_ROWS = 0x4000;

/** A deleted row. */
export interface GoneRow {
  readonly target: TargetRelation;
  /** Its key. */
  readonly old: Tuple;
  /** The number of its transaction. */
  readonly transaction: number;
}

/** What the rows are written with. */
interface Writing {
  /** Keeps a row in the server until {@link lookForKept}. */
  readonly keep: (row: GoneRow) => void;
  readonly lookFor: (row: GoneRow) => void;
  /** Looks for all rows of a table that were kept; they were deleted by the transaction with that number. */
  readonly lookForKept: (target: TargetRelation, transaction: number) => void;
}

/** See the module's head. */
export class GoneRows {
  readonly #writing: Writing;
  readonly #rows = new Set<GoneRow>();
  /** Of what is kept in the server, the tables by their names, each with the number of the transaction. */
  readonly #kept = new Map<string, Omit<GoneRow, "old">>();

  constructor(writing: Writing) {
    this.#writing = writing;
  }

  /** Whether there is nothing to look for. */
  get isEmpty(): boolean {
    return this.#rows.size === 0 && this.#kept.size === 0;
  }

  /** A row is about to be deleted. */
  add(row: GoneRow): void {
    this.#rows.add(row);
  }

  /** A row was here. */
  found(row: GoneRow): void {
    this.#rows.delete(row);
  }

  /** Makes room; to be called from time to time. */
  bound(): void {
    if (this.#rows.size < MAX_ROWS) return;
    for (const row of this.#rows) {
      this.#writing.keep(row);
      this.#kept.set(row.target.map.label, row);
    }
    this.#rows.clear();
  }

  /** Looks for all of them, and forgets them. */
  lookForAll(): void {
    for (const row of this.#rows) this.#writing.lookFor(row);
    for (const { target, transaction } of this.#kept.values()) this.#writing.lookForKept(target, transaction);
    this.clear();
  }

  /** Forgets what is not committed. */
  clear(): void {
    this.#rows.clear();
    this.#kept.clear();
  }
}
