/**
 * What a client sent that does not fit its schema: 422 with one entry per fault, and "did you mean" for keys
 * that do not exist.
 */
import type { z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { HTTPException } from "hono/http-exception";
import { nearest } from "../config/suggest.ts";
import { refuse, requestLine } from "./problem.ts";
import type { Problem } from "./schemas.ts";

/** Where a validated value came from, as Hono's validators name it. */
type Target = "json" | "query" | "param" | "header" | "form" | "cookie";

type Outcome =
  & { readonly target: string }
  & ({ success: true } | { success: false; error: z.core.$ZodError });

/** Names that each part of a route's request knows, for suggestions. */
export type KnownKeys = Partial<Record<Target, readonly string[]>>;

type Fault = NonNullable<Problem["errors"]>[number];

/** A validator's hook that ends the request with 422 when something does not fit. */
export function refuseInvalid(known: KnownKeys): (outcome: Outcome, c: Context) => undefined {
  return (outcome, c) => {
    if (outcome.success) return undefined;
    const target = outcome.target as Target;
    const { issues } = outcome.error;
    const suggestions = issues.flatMap((issue) => suggest(issue, known[target] ?? []));
    const res = refuse(c, {
      kind: "invalid_input",
      status: 422,
      detail: `Cannot use the ${TARGET_NAMES[target]} of ${requestLine(c)}: ${describeFirst(issues)}`,
      hint: suggestions.length > 0 ? suggestions.join("; ") : undefined,
      errors: issues.flatMap((issue) => toFaults(issue)),
    });
    // Thrown, because a hook may return only what its own route declares.
    throw new HTTPException(422, { res });
  };
}

const TARGET_NAMES: Record<Target, string> = {
  json: "body",
  query: "query",
  param: "path",
  header: "headers",
  form: "form",
  cookie: "cookies",
};

function toFaults(issue: z.core.$ZodIssue): Fault[] {
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => ({ pointer: toPointer([...issue.path, key]), message: "Unknown key" }));
  }
  return [{ pointer: toPointer(issue.path), message: issue.message }];
}

function describeFirst(issues: readonly z.core.$ZodIssue[]): string {
  const faults = issues.flatMap((issue) => toFaults(issue));
  const [{ pointer, message }] = faults;
  const rest = faults.length > 1 ? ` (and ${faults.length - 1} more)` : "";
  const fault = message.charAt(0).toLowerCase() + message.slice(1);
  return `${pointer === "" ? "" : `${pointer}: `}${fault}${rest}`;
}

function suggest(issue: z.core.$ZodIssue, known: readonly string[]): string[] {
  if (issue.code !== "unrecognized_keys") return [];
  return issue.keys.map((key) => {
    // Other forms of the body may know it.
    const guess = nearest(key, known.filter((one) => one !== key));
    if (guess !== null) return `Did you mean ${JSON.stringify(guess)} instead of ${JSON.stringify(key)}?`;
    return known.length === 0 ? `Leave ${JSON.stringify(key)} out` : `Known here: ${known.join(", ")}`;
  });
}

/** A JSON pointer (RFC 6901). */
function toPointer(path: readonly PropertyKey[]): string {
  return path.map((key) => `/${String(key).replaceAll("~", "~0").replaceAll("/", "~1")}`).join("");
}
