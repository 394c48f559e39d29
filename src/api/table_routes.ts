/**
 * `/v1/tables`: what is replicated, and how conflicts of single tables are settled.
 */
import { createRoute, type OpenAPIHono } from "@hono/zod-openapi";
import type { ApiEnv } from "./access.ts";
import { TablePolicyInput } from "./conflict_schemas.ts";
import type { NodeControl } from "./control.ts";
import { tableEtag, tablePrecondition } from "./etag.ts";
import { DryRunQuery, isOn, json, knownKeys, NoQuery, REFUSALS } from "./route.ts";
import { TableList, TableStatus } from "./schemas.ts";
import { requireTableName, TablePath } from "./table_path.ts";
import { refuseInvalid } from "./validation.ts";

const TAGS = ["tables"];

const listTables = createRoute({
  method: "get",
  path: "/v1/tables",
  tags: TAGS,
  summary: "List the replicated tables",
  request: { query: NoQuery },
  responses: {
    200: json(TableList, "every table of the publication, by schema and name, and the patterns"),
    ...REFUSALS,
  },
});

const getTable = createRoute({
  method: "get",
  path: "/v1/tables/{table}",
  tags: TAGS,
  summary: "Show a table",
  request: { params: TablePath, query: NoQuery },
  responses: { 200: json(TableStatus, "the table; ETag names its policy"), ...REFUSALS },
});

const putTable = createRoute({
  method: "put",
  path: "/v1/tables/{table}",
  tags: TAGS,
  summary: "Set how conflicts of a table are settled",
  description: "Durable, and wins over the file. Idempotent. Takes If-Match. Sessions that apply begin anew.",
  request: {
    params: TablePath,
    query: DryRunQuery,
    body: { required: true, content: { "application/json": { schema: TablePolicyInput } } },
  },
  responses: { 200: json(TableStatus, "the table as it is then"), ...REFUSALS },
});

const resetTable = createRoute({
  method: "delete",
  path: "/v1/tables/{table}",
  tags: TAGS,
  summary: "Go back to the policy of the file, or to the default",
  description: "The table stays replicated. Takes If-Match.",
  request: { params: TablePath, query: DryRunQuery },
  responses: { 200: json(TableStatus, "the table as it is then"), ...REFUSALS },
});

const clearTable = createRoute({
  method: "post",
  path: "/v1/tables/{table}/clear",
  tags: TAGS,
  summary: "Clear the mark that nodes may hold different rows, once that is mended",
  request: { params: TablePath, query: DryRunQuery },
  responses: { 200: json(TableStatus, "the table, marked no more"), ...REFUSALS },
});

/** Adds the routes to the app. */
export function addTableRoutes(app: OpenAPIHono<ApiEnv>, control: NodeControl): void {
  app.openapi(listTables, async (c) => {
    const items = [...await control.listTables()];
    return c.json({ items, next_cursor: null, patterns: [...control.listPatterns()] }, 200);
  }, refuseInvalid(knownKeys(listTables)));

  app.openapi(getTable, async (c) => {
    const table = await control.getTable(requireTableName(c.req.valid("param").table));
    return c.json(table, 200, { etag: tableEtag(table) });
  }, refuseInvalid(knownKeys(getTable)));

  app.openapi(putTable, async (c) => {
    const { table } = c.req.valid("param");
    const changed = await control.setTablePolicy(requireTableName(table), c.req.valid("json"), {
      dryRun: isOn(c.req.valid("query").dry_run),
      precondition: tablePrecondition(table, c.req.raw.headers),
    });
    return c.json(changed, 200, { etag: tableEtag(changed) });
  }, refuseInvalid(knownKeys(putTable)));

  app.openapi(resetTable, async (c) => {
    const { table } = c.req.valid("param");
    const changed = await control.setTablePolicy(requireTableName(table), null, {
      dryRun: isOn(c.req.valid("query").dry_run),
      precondition: tablePrecondition(table, c.req.raw.headers),
    });
    return c.json(changed, 200, { etag: tableEtag(changed) });
  }, refuseInvalid(knownKeys(resetTable)));

  app.openapi(clearTable, async (c) => {
    const dryRun = isOn(c.req.valid("query").dry_run);
    return c.json(await control.clearTable(requireTableName(c.req.valid("param").table), { dryRun }), 200);
  }, refuseInvalid(knownKeys(clearTable)));
}
