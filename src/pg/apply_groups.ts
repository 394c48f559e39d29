/**
 * The table `mmlite.apply_group`: what the commit records of applied groups cannot say of their rows' versions.
 */
import type { Query } from "./query.ts";
import type { KeptOfOrigin } from "./version_lists.ts";

/** What is kept of a node's groups. */
interface KeptGroups extends KeptOfOrigin {
  readonly groups: number;
}

/** What is kept for a while, by the node whose transactions were applied in groups. */
export async function readGroups(query: Query): Promise<KeptGroups[]> {
  const rows = await query(
    `SELECT origin, count(*)::text AS groups, sum(octet_length(entries))::text AS bytes
       FROM mmlite.apply_group WHERE NOT lasting GROUP BY origin ORDER BY origin`,
  );
  return rows.map(({ origin, groups, bytes }) => ({
    origin: origin!,
    groups: Number(groups),
    bytes: Number(bytes),
  }));
}

/** Forgets the groups of an origin that ended before a time, RFC 3339; returns how many bytes went. */
export async function forgetGroups(query: Query, origin: string, before: string): Promise<number> {
  const [row] = await query(
    `WITH gone AS (
       DELETE FROM mmlite.apply_group WHERE origin = $1 AND last_timestamp < $2::timestamptz AND NOT lasting
       RETURNING octet_length(entries) AS bytes)
     SELECT coalesce(sum(bytes), 0)::text AS bytes FROM gone`,
    [origin, before],
  );
  return Number(row?.bytes);
}

/** Forgets what repairs noted of rows that are frozen by now: they have no version any more. */
export async function forgetFrozenRepairs(query: Query): Promise<void> {
  await query(
    `DELETE FROM mmlite.apply_group WHERE lasting AND xid < (
       SELECT mmlite.full_xid(datfrozenxid) FROM pg_catalog.pg_database WHERE datname = current_database())`,
  );
}
