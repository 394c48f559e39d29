/**
 * What the schema complains about, in words for the person who wrote the configuration.
 */
import type { z } from "zod";
import { INNER_KEYS, SETTING_KEYS } from "./settings.ts";
import { nearest } from "./suggest.ts";

/** One complaint. */
export interface Issue {
  /** Where: map keys and list indexes, the outermost first. */
  readonly path: readonly PropertyKey[];
  /** The same as text, such as `peers.0.url`. */
  readonly key: string;
  /** What is wrong, to stand behind a colon. */
  readonly text: string;
  /** Whether the key itself is wrong, not its value. */
  readonly unknownKey: boolean;
  readonly hint?: string;
}

const TYPE_NAMES: Readonly<Record<string, string>> = {
  string: "text",
  number: "a number",
  boolean: "true or false",
  array: "a list",
  object: "a group of keys",
  null: "nothing",
};

/** Every complaint of a failed check, in the order in which the schema found them; at least one. */
export function describeIssues(error: z.ZodError): Issue[] {
  return error.issues.flatMap((issue) => describeIssue(issue));
}

function describeIssue(issue: z.core.$ZodIssue): Issue[] {
  if (issue.code === "unrecognized_keys") return issue.keys.map((key) => unknownKey(issue.path, key));
  if (issue.code === "invalid_key") return [wrongKey(issue)];
  // What is wrong inside of a group says more than that the group is not what may stand in its place.
  const inside = issue.code === "invalid_union"
    ? issue.errors.flat().filter(({ path }) => path.length > 0)
    : [];
  if (inside.length === 0) return [wrongValue(issue)];
  return inside.flatMap((one) => describeIssue({ ...one, path: [...issue.path, ...one.path] }));
}

function unknownKey(group: readonly PropertyKey[], key: string): Issue {
  const path = [...group, key];
  const known = keysUnder(group);
  const elsewhere = SETTING_KEYS.find((other) => other.endsWith(`.${key}`));
  const near = elsewhere ?? nearest(key, known);
  const hint = near === null ? `Known keys here: ${known.join(", ")}` : `Did you mean "${near}"?`;
  return { path, key: path.join("."), text: `unknown key "${path.join(".")}"`, unknownKey: true, hint };
}

/** A key of a map, such as a table's name. */
function wrongKey({ path, issues }: z.core.$ZodIssueInvalidKey): Issue {
  const name = JSON.stringify(String(path.at(-1)));
  return { path, key: path.join("."), text: `${name} is wrong, ${issues[0].message}`, unknownKey: true };
}

/** The keys that a group may hold. */
function keysUnder(group: readonly PropertyKey[]): string[] {
  const inside = [...SETTING_KEYS, ...INNER_KEYS].map((key) => key.split("."))
    .filter((key) => group.every((part, depth) => key[depth] === part || key[depth] === "*"));
  return [...new Set(inside.map((key) => key[group.length]))].filter((key) =>
    key !== undefined && key !== "*"
  );
}

function wrongValue(issue: z.core.$ZodIssue): Issue {
  const key = issue.path.join(".");
  return { path: issue.path, key, text: explain(issue), unknownKey: false };
}

function explain(issue: z.core.$ZodIssue): string {
  if (issue.code === "invalid_type") {
    const received = /received (\w+)$/.exec(issue.message)?.[1] ?? "something else";
    if (received === "undefined") return "missing";
    return `expected ${TYPE_NAMES[issue.expected] ?? issue.expected}, not ${
      TYPE_NAMES[received] ?? received
    }`;
  }
  if (issue.code === "invalid_value") {
    return `expected ${issue.values.join(", ").replace(/, (\S+)$/, " or $1")}`;
  }
  return issue.message;
}
