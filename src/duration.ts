/**
 * Durations as people write them: `90s`, `30m`, `1h`, `7d`.
 */

const UNIT_SECONDS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 };

/** What is expected of a duration, to stand behind "expected". */
export const DURATION_RULE = "a number and its unit, such as 90s, 30m, 1h or 7d";

/** What is expected of a short one. */
export const SHORT_DURATION_RULE = "a number and its unit, such as 500ms, 5s or 2m";

const SHORT_UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000 };

/** Milliseconds, 0 upwards, or null for what is no such duration. */
export function parseShortDuration(text: string): number | null {
  const match = /^(\d{1,9})(ms|s|m)$/.exec(text);
  return match === null ? null : Number(match[1]) * SHORT_UNIT_MS[match[2]];
}

/** Whole seconds, at least `least`, or null for what is no such duration. */
export function parseDuration(text: string, least = 1): number | null {
  const match = /^(\d{1,9})(s|m|h|d)$/.exec(text);
  const seconds = match === null ? -1 : Number(match[1]) * UNIT_SECONDS[match[2]];
  return seconds >= least ? seconds : null;
}
