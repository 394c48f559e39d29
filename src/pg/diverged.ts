/**
 * The table `mmlite.diverged`: tables of which nodes may hold different rows. Apply sessions mark them, an operator
 * clears the mark.
 */
import type { TableName } from "../table_name.ts";
import type { Query } from "./query.ts";

/** A row of `mmlite.diverged`. */
export interface DivergedRow extends TableName {
  /** RFC 3339 UTC. */
  readonly since: string;
  readonly reason: string;
}

/** Every table that is marked. */
export async function readDiverged(query: Query): Promise<DivergedRow[]> {
  const rows = await query(
    `SELECT table_schema, table_name, reason,
            to_char(since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS since
       FROM mmlite.diverged ORDER BY table_schema, table_name`,
  );
  return rows.map((row) => ({
    schema: row.table_schema!,
    name: row.table_name!,
    since: row.since!,
    reason: row.reason!,
  }));
}

/** Takes the mark from a table; whether it had one. */
export async function clearDiverged(query: Query, { schema, name }: TableName): Promise<boolean> {
  const gone = await query(
    "DELETE FROM mmlite.diverged WHERE table_schema = $1 AND table_name = $2 RETURNING table_name",
    [schema, name],
  );
  return gone.length > 0;
}
