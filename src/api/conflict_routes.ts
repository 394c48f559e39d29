/**
 * `/v1/conflicts`: what happened where changes of two nodes met.
 */
import { createRoute, type OpenAPIHono } from "@hono/zod-openapi";
import { DURATION_RULE, parseDuration } from "../duration.ts";
import { MmliteError } from "../errors.ts";
import type { ApiEnv } from "./access.ts";
import { ConflictList, ConflictPath, ConflictQuery, WholeConflict } from "./conflict_schemas.ts";
import type { NodeControl } from "./control.ts";
import { json, knownKeys, NoQuery, REFUSALS } from "./route.ts";
import { requireTableName } from "./table_path.ts";
import { refuseInvalid } from "./validation.ts";

const TAGS = ["conflicts"];

const listConflicts = createRoute({
  method: "get",
  path: "/v1/conflicts",
  tags: TAGS,
  summary: "List the conflicts, the newest first, without their rows",
  request: { query: ConflictQuery },
  responses: { 200: json(ConflictList, "a page of them"), ...REFUSALS },
});

const getConflict = createRoute({
  method: "get",
  path: "/v1/conflicts/{id}",
  tags: TAGS,
  summary: "Show a conflict with both rows",
  request: { params: ConflictPath, query: NoQuery },
  responses: { 200: json(WholeConflict, "the conflict"), ...REFUSALS },
});

/** Adds the routes to the app. */
export function addConflictRoutes(app: OpenAPIHono<ApiEnv>, control: NodeControl): void {
  app.openapi(listConflicts, async (c) => {
    const { since, table, cursor, ...filter } = c.req.valid("query");
    const page = await control.listConflicts({
      ...filter,
      since: since === undefined ? undefined : requireSince(since),
      table: table === undefined ? undefined : requireTableName(table),
      before: cursor,
    });
    return c.json(page, 200);
  }, refuseInvalid(knownKeys(listConflicts)));

  app.openapi(getConflict, async (c) => {
    return c.json(await control.getConflict(c.req.valid("param").id), 200);
  }, refuseInvalid(knownKeys(getConflict)));
}

/** RFC 3339: date, time and zone. */
const MOMENT = /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)$/i;

/** A moment, or one so long ago, as RFC 3339; throws `invalid_input`. */
function requireSince(text: string): string {
  const seconds = parseDuration(text);
  const moment = seconds !== null ? Date.now() - seconds * 1000 : MOMENT.test(text) ? Date.parse(text) : NaN;
  const date = new Date(moment);
  if (!Number.isNaN(date.getTime())) return date.toISOString();
  throw new MmliteError(
    "invalid_input",
    `Cannot find conflicts since ${JSON.stringify(text)}: it is no time`,
    {
      hint: `Send a time such as 2026-11-22T10:00:00Z, or ${DURATION_RULE}`,
    },
  );
}
