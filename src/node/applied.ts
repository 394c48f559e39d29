/**
 * What is being applied here, and when rows were last written by it, for those who have to wait for its end.
 */
/** Clocks of this process and of the server may differ by so much, milliseconds. */
const CLOCK_MARGIN_MS = 60_000;

/** An applier, or anything else that applies for a while. */
export interface Applying {
  /** Is settled once it applies nothing more. */
  readonly failed: Promise<unknown>;
  /** Resolves once what has been written so far is committed or undone. */
  settled(): Promise<void>;
}

/** Of all senders. */
export class Applied {
  readonly #appliers = new Set<Applying>();
  #writtenAt = -Infinity;

  /** Takes an applier in for as long as it applies. */
  add(applier: Applying): void {
    this.#appliers.add(applier);
    applier.failed.catch(() => {}).then(() => this.#appliers.delete(applier));
  }

  /** Rows were inserted or updated. */
  wrote(): void {
    this.#writtenAt = Date.now();
  }

  /** See `OwnDeletesOptions.appliedSince`. */
  async since(time: number): Promise<boolean> {
    await Promise.all([...this.#appliers].map((applier) => applier.settled()));
    return this.#writtenAt >= time - CLOCK_MARGIN_MS;
  }
}
