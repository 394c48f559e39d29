/**
 * The nodes of one seed: a database of its own on a shared server each, and a proxy for each direction of a pair.
 * What replicates between them is started by `mmlite_mesh.ts` or `builtin_mesh.ts`.
 */
import { eventually } from "../../tests/support/poll.ts";
import type { PostgresServer } from "../../tests/support/postgres.ts";
import type { LinkProxy } from "./link_proxy.ts";
import type { Plan, PlannedNode } from "./plan.ts";
import type { ServerPool } from "./server_pool.ts";
import { schemaSql } from "./tables.ts";

/** A node's database. */
export interface Member {
  readonly name: string;
  readonly planned: PlannedNode;
  readonly server: PostgresServer;
  readonly database: string;
}

/** The conflicts that a mesh has counted, by type. */
export type Conflicts = Readonly<Record<string, number>>;

/** A running mesh of either kind. */
export interface Mesh extends AsyncDisposable {
  readonly members: readonly Member[];
  /** What carries the data of one node, by place, to another. */
  link(from: number, to: number): LinkProxy;
  /** Ends a node's replication with SIGKILL. */
  kill(node: number): Promise<void>;
  /** Starts what was killed. */
  start(node: number): Promise<void>;
  /**
   * Waits until every node has applied what the others committed; `marks` are the last commits by place. Returns what
   * stands still, one sentence each.
   */
  settle(marks: readonly Mark[]): Promise<string[]>;
  /** Conflicts since the start, all nodes together. */
  conflicts(): Promise<Conflicts>;
  /** What each node's replication has printed, by name. */
  logs(): Promise<ReadonlyMap<string, string>>;
}

/** The last local transaction of a node. */
export interface Mark {
  readonly id: number;
  /** A position in the node's WAL before its commit record. */
  readonly lsn: string;
}

/** Makes the databases of a plan, each with the tables; dropped with the stack. */
export async function createMembers(
  stack: AsyncDisposableStack,
  pool: ServerPool,
  { seed, nodes }: Plan,
): Promise<Member[]> {
  return await Promise.all(nodes.map(async (planned, place) => {
    const { major, serverSkewMs: skewMs } = planned;
    const sameBefore = nodes.slice(0, place).filter((n) => n.major === major && n.serverSkewMs === skewMs);
    const server = await pool.get({ major, skewMs, copy: sameBefore.length });
    const database = `seed_${seed}`;
    await dropDatabase(server, database); // An earlier run may have been cut short.
    await server.createDatabase(database);
    stack.defer(() => dropDatabase(server, database));
    await server.sql(database, schemaSql());
    return { name: planned.name, planned, server, database };
  }));
}

const DROP_TIMEOUT_MS = 20_000;

/** Drops a database with its slots, and every origin of mmlite on the server: seeds run one after the other. */
async function dropDatabase(server: PostgresServer, database: string): Promise<void> {
  await server.start();
  await eventually(`database ${database} to be dropped`, async () => {
    await server.sql(
      "postgres",
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()",
      [database],
    );
    const slots = "pg_replication_slots WHERE database = $1";
    await server.sql("postgres", `SELECT pg_drop_replication_slot(slot_name) FROM ${slots}`, [database]);
    await server.sql("postgres", `DROP DATABASE IF EXISTS "${database}"`);
    await server.sql(
      "postgres",
      "SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin WHERE roname LIKE 'mmlite%'",
    );
    return true;
  }, { timeoutMs: DROP_TIMEOUT_MS, intervalMs: 20 });
}
