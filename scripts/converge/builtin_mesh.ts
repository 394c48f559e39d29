/**
 * A full mesh of PostgreSQL's own subscriptions with `origin = none`, each through a proxy of its own: the comparison.
 */
import { eventually } from "../../tests/support/poll.ts";
import { startLinkProxy } from "./link_proxy.ts";
import { type Conflicts, createMembers, type Mark, type Member, type Mesh } from "./member.ts";
import type { Plan } from "./plan.ts";
import type { ServerPool } from "./server_pool.ts";
import { LOG_TABLE, PUBLICATION, TABLES } from "./tables.ts";

/** Time allowed for a subscription to apply everything or to be seen to fail again and again, milliseconds. */
const SETTLE_TIMEOUT_MS = 30_000;
/** A subscription that has failed this often since all is whole, and has not applied everything, stands still. */
const ERRORS_OF_ONE_THAT_STANDS = 2;

/** The types that `pg_stat_subscription_stats` of PostgreSQL 18 counts. */
const CONFLICT_TYPES = [
  "insert_exists",
  "update_origin_differs",
  "update_exists",
  "update_missing",
  "delete_origin_differs",
  "delete_missing",
  "multiple_unique_conflicts",
] as const;

/** Starts the mesh of a plan, whose servers must all be 18. */
export async function startBuiltinMesh(pool: ServerPool, plan: Plan): Promise<Mesh> {
  await using stack = new AsyncDisposableStack();
  const members = await createMembers(stack, pool, plan);
  const tables = [...TABLES.map(({ name }) => name), LOG_TABLE].map((name) => `public.${name}`).join(", ");
  for (const { server, database } of members) {
    await server.sql(database, `CREATE PUBLICATION ${PUBLICATION} FOR TABLE ${tables}`);
  }
  const links = await Promise.all(
    members.map((from) =>
      Promise.all(members.map(async (to) => {
        if (from === to) return undefined;
        return stack.use(await startLinkProxy(() => from.server.port));
      }))
    ),
  );
  for (const [place, to] of members.entries()) {
    stack.defer(() => dropSubscriptions(to));
    for (const [other, from] of members.entries()) {
      if (from !== to) await subscribe(from, to, links[other][place]!.port);
    }
  }
  const owned = stack.move();
  return {
    members,
    link: (from, to) => links[from][to]!,
    kill: () => Promise.resolve(),
    start: () => Promise.resolve(),
    settle: (marks) => settle(members, marks),
    conflicts: () => sumConflicts(members),
    logs: async () =>
      new Map(
        await Promise.all(members.map(async ({ name, server }) => [name, await server.log()] as const)),
      ),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

function subscriptionName(from: Member, to: Member): string {
  return `${from.name}_${to.name}`;
}

async function subscribe(from: Member, to: Member, port: number): Promise<void> {
  await to.server.sql(
    to.database,
    `CREATE SUBSCRIPTION ${subscriptionName(from, to)}
       CONNECTION 'host=127.0.0.1 port=${port} user=postgres dbname=${from.database}'
       PUBLICATION ${PUBLICATION} WITH (origin = none, copy_data = false)`,
  );
}

/** Their slots go with the databases that they are in. */
async function dropSubscriptions({ server, database }: Member): Promise<void> {
  await server.start();
  const names = await server.sql(
    database,
    "SELECT subname AS name FROM pg_subscription s JOIN pg_database d ON d.oid = subdbid WHERE datname = $1",
    [database],
  );
  for (const { name } of names) {
    for (const action of ["DISABLE", "SET (slot_name = NONE)"]) {
      await server.sql(database, `ALTER SUBSCRIPTION ${name} ${action}`);
    }
    await server.sql(database, `DROP SUBSCRIPTION ${name}`);
  }
}

async function settle(members: readonly Member[], marks: readonly Mark[]): Promise<string[]> {
  const pairs = members.flatMap((from, place) =>
    members.filter((to) => to !== from).map((to) => ({ from, to, mark: marks[place] }))
  );
  const standing = await Promise.all(pairs.map(async (pair) => {
    const before = await errorsOf(pair);
    try {
      return await eventually("a subscription to decide", () => look(pair, before), {
        timeoutMs: SETTLE_TIMEOUT_MS,
        intervalMs: 100,
      });
    } catch {
      return `${
        subscriptionName(pair.from, pair.to)
      } has not applied everything after ${SETTLE_TIMEOUT_MS} ms`;
    }
  }));
  return standing.filter((sentence) => sentence !== "applied");
}

interface Pair {
  readonly from: Member;
  readonly to: Member;
  readonly mark: Mark;
}

/** `applied`, or why it never will be, or undefined while that is open. */
async function look(pair: Pair, before: number): Promise<string | undefined> {
  const { from, to, mark } = pair;
  const rows = await to.server.sql(to.database, `SELECT FROM public.${LOG_TABLE} WHERE id = $1`, [mark.id]);
  if (rows.length > 0) return "applied";
  const errors = await errorsOf(pair);
  if (errors - before < ERRORS_OF_ONE_THAT_STANDS) return undefined;
  return `${subscriptionName(from, to)} stands still, with ${errors} errors`;
}

async function errorsOf({ from, to }: Pair): Promise<number> {
  const [row] = await to.server.sql(
    to.database,
    "SELECT apply_error_count AS errors FROM pg_stat_subscription_stats WHERE subname = $1",
    [subscriptionName(from, to)],
  );
  return Number(row?.errors ?? 0);
}

async function sumConflicts(members: readonly Member[]): Promise<Conflicts> {
  const sums: Record<string, number> = {};
  for (const { server, database } of members) {
    const columns = CONFLICT_TYPES.map((type) => `coalesce(sum(confl_${type}), 0)::int AS ${type}`).join(
      ", ",
    );
    const [row] = await server.sql(
      database,
      `SELECT ${columns} FROM pg_stat_subscription_stats
         JOIN pg_subscription s ON s.oid = subid JOIN pg_database d ON d.oid = s.subdbid WHERE datname = $1`,
      [database],
    );
    for (const type of CONFLICT_TYPES) if (row[type] > 0) sums[type] = (sums[type] ?? 0) + row[type];
  }
  return sums;
}
