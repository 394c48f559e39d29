/**
 * What has been written and is not committed yet, and what waits for its turn to be written.
 *
 * Two units are under way at most: while the server works on one the next is there. What is under way is held until
 * it is committed, so that it can be written again.
 */
import type { Lsn } from "../lsn.ts";
import type { HeldTransactions } from "./held.ts";
import type { TransactionWriter, WriteMode } from "./transaction_writer.ts";

const MAX_UNDER_WAY = 2;

/** Transactions that are written together. */
export interface Unit {
  readonly held: HeldTransactions;
  readonly mode: WriteMode;
}

interface UnitsOptions {
  readonly writer: TransactionWriter;
  /** Undefined if transactions may be written now, else a promise of it. */
  readonly mayWrite: (held: HeldTransactions) => Promise<void> | undefined;
  /** What is committed may be used again. */
  readonly done: (held: HeldTransactions) => void;
  /** A unit must not be written, and everything before it is committed. */
  readonly failed: (thrown: unknown) => void;
}

/** See the module's head. */
export class Units {
  readonly #options: UnitsOptions;
  #underWay: Unit[] = [];
  #waiting: Unit[] = [];
  #progress = Promise.withResolvers<void>();

  /** The first that waits may not be written yet, whatever room there is. */
  #isHeldBack = false;

  constructor(options: UnitsOptions) {
    this.#options = options;
  }

  /** Whether everything offered is committed. */
  get isEmpty(): boolean {
    return this.#underWay.length === 0 && this.#waiting.length === 0;
  }

  /** How what is being committed was written; undefined where nothing is. */
  get mode(): WriteMode | undefined {
    return this.#underWay.at(0)?.mode;
  }

  /** Writes transactions as soon as it is their turn. */
  offer(unit: Unit): void {
    this.#waiting.push(unit);
    this.#write();
  }

  /** Undefined if more may be offered, else a promise of room. */
  room(): Promise<void> | undefined {
    return this.#waiting.length === 0 ? undefined : this.#whenRoom();
  }

  /** Resolves with the next commit; rejects when applying has failed. */
  progress(): Promise<void> {
    return this.#progress.promise;
  }

  /** Nothing more will be committed: whoever waits gets the error. */
  fail(error: Error): void {
    this.#progress.promise.catch(() => {});
    this.#progress.reject(error);
  }

  /** Everything up to `endLsn` is committed. Returns how many units that ended. */
  committed(endLsn: Lsn): number {
    let done = 0;
    while (done < this.#underWay.length && this.#underWay[done].held.endLsn! <= endLsn) done++;
    if (done === 0) return 0;
    for (const { held } of this.#underWay.splice(0, done)) this.#options.done(held);
    this.#write();
    this.#proceed();
    return done;
  }

  /** Takes everything back, what was under way included: after a failure of sets nothing of it is committed. */
  takeBack(): Unit[] {
    const units = [...this.#underWay, ...this.#waiting];
    this.#underWay = [];
    this.#waiting = [];
    return units;
  }

  /** Wakes whoever waits. */
  #proceed(): void {
    const { resolve } = this.#progress;
    this.#progress = Promise.withResolvers();
    resolve();
  }

  async #whenRoom(): Promise<void> {
    while (this.#waiting.length > 0) await this.#progress.promise;
  }

  #write(): void {
    const { writer, mayWrite } = this.#options;
    while (this.#underWay.length < MAX_UNDER_WAY && !this.#isHeldBack) {
      const unit = this.#waiting.at(0);
      if (unit === undefined) return;
      const allowed = mayWrite(unit.held);
      if (allowed !== undefined) return void this.#holdBack(allowed);
      this.#waiting.shift();
      this.#underWay.push(unit);
      if (unit.mode === "sets") writer.writeGroup(unit.held);
      else writer.writeEach(unit.held);
      writer.endBatch();
    }
  }

  /** Goes on once the first that waits is allowed; if it never is, what is under way ends before that is told. */
  async #holdBack(allowed: Promise<void>): Promise<void> {
    this.#isHeldBack = true;
    try {
      await allowed;
      this.#isHeldBack = false;
      this.#write();
      this.#proceed();
    } catch (thrown) {
      if (await this.#ends()) this.#options.failed(thrown);
    }
  }

  /** Whether what is under way is committed in the end; a failure of it is told elsewhere. */
  async #ends(): Promise<boolean> {
    try {
      while (this.#underWay.length > 0) await this.#progress.promise;
      return true;
    } catch {
      return false;
    }
  }
}
