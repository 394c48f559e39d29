/**
 * Durations on the command line: `90s`, `30m`, `1h`, `7d`.
 */
import { MmliteError } from "../errors.ts";

const UNIT_SECONDS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 };

/** Parses a duration to whole seconds, at least one; throws `usage` that names `option` for anything else. */
export function parseDuration(text: string, option: string): number {
  const match = /^(\d{1,9})(s|m|h|d)$/.exec(text);
  const seconds = match === null ? 0 : Number(match[1]) * UNIT_SECONDS[match[2]];
  if (seconds > 0) return seconds;
  throw new MmliteError("usage", `Cannot use ${option} ${JSON.stringify(text)}: it is no duration`, {
    hint: "Write a number and its unit, such as 90s, 30m, 1h or 7d",
  });
}
