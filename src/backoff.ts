/**
 * Waiting: exponential backoff with full jitter, and a delay that a signal ends.
 *
 * Full jitter (a uniform draw from zero to the ceiling) keeps many sidecars from dialling a restarted peer in
 * the same instant.
 */
import { setTimeout as delayTimer } from "node:timers/promises";

/** First ceiling of a wait, milliseconds. */
export const BACKOFF_FIRST_MS = 200;
/** Highest ceiling of a wait, milliseconds: a healed link is dialled again within this time. */
export const BACKOFF_LIMIT_MS = 10_000;

/** The wait before attempt `attempt` (0 is the first retry), in milliseconds: uniform in 0 to the ceiling. */
export function backoffMs(attempt: number, random: () => number = Math.random): number {
  const ceiling = Math.min(BACKOFF_LIMIT_MS, BACKOFF_FIRST_MS * 2 ** Math.min(attempt, 16));
  return Math.round(random() * ceiling);
}

/** Waits `ms` milliseconds, or less if `signal` aborts: returns then too, never throws. */
export async function delay(ms: number, signal?: AbortSignal): Promise<void> {
  try {
    await delayTimer(ms, undefined, { signal });
  } catch {
    // Only an abort ends the timer early, and the caller looks at its signal.
  }
}
