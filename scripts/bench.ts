/**
 * `deno task bench [--quick] [--only W]… [--json FILE] [--svg FILE] [--pairs N] [--from FILE]`: mmlite against the
 * subscription that is built into PostgreSQL, on the same data, in turn.
 *
 * The two mmlite processes speak TLS with certificates of one authority, and do not compress, as on one host; the
 * subscription's connection is cleartext. Both commit without waiting for the disk (`synchronous_commit = off`, the
 * default of the built-in worker), with fsync on and commit timestamps kept. `--quick` takes about a minute: fewer
 * rows, one pair, no unix socket. `--json` and `--svg` leave the results as a file and as a plot; `--from` runs
 * nothing and reports what an earlier run has left. The last line is one sentence; the exit code is 1 if a receiver
 * did not hold what was sent.
 */
import process from "node:process";
import { type Bed, openBed, openServer } from "./bench/bed.ts";
import { builtinRival } from "./bench/builtin.ts";
import { type CatchUp, catchUp } from "./bench/catch_up.ts";
import { catchUpMesh, NODE_NAMES } from "./bench/mesh.ts";
import { builtinMesh, openSidecarMesh } from "./bench/mesh_rivals.ts";
import { plotResults } from "./bench/plot.ts";
import { describeMachine, formatResults, type Machine, summarySentence } from "./bench/report.ts";
import { summariseCatchUp, summariseSteady, type WorkloadResult } from "./bench/results.ts";
import type { Rival } from "./bench/rival.ts";
import { startSidecars } from "./bench/sidecars.ts";
import { keepUp, RATES } from "./bench/steady.ts";
import { readOptions, refuseOptions, wholeNumber } from "./options.ts";
import { BACKLOGS, shareOfOltpN } from "./bench/workloads.ts";

/** The steady workload's name; its results have one for each rate. */
const STEADY = "mixed-small";

/** The name of the workload in which three nodes write at once. */
const THREE = "three";

/** How much is run. */
interface Extent {
  readonly pairs: number;
  /** Share of each backlog. */
  readonly size: number;
  /** How long each steady rate is held, seconds. */
  readonly steadySeconds: number;
  readonly unixSocket: boolean;
}

const WHOLE: Extent = { pairs: 5, size: 1, steadySeconds: 10, unixSocket: true };
const QUICK: Extent = { pairs: 1, size: 0.05, steadySeconds: 3, unixSocket: false };

async function startRivals(
  bed: Bed,
  { stack, unixSocket }: { stack: AsyncDisposableStack; unixSocket: boolean },
): Promise<Rival[]> {
  const sidecars = await startSidecars(bed, stack);
  const overTcp = builtinRival({ unixSocket: false });
  return unixSocket ? [overTcp, sidecars, builtinRival({ unixSocket })] : [overTcp, sidecars];
}

async function runBacklog(bed: Bed, name: string, extent: Extent): Promise<WorkloadResult[]> {
  const runs = await catchUp(bed, {
    backlog: BACKLOGS[name](extent.size),
    pairs: extent.pairs,
    startRivals: (stack) => startRivals(bed, { stack, unixSocket: extent.unixSocket }),
    onRun: (run: CatchUp) => progress(name, run.rival, `${run.rate.toFixed(0)} changes/s`),
  });
  return [summariseCatchUp(name, runs)];
}

/** The two servers of the bed, and one more. */
async function runThree(bed: Bed, extent: Extent): Promise<WorkloadResult[]> {
  await using stack = new AsyncDisposableStack();
  const overTcp = builtinMesh({ unixSocket: false });
  const sidecars = await openSidecarMesh(stack, NODE_NAMES);
  const runs = await catchUpMesh([bed.publisher, bed.subscriber, await openServer(stack)], {
    backlogOf: (share) => shareOfOltpN(extent.size, share),
    pairs: extent.pairs,
    rivals: extent.unixSocket ? [overTcp, sidecars, builtinMesh({ unixSocket: true })] : [overTcp, sidecars],
    onRun: ({ rival, rate }) => progress(THREE, rival, `${rate.toFixed(0)} changes/s`),
  });
  return [summariseCatchUp(THREE, runs)];
}

async function runSteady(bed: Bed, extent: Extent): Promise<WorkloadResult[]> {
  const runs = await keepUp(bed, {
    pairs: extent.pairs,
    seconds: extent.steadySeconds,
    startRivals: (stack) => startRivals(bed, { stack, unixSocket: false }),
    onRun: ({ rival, rate, p50, p99 }) =>
      progress(`${STEADY}-${rate}`, rival, `p50 ${p50.toFixed(2)} ms, p99 ${p99.toFixed(2)} ms`),
  });
  return RATES.map((rate) => summariseSteady(`${STEADY}-${rate}`, runs.filter((run) => run.rate === rate)));
}

function progress(workload: string, rival: string, measured: string): void {
  console.error(`${workload.padEnd(17)} ${rival.padEnd(13)} ${measured}`);
}

function runWorkload(bed: Bed, name: string, extent: Extent): Promise<WorkloadResult[]> {
  switch (name) {
    case THREE:
      return runThree(bed, extent);
    case STEADY:
      return runSteady(bed, extent);
    default:
      return runBacklog(bed, name, extent);
  }
}

async function runBench(wanted: readonly string[], extent: Extent): Promise<Report> {
  await using stack = new AsyncDisposableStack();
  const bed = await openBed(stack);
  const [{ version }] = await bed.publisher.sql(
    "postgres",
    "SELECT current_setting('server_version') AS version",
  );
  const machine = describeMachine(version);
  const results: WorkloadResult[] = [];
  for (const name of wanted) results.push(...await runWorkload(bed, name, extent));
  return { machine, workloads: results };
}

/** What `--json` writes and `--from` reads. */
interface Report {
  readonly machine: Machine;
  readonly workloads: readonly WorkloadResult[];
}

function printReport({ machine, workloads }: Report): void {
  const { cores, processor, os, postgres, runtime, load_before: load } = machine;
  console.log(
    `${cores} cores of ${processor}, ${os}, PostgreSQL ${postgres}, ${runtime}, load ${load.toFixed(1)}`,
  );
  console.log(formatResults(workloads).join("\n") + "\n");
  console.log(summarySentence(workloads));
}

async function main(): Promise<number> {
  const values = readOptions(import.meta.url, {
    quick: { type: "boolean", default: false },
    only: { type: "string", multiple: true },
    json: { type: "string" },
    svg: { type: "string" },
    pairs: { type: "string" },
    from: { type: "string" },
  });
  const names = [...Object.keys(BACKLOGS), THREE, STEADY];
  const wanted = values.only ?? names;
  const unknown = wanted.find((name) => !names.includes(name));
  if (unknown !== undefined) {
    refuseOptions(`Cannot run "${unknown}": the workloads are ${names.join(", ")}`);
  }
  const extent = values.quick ? QUICK : WHOLE;
  const pairs = values.pairs === undefined ? extent.pairs : wholeNumber(values.pairs, "--pairs");
  const report: Report = values.from === undefined
    ? await runBench(wanted, { ...extent, pairs })
    : JSON.parse(await Deno.readTextFile(values.from));
  if (values.json !== undefined) {
    await Deno.writeTextFile(values.json, JSON.stringify(report, null, 2) + "\n");
  }
  if (values.svg !== undefined) await Deno.writeTextFile(values.svg, plotResults(report.workloads));
  printReport(report);
  return report.workloads.every(({ equal }) => equal) ? 0 : 1;
}

process.exit(await main());
