/**
 * The clock of this node's PostgreSQL, which commits are stamped by, without asking it each time.
 *
 * How far it is ahead of this process's own count of time is measured at an interval over the control connection. The
 * answer was made between question and reply, so it is off by half of their distance at most, and by what clocks drift
 * since: some tenths of a millisecond. A clock that is set is noticed with the next measurement.
 */
import { delay } from "../backoff.ts";
import { ClockOffset } from "../clock_offset.ts";
import { toMmliteError } from "../errors.ts";
import { log } from "../log.ts";
import { readServerTime } from "../pg/server.ts";
import type { SenderClock } from "../wire/clock_exchange.ts";
import { POSTGRES_EPOCH_MS } from "./clock.ts";
import type { Database } from "./database.ts";

/** How often the server is asked, milliseconds: its answer takes some 50 µs of it. */
const MEASURE_INTERVAL_MS = 2_000;

/** See the module's head. */
export class ServerClock implements SenderClock {
  readonly #database: Pick<Database, "control">;
  readonly #logger = log("clock");
  /** The server's milliseconds since 2000-01-01 UTC, minus `performance.now()`. */
  readonly #offset = new ClockOffset();
  /** The server's clock minus this process's at the last measurement, seconds. */
  offsetSeconds: number | null = null;

  constructor(database: Pick<Database, "control">) {
    this.#database = database;
  }

  /** Asks the server once. */
  async measure(): Promise<void> {
    const query = this.#database.control.query("read the server's clock");
    const asked = performance.now();
    const time = Number(await readServerTime(query)) / 1000;
    const heard = performance.now();
    this.#offset.add({
      offsetMs: time - (asked + heard) / 2,
      uncertaintyMs: (heard - asked) / 2,
    }, heard);
    const { offsetMs } = this.#offset.at(heard)!;
    this.offsetSeconds = (offsetMs + heard + POSTGRES_EPOCH_MS - Date.now()) / 1000;
  }

  /** Measures at an interval while `usable` says so, until `signal` aborts. */
  async run(signal: AbortSignal, usable: () => boolean): Promise<void> {
    for (;;) {
      await delay(MEASURE_INTERVAL_MS, signal);
      if (signal.aborted) return;
      if (!usable()) continue;
      // The database is away: the last measurement is good for a while.
      await this.measure().catch((thrown) =>
        this.#logger.debug("{error}", { error: toMmliteError(thrown).message })
      );
    }
  }

  /** How long until the server's clock has certainly passed a time, microseconds since 2000-01-01 UTC; milliseconds,
   * negative if it has. */
  untilPassed(timestamp: bigint): number {
    const now = performance.now();
    const { offsetMs, uncertaintyMs } = this.#known(now);
    return Number(timestamp) / 1000 - (now + offsetMs - uncertaintyMs);
  }

  /** The server's time, microseconds since 1970-01-01 UTC. */
  read(): { time: bigint; uncertaintyMs: number } {
    const now = performance.now();
    const { offsetMs, uncertaintyMs } = this.#known(now);
    const sinceEpoch = BigInt(Math.round((now + offsetMs) * 1000));
    return { time: sinceEpoch + BigInt(POSTGRES_EPOCH_MS) * 1000n, uncertaintyMs };
  }

  #known(now: number): { offsetMs: number; uncertaintyMs: number } {
    // Before the first measurement this process's own clock is as good as any.
    return this.#offset.at(now) ?? { offsetMs: Date.now() - POSTGRES_EPOCH_MS - now, uncertaintyMs: 1 };
  }
}
