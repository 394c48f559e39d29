/**
 * Forgets conflicts once they are old enough, in pieces, so that no statement holds much for long.
 */
import { delay } from "../backoff.ts";
import { toMmliteError } from "../errors.ts";
import { log } from "../log.ts";
import { forgetConflicts } from "../pg/conflicts.ts";
import type { Database } from "./database.ts";

/** How often it is looked what can go, milliseconds. */
const LOOK_INTERVAL_MS = 60_000;
/** Conflicts that one statement forgets at most: some milliseconds. */
const PIECE = 1_000;

/** See the module's head. */
export class ConflictKeeper {
  readonly #database: Pick<Database, "control">;
  readonly #keepSeconds: number;
  readonly #logger = log("conflicts");

  constructor({ database, keepSeconds }: { database: Pick<Database, "control">; keepSeconds: number }) {
    this.#database = database;
    this.#keepSeconds = keepSeconds;
  }

  /** Forgets now and at an interval, while `usable` says so, until `signal` aborts. */
  async run(signal: AbortSignal, usable: () => boolean): Promise<void> {
    while (!signal.aborted) {
      if (usable()) await this.#tryForget(signal);
      await delay(LOOK_INTERVAL_MS, signal);
    }
  }

  async #tryForget(signal: AbortSignal): Promise<void> {
    try {
      await this.forget(signal);
    } catch (thrown) {
      // The database is away, or busy: there is another time.
      this.#logger.debug("{error}", { error: toMmliteError(thrown).message });
    }
  }

  /** Forgets all that can go now; how many. */
  async forget(signal?: AbortSignal): Promise<number> {
    const query = this.#database.control.query("forget old conflicts");
    let forgotten = 0;
    for (let piece = PIECE; piece === PIECE && !signal?.aborted; forgotten += piece) {
      piece = await forgetConflicts(query, this.#keepSeconds, PIECE);
    }
    if (forgotten > 0) this.#logger.debug("{count} old conflicts are forgotten", { count: forgotten });
    return forgotten;
  }
}
