/**
 * Whether rows may have been written by applying lately, for those who would have to look at them again.
 */
import { readProgress } from "../pg/progress.ts";
import type { Query } from "../pg/query.ts";

/** Clocks of this process and of the server may differ by so much, and what was sent may wait so long, milliseconds. */
const MARGIN_MS = 60_000;

/** What applies. */
interface Applying {
  /** Whether it has anything under way. */
  readonly isBusy: boolean;
  /** Settles when it has ended. */
  readonly failed: Promise<unknown>;
}

/** Of all senders. */
export class Applied {
  readonly #applying = new Set<Applying>();
  #writtenAt = -Infinity;

  /** What was applied before this process, and when, is not known; but whether anything ever was. */
  async load(query: Query): Promise<void> {
    if ((await readProgress(query)).some(({ commitTimestamp }) => commitTimestamp !== null)) this.wrote();
  }

  /** Takes in what applies, until it has ended. */
  add(applying: Applying): void {
    this.#applying.add(applying);
    const ended = () => {
      this.#applying.delete(applying);
      // What it had sent may be executed all the same.
      this.wrote();
    };
    applying.failed.then(ended, ended);
  }

  /** Rows were inserted or updated. */
  wrote(): void {
    this.#writtenAt = Date.now();
  }

  /** See `OwnDeletesOptions.mayHaveApplied`. */
  since(time: number): boolean {
    return this.#writtenAt >= time - MARGIN_MS || [...this.#applying].some(({ isBusy }) => isBusy);
  }
}
