/**
 * Rows that differ between nodes, for tests of what finds and mends that.
 */
import type { ClusterMember } from "./cluster.ts";

/** What differs was not written through here: nothing of it is sent to other nodes. */
const APART = "mmlite_of_nobody";

/** Writes what does not leave the node, as of a time. */
export async function plant({ server, database }: ClusterMember, sql: string, at = "now"): Promise<void> {
  const client = await server.connect(database);
  try {
    await client.query(
      `SELECT pg_replication_origin_create('${APART}') WHERE pg_replication_origin_oid('${APART}') IS NULL`,
    );
    await client.query(`SELECT pg_replication_origin_session_setup('${APART}')`);
    await client.query("SET session_replication_role = replica");
    await client.query(`BEGIN; SELECT pg_replication_origin_xact_setup('0/1', '${at}'); ${sql}; COMMIT`);
  } finally {
    await client.end();
  }
}
