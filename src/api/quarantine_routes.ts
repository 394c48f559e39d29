/**
 * `/v1/quarantine`: transactions of other nodes that could not be applied here and were set aside.
 */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { ApiEnv } from "./access.ts";
import type { NodeControl } from "./control.ts";
import { QuarantineDetail, QuarantineEntry, QuarantineList } from "./quarantine_schemas.ts";
import { DryRunQuery, isOn, json, knownKeys, NoQuery, REFUSALS } from "./route.ts";
import { refuseInvalid } from "./validation.ts";

const TAGS = ["quarantine"];
/** Items of a page: unless told, and at most. */
const PAGE_ITEMS = 100;
const MAX_PAGE_ITEMS = 1_000;

const EntryPath = z.strictObject({ id: z.string().openapi({ example: "1" }) });
const PageQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(MAX_PAGE_ITEMS).default(PAGE_ITEMS),
  cursor: z.string().optional().openapi({ description: "`next_cursor` of the page before" }),
});

const list = createRoute({
  method: "get",
  path: "/v1/quarantine",
  tags: TAGS,
  summary: "List the transactions in quarantine, without their rows",
  request: { query: PageQuery },
  responses: { 200: json(QuarantineList, "by id"), ...REFUSALS },
});

const show = createRoute({
  method: "get",
  path: "/v1/quarantine/{id}",
  tags: TAGS,
  summary: "Show a transaction in quarantine with its rows",
  description: "A page holds `limit` rows, or fewer where they are long.",
  request: { params: EntryPath, query: PageQuery },
  responses: { 200: json(QuarantineDetail, "the transaction"), ...REFUSALS },
});

const retry = createRoute({
  method: "post",
  path: "/v1/quarantine/{id}/retry",
  tags: TAGS,
  summary: "Apply a transaction and take it out of quarantine",
  description: "Answers with what it fails of if it does; it stays in quarantine then.",
  request: { params: EntryPath, query: DryRunQuery },
  responses: { 200: json(QuarantineEntry, "applied"), ...REFUSALS },
});

const discard = createRoute({
  method: "delete",
  path: "/v1/quarantine/{id}",
  tags: TAGS,
  summary: "Forget a transaction in quarantine for good",
  request: { params: EntryPath, query: NoQuery },
  responses: { 204: { description: "gone" }, ...REFUSALS },
});

/** Adds the routes to the app. */
export function addQuarantineRoutes(app: OpenAPIHono<ApiEnv>, control: NodeControl): void {
  app.openapi(list, async (c) => {
    return c.json(await control.listQuarantine(c.req.valid("query")), 200);
  }, refuseInvalid(knownKeys(list)));

  app.openapi(show, async (c) => {
    return c.json(await control.showQuarantined(c.req.valid("param").id, c.req.valid("query")), 200);
  }, refuseInvalid(knownKeys(show)));

  app.openapi(retry, async (c) => {
    const dryRun = isOn(c.req.valid("query").dry_run);
    return c.json(await control.retryQuarantined(c.req.valid("param").id, { dryRun }), 200);
  }, refuseInvalid(knownKeys(retry)));

  app.openapi(discard, async (c) => {
    await control.discardQuarantined(c.req.valid("param").id);
    return c.body(null, 204);
  }, refuseInvalid(knownKeys(discard)));
}
