/**
 * The tables `mmlite.tombstone`, with the pieces of its long lists, and `mmlite.truncation`: what is kept of deleted
 * rows until no older change can come.
 */
import type { Query } from "./query.ts";
import type { KeptOfOrigin } from "./version_lists.ts";

/** What is kept, by the node that deleted; truncated tables count no bytes. */
export async function readTombstones(query: Query): Promise<KeptOfOrigin[]> {
  const rows = await query(
    `SELECT origin, sum(bytes)::text AS bytes FROM (
       SELECT origin, coalesce(length::bigint * 16, octet_length(entries)) AS bytes FROM mmlite.tombstone
       UNION ALL SELECT origin, 0 FROM mmlite.truncation) kept GROUP BY origin ORDER BY origin`,
  );
  return rows.map(({ origin, bytes }) => ({ origin: origin!, bytes: Number(bytes) }));
}

/** Forgets what a node deleted before a time, RFC 3339; returns how many bytes went. */
export async function forgetTombstones(query: Query, origin: string, before: string): Promise<number> {
  const [row] = await query(
    `WITH gone AS (
       DELETE FROM mmlite.tombstone WHERE origin = $1 AND last_timestamp < $2::timestamptz
       RETURNING run, coalesce(length::bigint * 16, octet_length(entries)) AS bytes),
     gone_piece AS (
       DELETE FROM mmlite.tombstone_piece p USING gone g WHERE p.run = g.run)
     SELECT coalesce(sum(bytes), 0)::text AS bytes FROM gone`,
    [origin, before],
  );
  await query("DELETE FROM mmlite.truncation WHERE origin = $1 AND commit_timestamp < $2::timestamptz", [
    origin,
    before,
  ]);
  return Number(row?.bytes);
}

/**
 * Makes one list of several that a node's deletes are noted in, of those that a snapshot sees (`MergeHorizon`); returns
 * of how many, 0 where there are few enough.
 */
export async function mergeTombstones(query: Query, origin: string, seen: string): Promise<number> {
  const [row] = await query("SELECT mmlite.merge_tombstones($1, $2::txid_snapshot)::text AS merged", [
    origin,
    seen,
  ]);
  return Number(row?.merged);
}
