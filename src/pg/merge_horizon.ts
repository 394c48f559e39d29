/**
 * Which lists of deleted rows may be merged: those that every transaction sees from its beginning on that applies.
 *
 * Before it commits, such a one looks once more at what was noted since it began, and tells lists apart by who has noted
 * them. Of a merged one that is the last of several: all of them must have been there, or none.
 */
import type { Query } from "./query.ts";

/** A moment: what is seen, and which transactions that apply have begun before. */
interface Moment {
  readonly snapshot: string;
  readonly applying: ReadonlySet<string>;
}

/** See the module's head. */
export class MergeHorizon {
  #before: Moment | undefined;

  /** A snapshot, as text; undefined where somebody may still apply who does not see all of it. */
  async read(query: Query): Promise<string | undefined> {
    const now = await readMoment(query);
    const before = this.#before;
    if (now.applying.size === 0) {
      this.#before = undefined;
      return now.snapshot;
    }
    if (before !== undefined && !before.applying.isDisjointFrom(now.applying)) return undefined;
    this.#before = now;
    return before?.snapshot;
  }
}

/** The snapshot is there before it is read who applies. */
async function readMoment(query: Query): Promise<Moment> {
  const [row] = await query(
    `SELECT txid_current_snapshot()::text AS snapshot,
       (SELECT json_agg(a.pid || ' ' || a.xact_start)::text FROM pg_stat_activity a
         WHERE a.datname = current_database() AND a.application_name LIKE 'mmlite apply %'
           AND a.xact_start IS NOT NULL) AS applying`,
  );
  return { snapshot: row!.snapshot!, applying: new Set<string>(JSON.parse(row!.applying ?? "[]")) };
}
