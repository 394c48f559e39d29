/**
 * Whether an origin's transactions are written by sets. Where that failed they are written row by row for a while,
 * the longer the more often; it costs twice where many transactions conflict.
 */
import { type Lsn, maxLsn, ZERO_LSN } from "../lsn.ts";
import type { WriteMode } from "./transaction_writer.ts";

/** Transactions that are written row by row after a first failure, and after one in a row of many. */
const MIN_CAUTION = 64;
const MAX_CAUTION = 4_096;

/** How often a transaction may meet another session's in the same place before that is taken for something else. */
const MAX_RACES = 5;

/** One origin's; it outlives the sessions, because what was not held when it failed comes again in the next. */
export class Trust {
  /** Transactions up to here came to nothing by sets. */
  #rowsUntil: Lsn = ZERO_LSN;
  #rowsLeft = 0;
  #caution = 0;
  #racedLsn: Lsn = ZERO_LSN;
  #races = 0;

  /** How the next transaction is to be written; of a while row by row, that is one less then. */
  nextMode(commitLsn: Lsn): WriteMode {
    if (commitLsn <= this.#rowsUntil) return "rows";
    if (this.#rowsLeft === 0) return "sets";
    this.#rowsLeft--;
    return "rows";
  }

  /** Sets have failed. */
  lose(): void {
    this.#caution = Math.min(MAX_CAUTION, Math.max(MIN_CAUTION, this.#caution * 2));
    this.#rowsLeft = this.#caution;
  }

  /** Sets have failed in a transaction that is not held; it will come again. */
  loseUntil(commitLsn: Lsn): void {
    this.#rowsUntil = maxLsn(this.#rowsUntil, commitLsn);
  }

  /** Whether a transaction that another session has come in the way of may be tried again at once. */
  mayRaceAgain(commitLsn: Lsn): boolean {
    if (this.#racedLsn !== commitLsn) this.#races = 0;
    this.#racedLsn = commitLsn;
    return ++this.#races < MAX_RACES;
  }

  /** Sets have been committed. */
  gain(): void {
    this.#caution >>= 1;
  }
}
