/**
 * Durations on the command line.
 */
import { DURATION_RULE, durationSeconds } from "../duration.ts";
import { MmliteError } from "../errors.ts";

/** Parses a duration to whole seconds, at least one; throws `usage` that names `option` for anything else. */
export function parseDuration(text: string, option: string): number {
  const seconds = durationSeconds(text);
  if (seconds) return seconds;
  throw new MmliteError("usage", `Cannot use ${option} ${JSON.stringify(text)}: it is no duration`, {
    hint: `Write ${DURATION_RULE}`,
  });
}
