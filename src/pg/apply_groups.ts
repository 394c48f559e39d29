/**
 * The table `mmlite.apply_group`: what the commit records of applied groups cannot say of their rows' versions.
 */
import type { Query } from "./query.ts";
import { forgetLists, type KeptOfOrigin } from "./version_lists.ts";

/** What is kept, by the node whose transactions were applied in groups. */
export async function readGroups(query: Query): Promise<KeptOfOrigin[]> {
  const rows = await query(
    "SELECT origin, sum(octet_length(entries))::text AS bytes FROM mmlite.apply_group GROUP BY origin ORDER BY origin",
  );
  return rows.map(({ origin, bytes }) => ({ origin: origin!, bytes: Number(bytes) }));
}

/** Forgets the groups of an origin that ended before a time, RFC 3339; returns how many bytes went. */
export function forgetGroups(query: Query, origin: string, before: string): Promise<number> {
  return forgetLists(query, "apply_group", { origin, before });
}
