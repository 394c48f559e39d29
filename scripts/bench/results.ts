/**
 * From single runs to what is reported: medians, ratios pair by pair and their spread. Pure.
 */
import { median } from "../statistics.ts";
import type { CatchUp } from "./catch_up.ts";
import { mapParts, type ProcessorTime } from "./processor_time.ts";
import type { RivalName } from "./rival.ts";
import type { Steady } from "./steady.ts";

/** One rival's runs of one workload, middle values. */
export interface RivalResult {
  readonly median: number;
  readonly unit: string;
  readonly runs: readonly number[];
  /** Medians by process; those of mmlite are zero for the built-in subscription. */
  readonly processor_seconds: ProcessorTime;
  /** The most that one mmlite process took in any run; null for the built-in subscription. */
  readonly peak_memory_bytes: number | null;
  /** Lags only, milliseconds. */
  readonly p50?: number;
  readonly p99?: number;
  readonly p999?: number;
  /** Lags only: transactions in a second that were committed. */
  readonly achieved_rate?: number;
}

/** One workload's results; every ratio is mmlite over built-in, above 1 is better for mmlite. */
export interface WorkloadResult {
  readonly workload: string;
  /** The median of the ratios pair by pair, against the subscription over TCP. */
  readonly ratio: number;
  readonly spread: { readonly min: number; readonly max: number };
  /** The same against the subscription over the unix socket, where that ran. */
  readonly ratio_unix?: number;
  readonly equal: boolean;
  readonly builtin: RivalResult;
  readonly builtin_unix?: RivalResult;
  readonly mmlite: RivalResult;
}

/** A run by what the ratio compares: a rate, where more is better, or a lag, where less is. */
interface Measured {
  readonly rival: RivalName;
  readonly pair: number;
  readonly value: number;
  readonly processorTime: ProcessorTime;
  readonly peakMemory: number | null;
  readonly equal: boolean;
}

/** Sums up the runs of a backlog. */
export function summariseCatchUp(workload: string, runs: readonly CatchUp[]): WorkloadResult {
  const measured = runs.map((run): Measured => ({ ...run, value: run.rate }));
  return summarise(workload, measured, { unit: "changes/s", ratio: (mmlite, builtin) => mmlite / builtin });
}

/** Sums up the runs at one rate; the ratio is that of the 99th percentiles. */
export function summariseSteady(workload: string, runs: readonly Steady[]): WorkloadResult {
  const measured = runs.map((run): Measured => ({ ...run, value: run.p99 }));
  const result = summarise(workload, measured, {
    unit: "ms p99",
    ratio: (mmlite, builtin) => builtin / mmlite,
  });
  const details = (rival: RivalName) => {
    const own = runs.filter((run) => run.rival === rival);
    const middle = (pick: (run: Steady) => number) => median(own.map(pick));
    return {
      p50: middle((run) => run.p50),
      p99: middle((run) => run.p99),
      p999: middle((run) => run.p999),
      achieved_rate: middle((run) => run.achievedRate),
    };
  };
  return {
    ...result,
    builtin: { ...result.builtin, ...details("builtin") },
    mmlite: { ...result.mmlite, ...details("mmlite") },
  };
}

function summarise(
  workload: string,
  runs: readonly Measured[],
  { unit, ratio }: { unit: string; ratio: (mmlite: number, builtin: number) => number },
): WorkloadResult {
  const of = (rival: RivalName) => runs.filter((run) => run.rival === rival);
  const ratios = (rival: RivalName) =>
    of("mmlite").map((run) => ratio(run.value, of(rival).find(({ pair }) => pair === run.pair)!.value));
  const toTcp = ratios("builtin");
  const hasUnix = of("builtin_unix").length > 0;
  return {
    workload,
    ratio: median(toTcp),
    spread: { min: Math.min(...toTcp), max: Math.max(...toTcp) },
    ...(hasUnix ? { ratio_unix: median(ratios("builtin_unix")) } : {}),
    equal: runs.every((run) => run.equal),
    builtin: rivalResult(of("builtin"), unit),
    ...(hasUnix ? { builtin_unix: rivalResult(of("builtin_unix"), unit) } : {}),
    mmlite: rivalResult(of("mmlite"), unit),
  };
}

function rivalResult(runs: readonly Measured[], unit: string): RivalResult {
  const values = runs.map((run) => run.value);
  const times = runs.map((run) => run.processorTime);
  const peaks = runs.map((run) => run.peakMemory).filter((peak) => peak !== null);
  return {
    median: median(values),
    unit,
    runs: values,
    processor_seconds: mapParts(times[0], (part) => median(times.map((time) => time[part]!))),
    peak_memory_bytes: peaks.length === 0 ? null : Math.max(...peaks),
  };
}
