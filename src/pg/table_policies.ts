/**
 * The table `mmlite.table_policy`: how conflicts of single tables are settled, as it was set through the API.
 */
import type { TableName } from "../table_name.ts";
import type { Query } from "./query.ts";

/** A row of `mmlite.table_policy`. */
export interface TablePolicyRow extends TableName {
  /** The policy as JSON; whoever reads it checks it. */
  readonly policy: string;
}

/** Every table that has one. */
export async function readTablePolicies(query: Query): Promise<TablePolicyRow[]> {
  const rows = await query(
    "SELECT table_schema, table_name, policy::text FROM mmlite.table_policy ORDER BY table_schema, table_name",
  );
  return rows.map((row) => ({ schema: row.table_schema!, name: row.table_name!, policy: row.policy! }));
}

/** Sets a table's policy, JSON. */
export async function saveTablePolicy(query: Query, { schema, name, policy }: TablePolicyRow): Promise<void> {
  await query(
    `INSERT INTO mmlite.table_policy (table_schema, table_name, policy) VALUES ($1, $2, $3::jsonb)
     ON CONFLICT (table_schema, table_name) DO UPDATE SET policy = excluded.policy, changed_at = clock_timestamp()`,
    [schema, name, policy],
  );
}

/** Forgets a table's policy; does nothing if it has none. */
export async function deleteTablePolicy(query: Query, { schema, name }: TableName): Promise<void> {
  await query("DELETE FROM mmlite.table_policy WHERE table_schema = $1 AND table_name = $2", [schema, name]);
}
