/**
 * How far a job is.
 */

/** Below this fraction nothing is said of the time that is left. */
const MIN_FRACTION = 0.01;
/** What was estimated may be too low: a job that runs is never done. */
const MAX_FRACTION = 0.99;

/** Counted by whoever does the work. */
export class JobProgress {
  /** Rows that were read. */
  rows = 0;
  /** Bytes that went over the network. */
  bytes: () => number = () => 0;
  #expected = 0;
  #begunAt = 0;

  /** The work begins. */
  begin(): void {
    this.#begunAt = performance.now();
  }

  /** What was counted does not count: the work is done again from its beginning. */
  restart(): void {
    this.rows = 0;
    this.#expected = 0;
    this.begin();
  }

  /** More rows are to be read than was known, about. */
  expect(rows: number): void {
    this.#expected += rows;
  }

  /** Rows were read. */
  read(rows: number): void {
    this.rows += rows;
  }

  /** From 0 to 1; null while it cannot be told. */
  get fraction(): number | null {
    return this.#expected === 0 ? null : Math.min(MAX_FRACTION, this.rows / this.#expected);
  }

  /** The time that it takes still, about, seconds; null while it cannot be told. */
  get etaSeconds(): number | null {
    const { fraction } = this;
    if (fraction === null || fraction < MIN_FRACTION) return null;
    const tookMs = performance.now() - this.#begunAt;
    return Math.round(tookMs * (1 - fraction) / fraction / 100) / 10;
  }
}
