/**
 * When transactions may be written: once what caused them is here, where that is waited for, and this server's clock
 * has passed the time of their commit.
 *
 * A local transaction that changes a row afterwards is then newer than the version that it replaces, whichever of two
 * clocks is ahead; without that it would lose to it on every other node. A time that has passed costs a subtraction.
 */
import { delay } from "../backoff.ts";
import { MmliteError } from "../errors.ts";
import { formatLsn, type Lsn } from "../lsn.ts";
import type { SeenVersions } from "../seen_versions.ts";
import type { Causes } from "./causes.ts";

/** The clock of the server that is applied to. */
export interface ApplyClock {
  /** How long until it has certainly passed a time, microseconds since 2000-01-01 UTC; milliseconds, not above zero if
   * it has. */
  untilPassed(timestamp: bigint): number;
}

/** What is waited for at the gate. */
interface Waiting {
  /** Microseconds since 2000-01-01 UTC. */
  readonly commitTimestamp: bigint;
  /** Of the last transaction. */
  readonly commitLsn: Lsn;
  readonly seen: SeenVersions;
}

/** What a gate needs. */
export interface GateOptions {
  /** The sender's node name. */
  readonly origin: string;
  readonly clock: ApplyClock;
  readonly causes: Causes;
  /** How long the clock is waited for, milliseconds; what is further ahead fails at once. */
  readonly maxClockWaitMs: number;
}

/** See the module's head. */
export class Gate {
  readonly #options: GateOptions;
  readonly #closed = new AbortController();

  constructor(options: GateOptions) {
    this.#options = options;
  }

  /** Undefined if transactions may be written now, else a promise of it; rejects with `clock_skew` or `aborted`. */
  pass(waiting: Waiting): Promise<void> | undefined {
    const { clock, causes } = this.#options;
    const isOpen = clock.untilPassed(waiting.commitTimestamp) <= 0 && causes.areMet(waiting.seen);
    return isOpen ? undefined : this.#wait(waiting);
  }

  /** Ends every wait with `aborted`. */
  close(): void {
    this.#closed.abort();
  }

  async #wait({ commitTimestamp, commitLsn, seen }: Waiting): Promise<void> {
    const { origin, clock, causes, maxClockWaitMs } = this.#options;
    const { signal } = this.#closed;
    if (!causes.areMet(seen)) await causes.wait(seen, signal);
    for (;;) {
      const doing = `Cannot apply the transaction of "${origin}" at ${formatLsn(commitLsn)}`;
      if (signal.aborted) throw new MmliteError("aborted", `${doing}: stopped`);
      const ms = clock.untilPassed(commitTimestamp);
      if (ms <= 0) return;
      if (ms > maxClockWaitMs) throw tooFarAhead({ doing, ms, origin, maxClockWaitMs });
      await delay(Math.ceil(ms), signal);
    }
  }
}

function tooFarAhead(
  { doing, ms, origin, maxClockWaitMs }: {
    doing: string;
    ms: number;
    origin: string;
    maxClockWaitMs: number;
  },
): MmliteError {
  return new MmliteError(
    "clock_skew",
    `${doing}: it was committed ${(ms / 1000).toFixed(1)} s ahead of this server's clock, ` +
      `and ${maxClockWaitMs / 1000} s are waited for at most`,
    {
      hint:
        `Set the clock of "${origin}" or of this node, whichever is wrong; the link goes on by itself then`,
    },
  );
}
