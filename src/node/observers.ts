/**
 * What the roles report, put into metrics and the peers' counts.
 */
import type { AppliedHistory } from "../applied_history.ts";
import type { ApplyObserver } from "../apply/applier.ts";
import type { Metrics } from "../metrics.ts";
import type { SourceObserver } from "../source/source.ts";
import type { Applied } from "./applied.ts";
import type { GroupKeeper } from "./group_keeper.ts";
import type { Peer } from "./peer.ts";

/** Conflicts by type since the process started. */
export class ConflictCounts {
  readonly #counts = new Map<string, number>();

  add(type: string): void {
    this.#counts.set(type, (this.#counts.get(type) ?? 0) + 1);
  }

  byType(): Readonly<Record<string, number>> {
    return Object.fromEntries(this.#counts);
  }
}

interface ApplyObserverOptions {
  /** Undefined while the sender is only being registered. */
  readonly peer: Peer | undefined;
  readonly sender: string;
  readonly metrics: Metrics;
  readonly conflicts: ConflictCounts;
  readonly groups: GroupKeeper;
  readonly applied: Applied;
  readonly history: AppliedHistory;
}

/** Counts conflicts, whoever settles them. */
export function conflictObserver(
  { metrics, conflicts }: { readonly metrics: Metrics; readonly conflicts: ConflictCounts },
): Pick<ApplyObserver, "conflict"> {
  return {
    conflict(type, resolution) {
      conflicts.add(type);
      metrics.countConflict(type, resolution);
    },
  };
}

/** Counts what a sender's transactions did here. */
export function applyObserver(
  { peer, sender, metrics, conflicts, groups, applied, history }: ApplyObserverOptions,
): ApplyObserver {
  return {
    committed({ transactions, commitTimestamp, durationMs, changes }) {
      metrics.observeApplied(sender, { transactions, seconds: durationMs / 1000 });
      peer?.inbound.applied(commitTimestamp, changes);
    },
    change(kind, count) {
      metrics.countChanges(sender, kind, count);
      if (kind === "insert" || kind === "update") applied.wrote();
    },
    ...conflictObserver({ metrics, conflicts }),
    deduplicated: () => {},
    caughtUp: (committedBefore, seen) => {
      groups.caughtUp(sender, committedBefore, seen);
      history.caughtUp(sender, committedBefore - 1n);
    },
  };
}

/** Counts what decoding yields. */
export function sourceObserver(metrics: Metrics): SourceObserver {
  return ({ local, foreign, empty }) => {
    if (local > 0) metrics.countDecoded("local", local);
    if (foreign + empty > 0) metrics.countDecoded("filtered", foreign + empty);
  };
}
