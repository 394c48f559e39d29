/**
 * Of which types the values are that are published.
 */
import { PUBLICATIONS } from "./publication.ts";
import type { Query } from "./query.ts";

/**
 * Whether no column of a published table, but for generated ones, has another type than these, by their OIDs; from 12 on.
 * Partitions have the columns of what they are part of.
 */
export async function publishesOnly(query: Query, types: readonly number[]): Promise<boolean> {
  const [{ only }] = await query(
    `SELECT (NOT EXISTS (SELECT FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
         JOIN pg_attribute a ON a.attrelid = r.prrelid
       WHERE p.pubname IN ('${
      PUBLICATIONS.join("', '")
    }') AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
         AND a.atttypid <> ALL (string_to_array($1, ',')::oid[])))::text AS only`,
    [types.join(",")],
  );
  return only === "true";
}
