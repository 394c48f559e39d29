/**
 * Processor time of the processes that take part in a run, from /proc, so Linux only.
 */
import { childrenOf } from "../../tests/support/processes.ts";
import type { Bed } from "./bed.ts";

/** `sysconf(_SC_CLK_TCK)` of Linux: clock ticks of /proc/<pid>/stat in a second. */
const TICKS_PER_SECOND = 100;

/** Seconds by who used them. */
export interface ProcessorTime {
  /** The sending server, all of its processes: the walsender decodes. */
  readonly publisher: number;
  /** The receiving server: the worker or session that applies, and those that write the WAL and flush it. */
  readonly subscriber: number;
  /** The program beside each; 0 where there is none. */
  readonly sender: number;
  readonly receiver: number;
}

/** Time of both servers. */
export async function serverTimes(
  { publisher, subscriber }: Bed,
): Promise<Pick<ProcessorTime, "publisher" | "subscriber">> {
  return { publisher: await treeSeconds(publisher.pid!), subscriber: await treeSeconds(subscriber.pid!) };
}

/** What was used between two looks. */
export function timeBetween(before: ProcessorTime, after: ProcessorTime): ProcessorTime {
  return {
    publisher: after.publisher - before.publisher,
    subscriber: after.subscriber - before.subscriber,
    sender: after.sender - before.sender,
    receiver: after.receiver - before.receiver,
  };
}

/** Time of a postmaster and its children, those included that have ended. */
async function treeSeconds(pid: number): Promise<number> {
  const times = await Promise.all([pid, ...await childrenOf(pid)].map(ownAndEndedSeconds));
  return times.reduce((sum, time) => sum + time, 0);
}

/** utime, stime, cutime and cstime; 0 of a process that has ended, which is its parent's time by then. */
async function ownAndEndedSeconds(pid: number): Promise<number> {
  const stat = await Deno.readTextFile(`/proc/${pid}/stat`).catch(() => "");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ").slice(11, 15).map(Number);
  return fields.reduce((sum, ticks) => sum + ticks, 0) / TICKS_PER_SECOND;
}
