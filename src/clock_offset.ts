/**
 * How far one clock is ahead of another, from measurements that are each right within a bound of their own.
 *
 * What is known is an interval that holds the true offset. A measurement narrows it; time widens it, as clocks run at
 * different speeds; and one that contradicts it means that a clock was set, and replaces it.
 */

/**
 * How fast two clocks drift apart at most, seconds a second. What synchronises a clock may slew it by 500 ppm, but
 * does so only after a step that it was too large to make; quartz is within 50, and two of them within this.
 */
const DRIFT = 100e-6;

/** An offset and how far it may be off, either way. Both in milliseconds. */
export interface OffsetInterval {
  readonly offsetMs: number;
  readonly uncertaintyMs: number;
}

/** See the module's head. Times of measurement are `performance.now()`. */
export class ClockOffset {
  #known: { readonly least: number; readonly greatest: number; readonly at: number } | undefined;

  /** Takes a measurement that was made at a time, which is not before that of the last one. */
  add({ offsetMs, uncertaintyMs }: OffsetInterval, at: number): void {
    const before = this.#at(at);
    const least = Math.max(offsetMs - uncertaintyMs, before?.least ?? -Infinity);
    const greatest = Math.min(offsetMs + uncertaintyMs, before?.greatest ?? Infinity);
    this.#known = least <= greatest
      ? { least, greatest, at }
      : { least: offsetMs - uncertaintyMs, greatest: offsetMs + uncertaintyMs, at };
  }

  /** What is known at a time; undefined before the first measurement. */
  at(now: number): OffsetInterval | undefined {
    const known = this.#at(now);
    if (known === undefined) return undefined;
    const { least, greatest } = known;
    return { offsetMs: (least + greatest) / 2, uncertaintyMs: (greatest - least) / 2 };
  }

  #at(now: number): { least: number; greatest: number } | undefined {
    if (this.#known === undefined) return undefined;
    const { least, greatest, at } = this.#known;
    const drifted = Math.max(0, now - at) * DRIFT;
    return { least: least - drifted, greatest: greatest + drifted };
  }
}
