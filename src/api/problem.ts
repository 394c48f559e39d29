/**
 * Errors on their way out: everything the API refuses or fails at becomes `application/problem+json` (RFC 9457).
 */
import type { Context } from "hono";
import { HTTPException } from "hono/http-exception";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { ERROR_POLICY, type ErrorKind, MmliteError } from "../errors.ts";
import { log } from "../log.ts";
import type { Problem } from "./schemas.ts";

/** What a refusal says; title, status and hint are the kind's own where left out. */
export interface Refusal {
  readonly kind: ErrorKind;
  readonly detail: string;
  readonly title?: string;
  readonly status?: number;
  readonly hint?: string;
  readonly errors?: Problem["errors"];
  readonly behind?: Problem["behind"];
}

/** The problem document of a refusal. */
export function toProblem(refusal: Refusal): Problem {
  const policy = ERROR_POLICY[refusal.kind];
  return {
    type: `urn:mmlite:problem:${refusal.kind}`,
    kind: refusal.kind,
    title: refusal.title ?? policy.title,
    status: refusal.status ?? policy.httpStatus,
    detail: refusal.detail,
    hint: refusal.hint ?? policy.hint,
    ...(refusal.errors === undefined ? {} : { errors: refusal.errors }),
    ...(refusal.behind === undefined ? {} : { behind: refusal.behind }),
  };
}

/** The answer that carries a refusal. */
export function refuse(c: Context, refusal: Refusal): Response {
  const problem = toProblem(refusal);
  return c.json(problem, problem.status as ContentfulStatusCode, {
    "content-type": "application/problem+json",
  });
}

/** The answer to whatever a handler threw. */
export function refuseThrown(thrown: unknown, c: Context): Response {
  if (thrown instanceof MmliteError) {
    return refuse(c, { kind: thrown.kind, detail: thrown.message, hint: thrown.hint });
  }
  if (thrown instanceof HTTPException) return thrown.res ?? refuse(c, explainHttpException(thrown, c));
  logUnexpected(thrown, c);
  return refuse(c, { kind: "internal", detail: `Cannot answer ${requestLine(c)}: unexpected error` });
}

/** Method and path of a request, for messages. */
export function requestLine(c: Context): string {
  return `${c.req.method} ${c.req.path}`;
}

/** Hono and its validators throw these before a handler runs: a body that is not JSON, or of another type. */
function explainHttpException(thrown: HTTPException, c: Context): Refusal {
  const { status } = thrown;
  if (status === 415) {
    return {
      kind: "invalid_input",
      status,
      title: "Unsupported media type",
      detail: `Cannot use the body of ${requestLine(c)}: it is not application/json`,
      hint: "Send the header content-type: application/json",
    };
  }
  return {
    kind: "invalid_input",
    status,
    title: "Malformed body",
    detail: `Cannot use the body of ${requestLine(c)}: it is not JSON`,
    hint: "Send one JSON object",
  };
}

/** Logs where an unexpected error came from; its message stays out, since it may quote values. */
function logUnexpected(thrown: unknown, c: Context): void {
  const name = thrown instanceof Error ? thrown.name : typeof thrown;
  const stack = thrown instanceof Error ? thrown.stack ?? "" : "";
  const frames = stack.split("\n").filter((line) => line.startsWith("    at ")).map((line) => line.trim());
  log("api").error("Cannot answer {request}: unexpected {name}", { request: requestLine(c), name, frames });
}
