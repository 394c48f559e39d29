/**
 * Marks: moments of this node that another one has passed once it has applied all that was committed here before.
 */
import { formatLsn, type Lsn, parseLsn } from "../lsn.ts";
import type { Query } from "./query.ts";
import { slotName } from "./slots.ts";

/** What a node had at a moment. */
export interface Mark {
  /** Whatever was committed here before ends before this in the server's WAL. */
  readonly lsn: Lsn;
  /** How far each other node was applied here; not one of which nothing was: where it began is no transaction's end. */
  readonly origins: readonly { readonly name: string; readonly lsn: Lsn }[];
}

/**
 * Sets a mark behind everything that was visible before. It is a transaction of its own that changes nothing: its
 * commit has the WAL before it written, and the walsenders pass it.
 */
export async function setMark(query: Query): Promise<Mark> {
  const [row] = await query(
    `SELECT pg_logical_emit_message(true, 'mmlite', 'mark')::text AS lsn,
            (SELECT json_agg(json_build_array(origin, lsn::text)) FROM mmlite.progress
              WHERE commit_timestamp IS NOT NULL)::text AS origins`,
  );
  const origins: [string, string][] = JSON.parse(row!.origins ?? "[]");
  return { lsn: parseLsn(row!.lsn!), origins: origins.map(([name, lsn]) => ({ name, lsn: parseLsn(lsn) })) };
}

/** Whether a peer has applied, and has on disk, what ends here before a position; undefined without a slot for it. */
export async function hasReceived(query: Query, peer: string, lsn: Lsn): Promise<boolean | undefined> {
  const [row] = await query(
    "SELECT (confirmed_flush_lsn >= $2::pg_lsn)::text AS received FROM pg_replication_slots WHERE slot_name = $1",
    [slotName(peer), formatLsn(lsn)],
  );
  return row === undefined ? undefined : row.received === "true";
}

/** Those nodes that are applied here less far than there; nodes of which this one applies nothing are left out. */
export async function behindOf(query: Query, origins: Mark["origins"]): Promise<string[]> {
  const rows = await query(
    `SELECT p.origin FROM mmlite.progress p
       JOIN json_to_recordset($1::json) AS o (name text, lsn text) ON o.name = p.origin WHERE p.lsn < o.lsn::pg_lsn`,
    [JSON.stringify(origins.map(({ name, lsn }) => ({ name, lsn: formatLsn(lsn) })))],
  );
  return rows.map(({ origin }) => origin!);
}
