/**
 * Processor time of the processes that take part in a run, from /proc, so Linux only.
 */
import { childrenOf } from "../../tests/support/processes.ts";
import type { Bed } from "./bed.ts";

/** `sysconf(_SC_CLK_TCK)` of Linux: clock ticks of /proc/<pid>/stat in a second. */
const TICKS_PER_SECOND = 100;

/**
 * Who uses processor time. Where transactions go one way: the sending server with all of its processes (the
 * walsender decodes); the receiving one (the worker or session that applies, and those that write the WAL and
 * flush it); the program beside each. Where they go every way: all servers together, and all programs.
 */
export type Part = "publisher" | "subscriber" | "sender" | "receiver" | "servers" | "sidecars";

/** Seconds by who used them, of those who are there. */
export type ProcessorTime = Readonly<Partial<Record<Part, number>>>;

/** Time of both servers. */
export async function serverTimes({ publisher, subscriber }: Bed): Promise<ProcessorTime> {
  return { publisher: await treeSeconds(publisher.pid!), subscriber: await treeSeconds(subscriber.pid!) };
}

/** What was used between two looks. */
export function timeBetween(before: ProcessorTime, after: ProcessorTime): ProcessorTime {
  return mapParts(after, (part, seconds) => seconds - before[part]!);
}

/** The same parts with other numbers. */
export function mapParts(
  time: ProcessorTime,
  change: (part: Part, seconds: number) => number,
): ProcessorTime {
  const entries = Object.entries(time) as [Part, number][];
  return Object.fromEntries(entries.map(([part, seconds]) => [part, change(part, seconds)]));
}

/** Time of a postmaster and its children, those included that have ended. */
export async function treeSeconds(pid: number): Promise<number> {
  const times = await Promise.all([pid, ...await childrenOf(pid)].map(ownAndEndedSeconds));
  return times.reduce((sum, time) => sum + time, 0);
}

/** utime, stime, cutime and cstime; 0 of a process that has ended, which is its parent's time by then. */
async function ownAndEndedSeconds(pid: number): Promise<number> {
  const stat = await Deno.readTextFile(`/proc/${pid}/stat`).catch(() => "");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ").slice(11, 15).map(Number);
  return fields.reduce((sum, ticks) => sum + ticks, 0) / TICKS_PER_SECOND;
}
