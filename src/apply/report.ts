/**
 * What comes of a local transaction besides its rows: how many changes, which conflicts, and what is to be done about
 * what was found. It is gathered from what is written and from the notices of the server, and told after the commit.
 */
import type { ConflictType, Resolution } from "../conflict_policy.ts";
import { CONFLICT_SQLSTATE } from "../pg/conflict_schema.ts";
import { SECOND_LOOK_SQLSTATE } from "../pg/second_look_schema.ts";
import { UNSENT_SQLSTATE } from "../pg/unsent_schema.ts";
import type { SeenVersions } from "../seen_versions.ts";
import type { ChangeKind } from "./change_kind.ts";

/** Is told what was committed. */
export interface ApplyObserver {
  /** A local transaction has committed that many of the origin's, the last of which committed there at
   * `commitTimestamp`, microseconds since 2000-01-01 UTC. `durationMs`: from the first statement written to the reply
   * to COMMIT. */
  committed(of: { transactions: number; commitTimestamp: bigint; durationMs: number; changes: number }): void;
  change(kind: ChangeKind, count: number): void;
  conflict(type: ConflictType, resolution: Resolution): void;
  /** Transactions that came again and were skipped. */
  deduplicated(count: number): void;
  /** Whatever the origin committed before this time, microseconds since 2000-01-01 UTC, is applied; whatever it commits
   * later has `seen` at least. */
  caughtUp(committedBefore: bigint, seen: SeenVersions): void;
}

/** Who is told. */
export interface ReportListeners {
  readonly observer: ApplyObserver;
  /** Rows that were written await values from these nodes. */
  readonly onUnsent?: (nodes: ReadonlySet<string>) => void;
  /** What was written is to be compared again with rows that were not to be seen yet. */
  readonly onSecondLook?: () => void;
}

/** Of one local transaction, from its first statement on. */
export class Report {
  readonly counts: Record<ChangeKind, number> = { insert: 0, update: 0, delete: 0, truncate: 0 };
  readonly #startedAt = performance.now();
  readonly #conflicts: (readonly [ConflictType, Resolution])[] = [];
  /** Nodes of which rows await values. */
  readonly #unsent = new Set<string>();
  /** Whether something is to be looked at again. */
  #secondLook = false;

  /** Takes a notice of one of its statements. */
  note({ code, message }: { code?: string; message?: string }): void {
    if (code === UNSENT_SQLSTATE) this.#unsent.add(message!);
    if (code === SECOND_LOOK_SQLSTATE) this.#secondLook = true;
    if (code !== CONFLICT_SQLSTATE) return;
    const [type, resolution, again] = message!.split(" ");
    // A row that another session had locked is looked at again, in the state in which that one has left it.
    if (again !== undefined) this.#conflicts.pop();
    this.#conflicts.push([type as ConflictType, resolution as Resolution]);
  }

  /** Tells all of it: that many of the origin's transactions are committed, none where a row was fetched. */
  tell(
    { transactions, commitTimestamp }: { transactions: number; commitTimestamp: bigint },
    { observer, onUnsent, onSecondLook }: ReportListeners,
  ): void {
    const { counts } = this;
    if (this.#unsent.size > 0) onUnsent?.(this.#unsent);
    if (this.#secondLook) onSecondLook?.();
    const changes = counts.insert + counts.update + counts.delete + counts.truncate;
    if (transactions > 0) {
      const durationMs = performance.now() - this.#startedAt;
      observer.committed({ transactions, commitTimestamp, durationMs, changes });
    }
    if (counts.insert > 0) observer.change("insert", counts.insert);
    if (counts.update > 0) observer.change("update", counts.update);
    if (counts.delete > 0) observer.change("delete", counts.delete);
    if (counts.truncate > 0) observer.change("truncate", counts.truncate);
    this.tellConflicts(observer);
  }

  /** Tells of the conflicts alone. */
  tellConflicts(observer: Pick<ApplyObserver, "conflict">): void {
    for (const [type, resolution] of this.#conflicts) observer.conflict(type, resolution);
  }
}
