/**
 * SIGINT and SIGTERM: the first ends the work in order, the second ends the process; so does time.
 */
import process from "node:process";
import { setTimeout } from "node:timers";
import { log } from "../log.ts";

/** Exit code of a process that a signal ended: 128 and the signal's number. */
const EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const;
/**
 * Time allowed for an end in order, milliseconds: a server that hangs answers nobody. What is not said to it by then
 * is made good at the next start. Less than TimeoutStopSec in contrib/mmlite.service.
 */
const END_TIMEOUT_MS = 20_000;

/** Runs `work` with a signal that aborts at the first SIGINT or SIGTERM. */
export async function untilSignal<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const onSignal = (name: keyof typeof EXIT_CODES) => {
    if (controller.signal.aborted) process.exit(EXIT_CODES[name]);
    // Also when the work is over by then, and a connection still keeps the process.
    setTimeout(() => endAnyway(EXIT_CODES[name]), END_TIMEOUT_MS).unref();
    controller.abort();
  };
  process.on("SIGINT", onSignal).on("SIGTERM", onSignal);
  try {
    return await work(controller.signal);
  } finally {
    process.off("SIGINT", onSignal).off("SIGTERM", onSignal);
  }
}

function endAnyway(exitCode: number): never {
  log("node").warn("Ending without an answer of PostgreSQL, which was given {seconds} s", {
    seconds: END_TIMEOUT_MS / 1000,
  });
  process.exit(exitCode);
}
