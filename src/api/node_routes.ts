/**
 * The node as a whole: `/v1/status`, `/version`, the probes and the metrics.
 */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { ApiEnv } from "./access.ts";
import type { Health, NodeControl } from "./control.ts";
import { json, knownKeys, NoQuery, REFUSALS, text } from "./route.ts";
import { NodeStatus, VersionInfo } from "./schemas.ts";
import { refuseInvalid } from "./validation.ts";

const METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8";

const livez = createRoute({
  method: "get",
  path: "/livez",
  tags: ["probes"],
  summary: "Whether the process answers",
  responses: { 200: text("it does"), ...REFUSALS },
});

const readyz = createRoute({
  method: "get",
  path: "/readyz",
  tags: ["probes"],
  summary: "Whether the node can do its own part; a peer that is down does not count",
  request: {
    query: z.object({
      verbose: z.string().optional().openapi({ description: "list the checks; asks for the token" }),
    }),
  },
  responses: { 200: text("ready"), 503: text("not ready"), ...REFUSALS },
});

const metrics = createRoute({
  method: "get",
  path: "/metrics",
  tags: ["probes"],
  summary: "Metrics in Prometheus's text format",
  responses: { 200: text("the metrics"), ...REFUSALS },
});

const version = createRoute({
  method: "get",
  path: "/version",
  tags: ["node"],
  summary: "The version of mmlite",
  responses: { 200: json(VersionInfo, "the version"), ...REFUSALS },
});

const status = createRoute({
  method: "get",
  path: "/v1/status",
  tags: ["node"],
  summary: "The whole node on one page",
  request: { query: NoQuery },
  responses: { 200: json(NodeStatus, "the status"), ...REFUSALS },
});

/** What {@link addNodeRoutes} needs. */
export interface NodeRouteOptions {
  readonly control: NodeControl;
  /** The version of the program. */
  readonly version: string;
}

/** Adds the routes to the app. */
export function addNodeRoutes(app: OpenAPIHono<ApiEnv>, options: NodeRouteOptions): void {
  const { control } = options;

  app.openapi(livez, (c) => c.text("ok\n", 200));

  app.openapi(readyz, async (c) => {
    const health = await control.health();
    const verbose = c.req.valid("query").verbose !== undefined;
    return c.text(formatHealth(health, { verbose }), health.ready ? 200 : 503);
  });

  app.openapi(metrics, async (c) => {
    return c.text(await control.metrics(), 200, { "content-type": METRICS_CONTENT_TYPE });
  });

  app.openapi(version, (c) => c.json({ name: "mmlite" as const, version: options.version }, 200));

  app.openapi(status, async (c) => {
    return c.json(await control.status(), 200);
  }, refuseInvalid(knownKeys(status)));
}

/** `ready`, or with `verbose` one line per check before it. */
function formatHealth({ ready, checks }: Health, { verbose }: { verbose: boolean }): string {
  const lines = verbose ? checks.map(formatCheck) : [];
  return [...lines, ready ? "ready" : "not ready", ""].join("\n");
}

function formatCheck({ name, ok, message }: Health["checks"][number]): string {
  return `[${ok ? "+" : "-"}] ${name}${message === "" ? "" : `: ${message}`}`;
}
