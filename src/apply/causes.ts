/**
 * What apply tells of the origin's transactions here, and what it asks about those of other nodes, for transactions to
 * be known, and shown where that is wanted, in the order of cause and effect.
 */
import type { Lsn } from "../lsn.ts";
import type { Begin } from "../pgoutput/message.ts";
import type { SeenVersions } from "../seen_versions.ts";

/** The beginning of a transaction, and what its origin had of other nodes when it was committed there. */
export interface OriginBegin extends Begin {
  readonly seen: SeenVersions;
}

/** Is told how far one origin is applied here. */
export interface AppliedLog {
  /** Transactions up to an end are committed from now on, the latest of which was committed at its origin at a time,
   * microseconds since 2000-01-01 UTC. */
  committing(endLsn: Lsn, timestamp: bigint): void;
  committed(endLsn: Lsn): void;
  /** Everything up to an end was visible when this server's WAL ended at a position. */
  visible(endLsn: Lsn, walLsn: Lsn): void;
}

/** Whether what a transaction was caused by is applied here. */
export interface Causes {
  /** Whether nothing has to be waited for. */
  areMet(seen: SeenVersions): boolean;
  /** Resolves once nothing has to be waited for any more, or `signal` aborts. */
  wait(seen: SeenVersions, signal: AbortSignal): Promise<void>;
}
