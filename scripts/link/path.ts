/**
 * One direction of an emulated link, as arithmetic: when a packet arrives that is sent now, if it does.
 *
 * A packet is lost at random, or because too much waits before it; else it waits for those before it, takes its
 * time at the link's rate, and travels. Packets never overtake each other. Pure, so that runs with the same seed
 * lose the same packets.
 */

/** What a link is like in one direction. */
export interface PathOptions {
  /** Time that every packet travels, milliseconds: half the round trip. */
  readonly delayMs: number;
  /** Megabits in a second; Infinity for no bound. */
  readonly megabits: number;
  /** Share of the packets that are lost, 0 to 1. */
  readonly loss: number;
  /** Bytes that may wait to be sent; a packet that comes on top is lost. */
  readonly queueBytes: number;
  /** Decides which packets are lost. */
  readonly seed: number;
}

/** One direction of a link. Times are milliseconds of any clock that does not go back. */
export class Path {
  readonly #options: PathOptions;
  readonly #bytesPerMs: number;
  readonly #random: () => number;
  /** When the last packet is sent out whole. */
  #freeAt = 0;

  constructor(options: PathOptions) {
    this.#options = options;
    this.#bytesPerMs = options.megabits * 1e6 / 8 / 1e3;
    this.#random = randomShares(options.seed);
  }

  /** When a packet of this size arrives that is sent at `now`; null if it is lost. */
  send(bytes: number, now: number): number | null {
    const { delayMs, loss, queueBytes } = this.#options;
    const startsAt = Math.max(now, this.#freeAt);
    const waiting = (startsAt - now) * this.#bytesPerMs;
    if (waiting + bytes > queueBytes || this.#random() < loss) return null;
    this.#freeAt = startsAt + bytes / this.#bytesPerMs;
    return this.#freeAt + delayMs;
  }
}

/** Numbers from 0 up to 1, the same for the same seed: mulberry32. */
function randomShares(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
