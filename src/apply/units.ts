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

/** See the module's head. */
export class Units {
  readonly #writer: TransactionWriter;
  readonly #done: (held: HeldTransactions) => void;
  #underWay: Unit[] = [];
  #waiting: Unit[] = [];
  #progress = Promise.withResolvers<void>();

  /** `done` gets what is committed, and may use it again. */
  constructor(writer: TransactionWriter, done: (held: HeldTransactions) => void) {
    this.#writer = writer;
    this.#done = done;
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
    for (const { held } of this.#underWay.splice(0, done)) this.#done(held);
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
    while (this.#underWay.length < MAX_UNDER_WAY) {
      const unit = this.#waiting.shift();
      if (unit === undefined) return;
      this.#underWay.push(unit);
      if (unit.mode === "sets") this.#writer.writeGroup(unit.held);
      else this.#writer.writeEach(unit.held);
      this.#writer.endBatch();
    }
  }
}
