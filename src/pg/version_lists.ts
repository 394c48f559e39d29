/**
 * What the tables `mmlite.apply_group` and `mmlite.tombstone` have in common: lists of rows, by the node that came to
 * them and the time of its last transaction.
 */
import type { Query } from "./query.ts";

/** What is kept of a node's transactions, bytes. */
export interface KeptOfOrigin {
  readonly origin: string;
  readonly bytes: number;
}

/** Forgets the lists of an origin that end before a time, RFC 3339; returns how many bytes went. */
export async function forgetLists(
  query: Query,
  table: "apply_group" | "tombstone",
  { origin, before }: { origin: string; before: string },
): Promise<number> {
  const [row] = await query(
    `WITH gone AS (
       DELETE FROM mmlite.${table} WHERE origin = $1 AND last_timestamp < $2::timestamptz
       RETURNING octet_length(entries) AS bytes)
     SELECT coalesce(sum(bytes), 0)::text AS bytes FROM gone`,
    [origin, before],
  );
  return Number(row?.bytes);
}
