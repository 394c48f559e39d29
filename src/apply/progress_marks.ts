/**
 * What an origin says of its progress beside its transactions, told on once everything that came before it is committed
 * here: up to when everything has come, and how far its WAL was read.
 */
import type { Lsn } from "../lsn.ts";
import type { SeenVersions } from "../seen_versions.ts";
import type { AppliedLog } from "./causes.ts";
import type { ApplyObserver } from "./report.ts";

/** Who is told. */
interface Listeners {
  readonly observer: Pick<ApplyObserver, "caughtUp">;
  readonly applied: Pick<AppliedLog, "committed">;
}

/** See the module's head. Positions are ends of the origin's transactions, as they come. */
export class ProgressMarks {
  readonly #listeners: Listeners;
  /** Up to when everything has come, and the position that shows that it is committed here. */
  #mark:
    | { readonly committedBefore: bigint; readonly seen: SeenVersions; readonly position: Lsn }
    | undefined;
  /** Positions that the origin's WAL was read to, each with the one that shows that it is committed here: the first and
   * the last that are not reached. */
  #passed: { walLsn: Lsn; readonly position: Lsn }[] = [];

  constructor(listeners: Listeners) {
    this.#listeners = listeners;
  }

  /** Whatever the origin committed before this time, microseconds since 2000-01-01 UTC, ends at the position; what comes
   * behind it has `seen` at least. */
  caughtUp(committedBefore: bigint, { seen, position }: { seen: SeenVersions; position: Lsn }): void {
    // One of a later position would never be reached under load, were it replaced each time; it comes again.
    if (this.#mark === undefined || this.#mark.position === position) {
      this.#mark = { committedBefore, seen, position };
    }
  }

  /** Whatever ends up to here in the origin's WAL, and is for this node, ends at the position. */
  passed(walLsn: Lsn, position: Lsn): void {
    const last = this.#passed.at(-1);
    if (last?.position === position) last.walLsn = walLsn;
    // The first stays, or under load none would ever be reached.
    else this.#passed = [...this.#passed.slice(0, 1), { walLsn, position }];
  }

  /** Tells of what is reached; whether that was up to when everything has come. */
  reach(committedLsn: Lsn): boolean {
    const mark = this.#mark;
    const isCaughtUp = mark !== undefined && mark.position <= committedLsn;
    if (isCaughtUp) {
      this.#mark = undefined;
      this.#listeners.observer.caughtUp(mark.committedBefore, mark.seen);
    }
    while (this.#passed.length > 0 && this.#passed[0].position <= committedLsn) {
      const { walLsn } = this.#passed.shift()!;
      if (walLsn > committedLsn) this.#listeners.applied.committed(walLsn);
    }
    return isCaughtUp;
  }
}
