/**
 * The `mmlite run` line that starts a node again after `mmlite join`, ready for a POSIX shell.
 */
import type { Flags } from "../config/environment.ts";
import { maskPassword } from "../config/secret.ts";
import { quote } from "./curl.ts";

/** One line: the flags that were given, and what the join decided. A password in a URL is masked. */
export function formatRunLine(
  { flags, file }: { readonly flags: Flags; readonly file: string | undefined },
  { cluster, tables }: {
    /** Null where the configuration says it. */
    readonly cluster: string | null;
    /** Null where the flags say them, or the configuration does. */
    readonly tables: { readonly include: readonly string[]; readonly exclude: readonly string[] } | null;
  },
): string {
  const words = ["mmlite", "run", ...(file === undefined ? [] : ["-c", file])];
  const decided: Flags = {
    ...(tables === null ? {} : { tables: tables.include, exclude: tables.exclude }),
    ...(cluster === null ? {} : { cluster }),
  };
  for (const [flag, value] of Object.entries({ ...flags, ...decided })) words.push(...wordsOf(flag, value));
  return words.map((word) => quote(word)).join(" ");
}

function wordsOf(flag: string, value: Flags[string]): string[] {
  if (value === undefined || value === false) return [];
  if (value === true) return [`--${flag}`];
  if (typeof value !== "string") return value.flatMap((item) => [`--${flag}`, item]);
  return [`--${flag}`, flag === "postgres" ? maskPassword(value) : value];
}
