/**
 * What a published table costs: how long a node takes to start, how long one change in each table takes to arrive,
 * and what both nodes and their servers' processes keep in memory for it.
 */
import { connectAll, type Mmlite, startMmlite } from "../../tests/support/mmlite.ts";
import { eventually } from "../../tests/support/poll.ts";
import {
  type Bed,
  createDatabases,
  createTarget,
  dropDatabases,
  dropSlots,
  dropTarget,
  type Run,
  sourceOf,
  targetOf,
} from "../bench/bed.ts";
import { writeBacklog } from "../bench/catch_up.ts";
import { arrivalOf, type Database, marked } from "../bench/marks.ts";
import { treeSeconds } from "../bench/processor_time.ts";
import { request, SENDER } from "../bench/sidecars.ts";
import { cpuSeconds, MemoryWatch, ownMemory } from "../memory_watch.ts";

/** What one number of tables took. Seconds and bytes. */
export interface TableGrowth {
  readonly tables: number;
  /** From the sender's start until it is ready: the first, which makes its schema and publication, and a later one. */
  readonly firstStart: number;
  readonly laterStart: number;
  /** One transaction in each table: the first that a session carries of it, and the next. */
  readonly firstRound: number;
  readonly secondRound: number;
  /** The most resident memory of each mmlite. */
  readonly senderMemory: number;
  readonly receiverMemory: number;
  /** What the walsender and the session that applies hold of their own in the end. */
  readonly walsenderMemory: number;
  readonly applyMemory: number;
  /** Share of a core that both mmlite, and both servers, use when nothing happens. */
  readonly idleSidecars: number;
  readonly idleServers: number;
  readonly equal: boolean;
}

const RECEIVER = "receiver";
/** Time allowed for a node to start, milliseconds: making 10,000 tables a publication takes long. */
const READY_TIMEOUT_MS = 600_000;
/** A function for the sum of all keys: as one statement, 10,000 tables would take the planner minutes. */
const SUM_KEYS =
  `CREATE SCHEMA counting; CREATE FUNCTION counting.keys() RETURNS bigint LANGUAGE plpgsql AS $$
  DECLARE name text; part bigint; total bigint := 0;
  BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename LIKE 'item%' LOOP
      EXECUTE format('SELECT coalesce(sum(id), 0) FROM public.%I', name) INTO part;
      total := total + part;
    END LOOP;
    RETURN total;
  END $$`;

/** Measures each number of tables in turn, with a look at idle nodes of so many seconds. */
export async function growTables(
  bed: Bed,
  { counts, idleSeconds, onRun }: {
    counts: readonly number[];
    idleSeconds: number;
    onRun: (run: TableGrowth) => void;
  },
): Promise<TableGrowth[]> {
  const results: TableGrowth[] = [];
  for (const tables of counts) {
    const run: Run = { name: RECEIVER, bed };
    await createDatabases(bed, { schema: `${SUM_KEYS}; ${eachTable(tables, CREATE)}` });
    await createTarget(run);
    results.push(await measure(run, { tables, idleSeconds }));
    for (const place of [sourceOf(bed), targetOf(run)]) await dropSlots(place);
    await dropTarget(run);
    await dropDatabases(bed);
    onRun(results.at(-1)!);
  }
  return results;
}

const CREATE = "CREATE TABLE item%s (id int PRIMARY KEY, body text NOT NULL)";

/** A block that runs a statement with each table's number in the place of `%s`. */
function eachTable(tables: number, statement: string, after = ""): string {
  return `DO $$ BEGIN FOR i IN 1..${tables} LOOP EXECUTE format('${statement}', i); ${after} END LOOP; END $$`;
}

async function measure(
  run: Run,
  { tables, idleSeconds }: { tables: number; idleSeconds: number },
): Promise<TableGrowth> {
  await using stack = new AsyncDisposableStack();
  const [source, target] = [sourceOf(run.bed), targetOf(run)];
  const start = async (name: string, { server, database }: Database) =>
    stack.use(
      await startMmlite({ name, postgres: server.url(database), readyTimeoutMs: READY_TIMEOUT_MS }),
    );
  const [sender, firstStart] = await timed(() => start(SENDER, source));
  await sender.stop();
  const [, laterStart] = await timed(() => sender.start());
  const receiver = await start(RECEIVER, target);
  await connectAll([sender, receiver]);
  await eventually("the link to stream", async () => {
    const { json } = await sender.api("GET", `/v1/peers/${RECEIVER}`);
    return json.state === "streaming";
  }, { timeoutMs: READY_TIMEOUT_MS });
  const watches = [sender, receiver].map((node) => new MemoryWatch(() => node.pid));
  const [firstRound, secondRound] = await secondsOfRounds([1, 2], { run, sender, tables });
  for (const watch of watches) watch.stop();
  const idle = await idleShares(run.bed, { nodes: [sender, receiver], seconds: idleSeconds });
  const [senderMemory, receiverMemory] = watches.map(({ peak }) => peak);
  return {
    ...{ tables, firstStart, laterStart, firstRound, secondRound, senderMemory, receiverMemory },
    walsenderMemory: await memoryOf(source, WALSENDER),
    applyMemory: await memoryOf(target, APPLYING),
    ...idle,
    equal: await keysOf(source) === await keysOf(target),
  };
}

async function timed<T>(run: () => Promise<T>): Promise<[T, number]> {
  const began = performance.now();
  return [await run(), (performance.now() - began) / 1000];
}

/** From the first applied change to the last of each round; all is written while the link rests. */
async function secondsOfRounds(
  rounds: readonly number[],
  { run, sender, tables }: { run: Run; sender: Mmlite; tables: number },
): Promise<number[]> {
  await request(sender, "POST", `/v1/peers/${RECEIVER}/pause`);
  for (const round of rounds) {
    const insert = `INSERT INTO item%s VALUES (${round}, md5(random()::text))`;
    await writeBacklog(
      sourceOf(run.bed),
      { statements: [eachTable(tables, insert, "COMMIT;")] },
      marks(round),
    );
  }
  await request(sender, "POST", `/v1/peers/${RECEIVER}/resume`);
  const target = targetOf(run);
  await marked(target, marks(rounds.at(-1)!)[1]);
  return await Promise.all(rounds.map(async (round) => {
    const [began, ended] = await Promise.all(marks(round).map((id) => arrivalOf(target, id)));
    return ended - began;
  }));
}

/** Before and after a round, which are counted from 1. */
function marks(round: number): readonly [number, number] {
  return [2 * round - 1, 2 * round];
}

async function idleShares(
  { publisher, subscriber }: Bed,
  { nodes, seconds }: { nodes: readonly Mmlite[]; seconds: number },
): Promise<Pick<TableGrowth, "idleSidecars" | "idleServers">> {
  const used = () =>
    Promise.all([
      ...nodes.map(({ pid }) => cpuSeconds(pid!)),
      ...[publisher, subscriber].map(({ pid }) => treeSeconds(pid!)),
    ]);
  const before = await used();
  await new Promise((wake) => setTimeout(wake, seconds * 1000));
  const shares = (await used()).map((after, index) => (after - before[index]) / seconds);
  return { idleSidecars: shares[0] + shares[1], idleServers: shares[2] + shares[3] };
}

const WALSENDER = `SELECT active_pid AS pid FROM pg_replication_slots
  WHERE slot_name = 'mmlite_${RECEIVER}' AND database = current_database()`;
const APPLYING = `SELECT pid FROM pg_stat_activity
  WHERE datname = current_database() AND application_name = 'mmlite apply ${SENDER}'`;

async function memoryOf({ server, database }: Database, processSql: string): Promise<number> {
  const [{ pid }] = await server.sql(database, processSql);
  return ownMemory(pid);
}

async function keysOf({ server, database }: Database): Promise<string> {
  const [{ keys }] = await server.sql(database, "SELECT counting.keys() AS keys");
  return keys;
}
