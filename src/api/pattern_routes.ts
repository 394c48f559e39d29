/**
 * `/v1/tables/patterns`: which tables are replicated.
 */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { ApiEnv } from "./access.ts";
import type { NodeControl } from "./control.ts";
import { PatternChange, PatternInput, TablePatternList } from "./pattern_schemas.ts";
import { DryRunQuery, isOn, json, knownKeys, NoQuery, REFUSALS } from "./route.ts";
import { refuseInvalid } from "./validation.ts";

const TAGS = ["tables"];
/** Longest pattern taken: two names of PostgreSQL, every character of them quoted and doubled. */
const MAX_PATTERN_LENGTH = 1_024;

const PatternPath = z.strictObject({
  pattern: z.string().max(MAX_PATTERN_LENGTH).openapi({
    description:
      "SCHEMA.TABLE with the wildcards * and ?; names that hold a dot or one of these in double quotes",
    example: "public.*",
  }),
});

const listPatterns = createRoute({
  method: "get",
  path: "/v1/tables/patterns",
  tags: TAGS,
  summary: "List the patterns that say which tables are replicated",
  request: { query: NoQuery },
  responses: { 200: json(TablePatternList, "every pattern, by its text"), ...REFUSALS },
});

const putPattern = createRoute({
  method: "put",
  path: "/v1/tables/patterns/{pattern}",
  tags: TAGS,
  summary: "Replicate tables that match a pattern, or leave them out",
  description:
    "Durable, and wins over the file. Idempotent. Of tables that it publishes, rows that are there already " +
    "are not sent; a table that is created later is published with all its rows.",
  request: {
    params: PatternPath,
    query: DryRunQuery,
    body: { required: true, content: { "application/json": { schema: PatternInput } } },
  },
  responses: {
    200: json(PatternChange, "it was there already"),
    201: json(PatternChange, "it is new"),
    ...REFUSALS,
  },
});

const removePattern = createRoute({
  method: "delete",
  path: "/v1/tables/patterns/{pattern}",
  tags: TAGS,
  summary: "Take a pattern away, one of the file too",
  description:
    "Tables that no other pattern matches are not published any more; what peers send of them is applied.",
  request: { params: PatternPath, query: DryRunQuery },
  responses: { 200: json(PatternChange, "what that does"), ...REFUSALS },
});

/** Adds the routes to the app; before those of single tables, which have a dot in their name. */
export function addPatternRoutes(app: OpenAPIHono<ApiEnv>, control: NodeControl): void {
  app.openapi(listPatterns, (c) => {
    return c.json({ items: [...control.listPatterns()], next_cursor: null }, 200);
  }, refuseInvalid(knownKeys(listPatterns)));

  app.openapi(putPattern, async (c) => {
    const { kind = "include" } = c.req.valid("json");
    const dryRun = isOn(c.req.valid("query").dry_run);
    const { created, change } = await control.putPattern(c.req.valid("param").pattern, kind, { dryRun });
    return c.json(change, created && !dryRun ? 201 : 200);
  }, refuseInvalid(knownKeys(putPattern)));

  app.openapi(removePattern, async (c) => {
    const dryRun = isOn(c.req.valid("query").dry_run);
    return c.json(await control.removePattern(c.req.valid("param").pattern, { dryRun }), 200);
  }, refuseInvalid(knownKeys(removePattern)));
}
