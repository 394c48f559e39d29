/**
 * Up to when everything that clients of this server have committed lies before a position in its WAL.
 *
 * A transaction takes the time of its commit once it has an id, and keeps the id until its commit record is written. So
 * of a moment when nobody had one that is certain at once, else as soon as those who had are through. Where one stays
 * for long it is taken for certain of a minute ago.
 */
import type { Lsn } from "../lsn.ts";
import type { Query } from "../pg/query.ts";
import { readWalClock, type WalClock } from "../pg/server.ts";
import { SKEW_MARGIN_MS } from "./group_keeper.ts";

/** See the module's head. */
export class CommitTimes {
  readonly #query: Query;
  #before: WalClock | undefined;

  constructor(query: Query) {
    this.#query = query;
  }

  /** What was committed before `timestamp`, microseconds since 2000-01-01 UTC, is in the WAL before `walLsn`. */
  async read(): Promise<{ timestamp: bigint; walLsn: Lsn }> {
    const now = await readWalClock(this.#query);
    const before = this.#before;
    this.#before = now;
    const longAgo = now.timestamp - BigInt(SKEW_MARGIN_MS) * 1000n;
    return { timestamp: certain(now, before) ?? longAgo, walLsn: now.walLsn };
  }
}

function certain(now: WalClock, before: WalClock | undefined): bigint | undefined {
  if (now.writing.size === 0) return now.timestamp;
  if (before !== undefined && before.writing.isDisjointFrom(now.writing)) return before.timestamp;
}
