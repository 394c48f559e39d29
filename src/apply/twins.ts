/**
 * Rows that a transaction writes under deferrable keys, which PostgreSQL does not keep apart in a session that applies:
 * before its commit one row is left for each of these keys.
 *
 * Within the transaction rows may have one key for a while. So of a long one, whose rows are not all kept here, they are
 * looked at after the commit.
 */
import type { Tuple } from "../pgoutput/message.ts";
import type { TargetRelation } from "./target_relation.ts";

/** Rows that are kept in memory, at most. */
const MAX_ROWS = 0x1_0000;

/** A row that was written, of which others with its key are to be looked for. */
export interface PossibleTwin {
  readonly target: TargetRelation;
  readonly change: "insert" | "update";
  /** The row without its other values. */
  readonly key: Tuple;
  /** The number of its transaction. */
  readonly transaction: number;
}

/** What the rows are looked for with. */
interface Writing {
  /** Looks whether other sessions may have written rows of a table that are not to be seen yet. */
  readonly lookForOthers: (target: TargetRelation) => void;
  /** Leaves one row with the key, after {@link lookForOthers}. */
  readonly settle: (row: PossibleTwin) => void;
  /** The same, but after the commit. */
  readonly leave: (row: PossibleTwin) => void;
}

/** See the module's head. */
export class Twins {
  readonly #writing: Writing;
  readonly #rows = new Map<TargetRelation, PossibleTwin[]>();
  #count = 0;

  constructor(writing: Writing) {
    this.#writing = writing;
  }

  /** A row is about to be written. */
  add(row: PossibleTwin): void {
    const rows = this.#rows.get(row.target) ?? [];
    this.#rows.set(row.target, rows);
    rows.push(row);
    this.#count++;
  }

  /** Makes room; to be called from time to time. */
  bound(): void {
    if (this.#count < MAX_ROWS) return;
    for (const rows of this.#rows.values()) for (const row of rows) this.#writing.leave(row);
    this.clear();
  }

  /** Looks for all of them, and forgets them. */
  settleAll(): void {
    for (const [target, rows] of this.#rows) {
      this.#writing.lookForOthers(target);
      for (const row of rows) this.#writing.settle(row);
    }
    this.clear();
  }

  /** Forgets what is not committed. */
  clear(): void {
    this.#rows.clear();
    this.#count = 0;
  }
}
