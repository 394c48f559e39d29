/**
 * `/v1/token` and `/v1/wait`: reading on one node what was written or read on another.
 */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { parseShortDuration, SHORT_DURATION_RULE } from "../duration.ts";
import type { ApiEnv } from "./access.ts";
import type { NodeControl } from "./control.ts";
import { refuse } from "./problem.ts";
import { isOn, json, knownKeys, REFUSALS, Switch } from "./route.ts";
import { Problem } from "./schemas.ts";
import { PositionToken, WaitAnswer } from "./token_schemas.ts";
import { refuseInvalid } from "./validation.ts";

const TAGS = ["reading"];
/** How long a wait takes at most, unless told, and whatever is told, milliseconds. */
const WAIT_MS = 5_000;
export const MAX_WAIT_MS = 600_000;

const Timeout = z.string()
  .refine((text) => parseShortDuration(text) !== null, `Expected ${SHORT_DURATION_RULE}`)
  .refine((text) => (parseShortDuration(text) ?? 0) <= MAX_WAIT_MS, "Expected ten minutes at most")
  .default(`${WAIT_MS / 1000}s`);

const giveToken = createRoute({
  method: "get",
  path: "/v1/token",
  tags: TAGS,
  summary: "A token of all that can be read here now",
  description:
    "Whoever waits for it on another node reads there whatever was committed on this one before it was asked for, " +
    "and whatever had come from others; or something newer.",
  request: {
    query: z.strictObject({
      own: Switch.openapi({ description: "leave out what has come from other nodes" }),
    }),
  },
  responses: { 200: json(PositionToken, "the token"), ...REFUSALS },
});

const waitFor = createRoute({
  method: "get",
  path: "/v1/wait",
  tags: TAGS,
  summary: "Wait until all that a token stands for can be read here",
  request: {
    query: z.strictObject({
      token: z.string().openapi({ description: "of `/v1/token` of any node of the cluster" }),
      timeout: Timeout.openapi({
        description: `how long, ten minutes at most: ${SHORT_DURATION_RULE}; 0s looks and does not wait`,
        example: "5s",
      }),
    }),
  },
  responses: {
    200: json(WaitAnswer, "it can"),
    400: { description: "no token", content: { "application/problem+json": { schema: Problem } } },
    409: {
      description:
        "a token that can never be met here: of another cluster, of a node that is no peer of this one, " +
        "or of another life of a node's database",
      content: { "application/problem+json": { schema: Problem } },
    },
    504: {
      description: "not in time: `behind` says what is missing",
      content: { "application/problem+json": { schema: Problem } },
    },
    ...REFUSALS,
  },
});

/** Adds the routes to the app. */
export function addTokenRoutes(app: OpenAPIHono<ApiEnv>, control: NodeControl): void {
  app.openapi(giveToken, async (c) => {
    return c.json(await control.giveToken({ own: isOn(c.req.valid("query").own) }), 200);
  }, refuseInvalid(knownKeys(giveToken)));

  app.openapi(waitFor, async (c) => {
    const { token, timeout } = c.req.valid("query");
    const outcome = await control.waitFor(token, {
      timeoutMs: parseShortDuration(timeout)!,
      signal: c.req.raw.signal,
    });
    if (outcome.reached) {
      return c.json({ reached: true as const, waited_seconds: outcome.waitedSeconds }, 200);
    }
    const { kind, message: detail, hint } = outcome.error;
    return refuse(c, { kind, detail, hint, behind: outcome.behind }) as never;
  }, refuseInvalid(knownKeys(waitFor)));
}
