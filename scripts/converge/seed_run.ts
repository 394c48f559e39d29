/**
 * One seed from its plan to its verdict.
 */
import { eventually } from "../../tests/support/poll.ts";
import {
  checkLogs,
  compareRows,
  countUnequal,
  type HeldRow,
  type NodeState,
  type Verdict,
} from "./compare.ts";
import { heal, injectFaults } from "./faults.ts";
import type { Conflicts, Mark, Member, Mesh } from "./member.ts";
import { type Committed, expectedState, rowKey } from "./model.ts";
import type { Plan } from "./plan.ts";
import { keyText, LOG_TABLE, readTableSql, TABLES, timeText, type VersionSource } from "./tables.ts";
import { type Attempt, runClient } from "./writer.ts";

/** Ids of the last transactions of nodes, above those of clients. */
const FIRST_MARK_ID = 1_000_000;
const FIRST_PRELUDE_MARK_ID = 2_000_000;

/** What a seed came to. */
export interface SeedOutcome {
  readonly plan: Plan;
  readonly attempts: readonly Attempt[];
  readonly committed: readonly Committed[];
  readonly conflicts: Conflicts;
  /** What had not been applied when the time was over, one sentence each. */
  readonly standing: readonly string[];
  readonly verdict: Verdict;
  /** Keys that a committed transaction has written. */
  readonly keys: number;
  /** Keys of which not all nodes hold the same row. */
  readonly unequal: number;
  /** Rows of `mmlite.tombstone` and `mmlite.truncation`, all nodes together. */
  readonly tombstones: number;
  /** Groups of transactions that were committed together, all nodes together, as far as they are still kept. */
  readonly groups: number;
  /** Time from the first transaction until everything was applied everywhere, milliseconds. */
  readonly tookMs: number;
}

/** Runs the workload of a plan on its mesh, and compares. */
export async function runSeed(mesh: Mesh, plan: Plan, { mmlite }: { mmlite: boolean }): Promise<SeedOutcome> {
  const started = performance.now();
  const prelude = await runPrelude(mesh, plan);
  const [written] = await Promise.all([runClients(mesh, plan), injectFaults(mesh, plan.faults)]);
  const attempts = [...prelude, ...written];
  heal(mesh);
  const standing = await mesh.settle(await writeMarks(mesh.members, FIRST_MARK_ID));
  const tookMs = performance.now() - started;
  const committed = (await Promise.all(mesh.members.map((member) => readCommitted(member, attempts)))).flat();
  const states: NodeState[] = await Promise.all(mesh.members.map((member) => readState(member, mmlite)));
  const violations = mmlite ? [...lostCommits(attempts, committed), ...checkLogs(committed, states)] : [];
  const differences = compareRows(expectedState(committed), states);
  return {
    ...{ plan, attempts, committed, standing, tookMs },
    conflicts: await mesh.conflicts(),
    // Only mmlite keeps versions.
    verdict: { differences: differences.filter(({ kind }) => mmlite || kind === "row"), violations },
    keys: countKeys(committed),
    unequal: countUnequal(states),
    tombstones: await countRows(mesh.members, ["mmlite.tombstone", "mmlite.truncation"]),
    groups: await countRows(mesh.members, ["mmlite.apply_group"]),
  };
}

async function runPrelude(mesh: Mesh, { prelude }: Plan): Promise<Attempt[]> {
  if (prelude === null) return [];
  const attempts = await runClient(mesh.members[0], 0, [prelude]);
  const standing = await mesh.settle(await writeMarks(mesh.members, FIRST_PRELUDE_MARK_ID));
  if (standing.length > 0) throw new Error(`Even the first rows did not arrive: ${standing.join("; ")}`);
  return attempts;
}

async function runClients(mesh: Mesh, { nodes }: Plan): Promise<Attempt[]> {
  const running = nodes.flatMap(({ clients }, place) =>
    clients.map((transactions, client) => runClient(mesh.members[place], client, transactions))
  );
  return (await Promise.all(running)).flat();
}

/** Commits one more transaction on every node. It arrives last, because transactions arrive in order. */
async function writeMarks(members: readonly Member[], firstId: number): Promise<Mark[]> {
  return await Promise.all(members.map(async ({ name, server, database }, place) => {
    const id = firstId + place;
    const insert = `INSERT INTO public.${LOG_TABLE} VALUES ($1, $2, NULL)
                      RETURNING pg_current_wal_insert_lsn()::text AS lsn`;
    return await eventually("the last transaction to be committed", async () => {
      const [{ lsn }] = await server.sql(database, insert, [id, name]);
      return { id, lsn };
    });
  }));
}

/** What a node has committed itself, with its commit times. */
async function readCommitted(
  { name, server, database }: Member,
  attempts: readonly Attempt[],
): Promise<Committed[]> {
  const rows = await server.sql(
    database,
    `SELECT id::int, ${timeText("pg_xact_commit_timestamp(xmin)")} AS timestamp
       FROM public.${LOG_TABLE} WHERE node = $1`,
    [name],
  );
  const byId = new Map(attempts.map((attempt) => [attempt.id, attempt]));
  const ended = (id: number) => byId.get(id)?.endedAt ?? Infinity;
  return rows.toSorted((one, other) => ended(one.id) - ended(other.id)).map(({ id, timestamp }, order) => ({
    ...{ id, timestamp, order },
    node: name,
    changes: byId.get(id)?.changes ?? [],
  }));
}

/** Transactions that their client was told are committed, and that are not. */
function lostCommits(attempts: readonly Attempt[], committed: readonly Committed[]): string[] {
  const ids = new Set(committed.map(({ id }) => id));
  const lost = attempts.filter(({ id, told }) => told && !ids.has(id));
  return lost.map(({ id, node }) => `${node} has lost its own transaction ${id}`);
}

async function readState({ name, server, database }: Member, mmlite: boolean): Promise<NodeState> {
  const has = async (name: string) => {
    const [{ found }] = await server.sql(database, "SELECT to_reg" + name + " IS NOT NULL AS found");
    return found as boolean;
  };
  const rowVersion = mmlite && await has("proc('mmlite.row_version')");
  const source: VersionSource = { major: server.major, mmlite, rowVersion };
  const rows = new Map<string, HeldRow>();
  for (const table of TABLES) {
    for (const { key, ...row } of await server.sql(database, readTableSql(table, source), [name])) {
      rows.set(rowKey(table.name, keyText(key)), row);
    }
  }
  const log = await server.sql(database, `SELECT id::int FROM public.${LOG_TABLE}`);
  const quarantine = mmlite && await has("class('mmlite.quarantine')");
  const quarantined = quarantine ? await count(server, database, "mmlite.quarantine") : 0;
  return { node: name, rows, log: log.map(({ id }) => id), quarantined };
}

function countKeys(committed: readonly Committed[]): number {
  const changes = committed.flatMap(({ changes }) => changes);
  return new Set(changes.flatMap((change) => change.kind === "put" ? [rowKey(change.table, change.key)] : []))
    .size;
}

/** Of the tables that are there. */
async function countRows(members: readonly Member[], tables: readonly string[]): Promise<number> {
  let sum = 0;
  for (const { server, database } of members) {
    for (const table of tables) {
      const [{ found }] = await server.sql(database, "SELECT to_regclass($1) IS NOT NULL AS found", [table]);
      if (found) sum += await count(server, database, table);
    }
  }
  return sum;
}

async function count(server: Member["server"], database: string, table: string): Promise<number> {
  const [{ rows }] = await server.sql(database, `SELECT count(*)::int AS rows FROM ${table}`);
  return rows;
}
