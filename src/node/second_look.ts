/**
 * Has applied changes compared again with rows that were not to be seen when they came (`pg/second_look_schema.ts`).
 */
import type { OwnDeletes } from "../apply/own_deletes.ts";
import { delay } from "../backoff.ts";
import { toMmliteError } from "../errors.ts";
import { log } from "../log.ts";
import type { Database } from "./database.ts";

/** Between two looks, at the least and at the most, milliseconds: what is waited for mostly ends at once. */
const MIN_REST_MS = 100;
const MAX_REST_MS = 5_000;
/** A look of many rows rests for so many times as long as it took, and at most so long: it may only have waited for locks. */
const REST_FACTOR = 10;
const MAX_LONG_REST_MS = 15_000;
/** How often it is looked whether there is anything, milliseconds: mostly who notes it says so. */
const IDLE_MS = 10_000;

/** See the module's head. */
export class SecondLook {
  readonly #database: Pick<Database, "control">;
  readonly #deletes: Pick<OwnDeletes, "lookAgain">;
  readonly #logger = log("conflict");
  #wake: () => void = () => {};
  #rest = MIN_REST_MS;
  /** What the last look failed of, which is told once. */
  #failure = "";

  constructor({ database, deletes }: {
    database: Pick<Database, "control">;
    deletes: Pick<OwnDeletes, "lookAgain">;
  }) {
    this.#database = database;
    this.#deletes = deletes;
  }

  /** There is something to look at. */
  noted(): void {
    this.#rest = MIN_REST_MS;
    this.#wake();
  }

  /** Looks while `usable` says so, until `signal` aborts. */
  async run(signal: AbortSignal, usable: () => boolean): Promise<void> {
    while (!signal.aborted) {
      const started = performance.now();
      // What is noted while it looks may be too late for that.
      const wake = new AbortController();
      this.#wake = () => wake.abort();
      const isOver = !usable() || await this.#tryLook();
      const took = performance.now() - started;
      if (isOver) {
        await delay(IDLE_MS, AbortSignal.any([signal, wake.signal]));
        this.#rest = MIN_REST_MS;
      } else {
        await delay(Math.max(this.#rest, Math.min(MAX_LONG_REST_MS, REST_FACTOR * took)), signal);
        this.#rest = Math.min(MAX_REST_MS, this.#rest * 2);
      }
    }
  }

  /** Whether there is nothing left. */
  async #tryLook(): Promise<boolean> {
    try {
      const query = this.#database.control.query("look at rows again");
      const [row] = await query("SELECT EXISTS (SELECT FROM mmlite.second_look)::text AS any");
      const isOver = row.any !== "true" || await this.#deletes.lookAgain() === 0;
      this.#failure = "";
      return isOver;
    } catch (thrown) {
      // The database is away, or busy: there is another time.
      const { message } = toMmliteError(thrown);
      this.#logger[message === this.#failure ? "debug" : "warn"]("{error}", { error: message });
      this.#failure = message;
      return false;
    }
  }
}
