/**
 * How results are shown: tables for people, and the machine that they are of.
 */
import { cpus, loadavg, totalmem } from "node:os";
import { formatTable } from "../text_table.ts";
import type { Part } from "./processor_time.ts";
import type { RivalResult, WorkloadResult } from "./results.ts";

/** What a result depends on besides the programs. */
export interface Machine {
  readonly processor: string;
  readonly cores: number;
  readonly memory_bytes: number;
  readonly os: string;
  readonly postgres: string;
  readonly runtime: string;
  /** Load average of a minute when the bench began: what others did at the same time. */
  readonly load_before: number;
}

/** This machine, now. */
export function describeMachine(postgres: string): Machine {
  return {
    processor: cpus()[0]?.model ?? "unknown",
    cores: cpus().length,
    memory_bytes: totalmem(),
    os: `${Deno.build.os} ${Deno.osRelease()} ${Deno.build.arch}`,
    postgres,
    runtime: `Deno ${Deno.version.deno}`,
    load_before: loadavg()[0],
  };
}

/** The tables of backlogs and of lags, and that of processor time and memory, as lines. */
export function formatResults(results: readonly WorkloadResult[]): string[] {
  const lags = results.filter(isLag);
  const backlogs = results.filter((result) => !isLag(result));
  const tables = [
    ...(backlogs.length ? [formatTable([backlogHead(), ...backlogs.map(backlogRow)])] : []),
    ...(lags.length ? [formatTable([lagHead(), ...lags.map(lagRow)])] : []),
    ...costTables(results),
  ];
  return tables.flatMap((table) => ["", ...table]);
}

function isLag(result: WorkloadResult): boolean {
  return result.mmlite.p50 !== undefined;
}

function backlogHead(): string[] {
  return ["changes/s", "built-in TCP", "built-in unix", "mmlite", "ratio", "spread", "ratio to unix", "rows"];
}

function backlogRow(result: WorkloadResult): string[] {
  return [
    result.workload,
    result.builtin.median.toFixed(0),
    result.builtin_unix?.median.toFixed(0) ?? "-",
    result.mmlite.median.toFixed(0),
    ...ratioCells(result),
    result.ratio_unix?.toFixed(2) ?? "-",
    result.equal ? "equal" : "DIFFER",
  ];
}

function lagHead(): string[] {
  const percentiles = ["p50", "p99", "p99.9"];
  return [
    "commit to applied, ms",
    "tx/s built-in",
    "mmlite",
    ...percentiles.map((name) => `built-in ${name}`),
    ...percentiles.map((name) => `mmlite ${name}`),
    "ratio of p99",
    "spread",
    "rows",
  ];
}

function lagRow(result: WorkloadResult): string[] {
  const { builtin, mmlite, equal } = result;
  const cells = ({ p50, p99, p999 }: RivalResult) => [p50!, p99!, p999!].map((lag) => lag.toFixed(2));
  return [
    result.workload,
    builtin.achieved_rate!.toFixed(0),
    mmlite.achieved_rate!.toFixed(0),
    ...cells(builtin),
    ...cells(mmlite),
    ...ratioCells(result),
    equal ? "equal" : "DIFFER",
  ];
}

function ratioCells({ ratio, spread }: WorkloadResult): string[] {
  return [ratio.toFixed(2), `${spread.min.toFixed(2)}..${spread.max.toFixed(2)}`];
}

/** Whose processor time there is where transactions go one way, and where they go every way. */
const ONE_WAY: readonly (readonly [Part, string])[] = [
  ["publisher", "sending server"],
  ["subscriber", "receiving server"],
  ["sender", "mmlite out"],
  ["receiver", "mmlite in"],
];
const EVERY_WAY: typeof ONE_WAY = [["servers", "all servers"], ["sidecars", "all mmlite"]];

function costTables(results: readonly WorkloadResult[]): string[][] {
  return [ONE_WAY, EVERY_WAY].flatMap((parts) => {
    const rows = results.filter(({ mmlite }) => parts[0][0] in mmlite.processor_seconds)
      .flatMap((result) => costRows(result, parts));
    const head = ["processor seconds of", "by", ...parts.map(([, title]) => title), "sum", "MB"];
    return rows.length ? [formatTable([head, ...rows])] : [];
  });
}

function costRows(result: WorkloadResult, parts: typeof ONE_WAY): string[][] {
  const rivals: [string, RivalResult | undefined][] = [
    ["built-in TCP", result.builtin],
    ["built-in unix", result.builtin_unix],
    ["mmlite", result.mmlite],
  ];
  return rivals.filter((entry): entry is [string, RivalResult] => entry[1] !== undefined)
    .map(([name, rival]) => [result.workload, name, ...costCells(rival, parts)]);
}

function costCells({ processor_seconds, peak_memory_bytes }: RivalResult, parts: typeof ONE_WAY): string[] {
  const seconds = parts.map(([part]) => processor_seconds[part]!);
  const sum = seconds.reduce((total, one) => total + one, 0);
  const memory = peak_memory_bytes === null ? "-" : (peak_memory_bytes / 1e6).toFixed(0);
  return [...[...seconds, sum].map((one) => one.toFixed(2)), memory];
}

/** The closing sentence. */
export function summarySentence(results: readonly WorkloadResult[]): string {
  const differing = results.filter((result) => !result.equal).map(({ workload }) => workload);
  if (differing.length > 0) return `The databases differed in the end: ${differing.join(", ")}.`;
  const ahead = results.filter(({ ratio }) => ratio >= 1).length;
  const sorted = results.toSorted((a, b) => a.ratio - b.ratio);
  const [worst, best] = [sorted[0], sorted.at(-1)!].map(({ workload, ratio }) =>
    `${ratio.toFixed(2)} (${workload})`
  );
  return `mmlite was at least as good as the built-in subscription in ${ahead} of ${results.length} workloads, ` +
    `with ratios from ${worst} to ${best}, and all rows were equal.`;
}
