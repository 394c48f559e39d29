/**
 * How far the clock of a peer's PostgreSQL is ahead of this node's, and whether that is too far.
 *
 * Both streams between two nodes tell it, each with the heartbeats that go both ways on it.
 */
import { ClockOffset, type OffsetInterval } from "../clock_offset.ts";
import { MmliteError } from "../errors.ts";
import { log } from "../log.ts";

/** Clocks that are certainly further apart are reported, seconds: NTP keeps them within some milliseconds. */
export const MAX_CLOCK_SKEW_SECONDS = 1;

/** What is known of a peer's clock; in seconds. */
export interface ClockSkew {
  /** The peer's clock minus ours. */
  readonly seconds: number;
  /** How much it may be more or less. */
  readonly uncertaintySeconds: number;
}

/** See the module's head. */
export class PeerClock {
  readonly #peer: string;
  readonly #logger;
  readonly #offset = new ClockOffset();
  #warned = false;

  constructor(peer: string) {
    this.#peer = peer;
    this.#logger = log("clock", peer);
  }

  /** Takes what a heartbeat tells. */
  heard(offset: OffsetInterval): void {
    this.#offset.add(offset, performance.now());
    const { problem } = this;
    if (problem !== undefined && !this.#warned) {
      this.#logger.warn("{error}; {hint}", { error: problem.message, hint: problem.hint });
    } else if (problem === undefined && this.#warned) {
      this.#logger.info("The clocks of the two nodes agree again");
    }
    this.#warned = problem !== undefined;
  }

  /** Null before anything was heard. */
  get skew(): ClockSkew | null {
    const known = this.#offset.at(performance.now());
    if (known === undefined) return null;
    return { seconds: known.offsetMs / 1000, uncertaintySeconds: known.uncertaintyMs / 1000 };
  }

  /** Set while the two clocks are certainly too far apart. */
  get problem(): MmliteError | undefined {
    const { skew } = this;
    if (skew === null) return undefined;
    const { seconds, uncertaintySeconds } = skew;
    if (Math.abs(seconds) - uncertaintySeconds <= MAX_CLOCK_SKEW_SECONDS) return undefined;
    const apart = `${Math.abs(seconds).toFixed(1)} s ${seconds > 0 ? "ahead of" : "behind"}`;
    return new MmliteError(
      "clock_skew",
      `The PostgreSQL clock of peer "${this.#peer}" is ${apart} this node's`,
    );
  }
}
