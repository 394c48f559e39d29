/**
 * The tables `mmlite.tombstone` and `mmlite.truncation`: what is kept of deleted rows until no older change can come.
 */
import type { Query } from "./query.ts";
import { forgetLists, type KeptOfOrigin } from "./version_lists.ts";

/** What is kept, by the node that deleted; truncated tables count no bytes. */
export async function readTombstones(query: Query): Promise<KeptOfOrigin[]> {
  const rows = await query(
    `SELECT origin, sum(bytes)::text AS bytes FROM (
       SELECT origin, octet_length(entries) AS bytes FROM mmlite.tombstone
       UNION ALL SELECT origin, 0 FROM mmlite.truncation) kept GROUP BY origin ORDER BY origin`,
  );
  return rows.map(({ origin, bytes }) => ({ origin: origin!, bytes: Number(bytes) }));
}

/** Forgets what a node deleted before a time, RFC 3339; returns how many bytes went. */
export async function forgetTombstones(query: Query, origin: string, before: string): Promise<number> {
  const bytes = await forgetLists(query, "tombstone", { origin, before });
  await query("DELETE FROM mmlite.truncation WHERE origin = $1 AND commit_timestamp < $2::timestamptz", [
    origin,
    before,
  ]);
  return bytes;
}
