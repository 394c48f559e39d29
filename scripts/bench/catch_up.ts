/**
 * How fast a rival catches up with a backlog. The clock starts with the first change that the receiver applies.
 */
import {
  type Bed,
  createDatabases,
  createTarget,
  digestSource,
  digestTarget,
  dropDatabases,
  dropTarget,
  type Run,
  sourceOf,
  targetOf,
} from "./bed.ts";
import { arrivalOf, type Database, mark, marked } from "./marks.ts";
import { type ProcessorTime, timeBetween } from "./processor_time.ts";
import type { Rival, RivalName } from "./rival.ts";
import type { Backlog } from "./workloads.ts";

/** What one run of one rival measured. */
export interface CatchUp {
  readonly rival: RivalName;
  /** The n-th run of each rival is one pair. */
  readonly pair: number;
  /** Row changes applied in a second. */
  readonly rate: number;
  readonly processorTime: ProcessorTime;
  readonly peakMemory: number | null;
  /** Whether the receiver then held what the source holds. */
  readonly equal: boolean;
}

/** Before the backlog, and after it. */
const MARK_IDS = [1, 2] as const;

/** Runs every rival `pairs` times in turn over the same backlog. */
export async function catchUp(
  bed: Bed,
  { backlog, pairs, startRivals, onRun }: {
    backlog: Backlog;
    pairs: number;
    startRivals: (stack: AsyncDisposableStack) => Promise<Rival[]>;
    onRun: (result: CatchUp) => void;
  },
): Promise<CatchUp[]> {
  await createDatabases(bed, backlog);
  const results: CatchUp[] = [];
  {
    await using stack = new AsyncDisposableStack();
    const rivals = await startRivals(stack);
    const runs = runsOf(rivals, bed, pairs);
    for (const { rival, run } of runs) await rival.prepare(run);
    await writeBacklog(sourceOf(bed), backlog, MARK_IDS);
    const digest = await digestSource(bed);
    for (const one of runs) {
      results.push(await runOnce(one, { backlog, digest }));
      onRun(results.at(-1)!);
    }
  }
  await dropDatabases(bed);
  return results;
}

interface PairedRun {
  readonly rival: Rival;
  readonly pair: number;
  readonly run: Run;
}

/** A B A B …, so that what else the machine does falls on all alike. */
export function runsOf(rivals: readonly Rival[], bed: Bed, pairs: number): PairedRun[] {
  return Array.from({ length: pairs }, (_, pair) => pair).flatMap((pair) =>
    rivals.map((rival) => ({ rival, pair, run: { name: `${rival.name}_${pair + 1}`, bed } }))
  );
}

/** Writes a backlog between two marks, the first and the last. */
export async function writeBacklog(
  { server, database }: Database,
  { statements }: Pick<Backlog, "statements">,
  [first, last]: readonly [number, number],
): Promise<void> {
  await mark({ server, database }, first);
  const client = await server.connect(database);
  try {
    await client.query("SET synchronous_commit = off"); // Only making it goes faster by that.
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
  await mark({ server, database }, last);
}

async function runOnce(
  { rival, pair, run }: PairedRun,
  { backlog: { changes, atReceiver }, digest }: { backlog: Backlog; digest: string },
): Promise<CatchUp> {
  await createTarget(run);
  const target = targetOf(run);
  const link = await rival.attach(run);
  try {
    if (atReceiver !== undefined) await target.server.sql(target.database, atReceiver);
    const before = await link.processorTime();
    await link.start();
    await marked(target, MARK_IDS[1]);
    const processorTime = timeBetween(before, await link.processorTime());
    const [began, ended] = await Promise.all(MARK_IDS.map((id) => arrivalOf(target, id)));
    return {
      rival: rival.name,
      pair,
      rate: changes / (ended - began),
      processorTime,
      peakMemory: link.peakMemory(),
      equal: await digestTarget(run) === digest,
    };
  } finally {
    await link.detach();
    await dropTarget(run);
  }
}
