/**
 * Durations as people write them: `90s`, `30m`, `1h`, `7d`.
 */

const UNIT_SECONDS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 };

/** What a duration looks like, for errors. */
export const DURATION_RULE = "a number and its unit, such as 90s, 30m, 1h or 7d";

/** A duration in seconds, zero included; undefined for anything else. */
export function durationSeconds(text: string): number | undefined {
  const match = /^(\d{1,9})(s|m|h|d)$/.exec(text);
  return match === null ? undefined : Number(match[1]) * UNIT_SECONDS[match[2]];
}
