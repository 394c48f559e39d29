/**
 * The one row of `mmlite.node`: who this database is in the cluster.
 */
import { MmliteError } from "../errors.ts";
import type { Query } from "./query.ts";

/** A row of `mmlite.node`. */
export interface NodeRow {
  readonly cluster: string;
  readonly name: string;
  readonly incarnation: string;
}

/** Who this database is, or undefined before its first start. */
export async function readNode(query: Query): Promise<NodeRow | undefined> {
  const [row] = await query("SELECT cluster, name, incarnation::text FROM mmlite.node");
  return row === undefined
    ? undefined
    : { cluster: row.cluster!, name: row.name!, incarnation: row.incarnation! };
}

/** Makes this database a node; it must not be one yet. */
export async function createNode(query: Query, node: NodeRow): Promise<void> {
  await query("INSERT INTO mmlite.node (cluster, name, incarnation) VALUES ($1, $2, $3::uuid)", [
    node.cluster,
    node.name,
    node.incarnation,
  ]);
}

/** Throws a `fenced` error when the database is another node than the configuration says. */
export function requireSameNode(found: NodeRow, expected: { cluster: string; name: string }): void {
  const differs = found.cluster !== expected.cluster
    ? "cluster"
    : found.name !== expected.name
    ? "name"
    : undefined;
  if (differs === undefined) return;
  throw new MmliteError(
    "fenced",
    `Cannot run as node "${expected.name}" of cluster "${expected.cluster}": ` +
      `this database is node "${found.name}" of cluster "${found.cluster}"`,
    {
      hint: `Start with --name ${found.name} --cluster ${found.cluster}; ` +
        "if the database was copied from that node, drop schema mmlite and its slots here first",
    },
  );
}
