/**
 * The control API: one function from request to answer, with no socket in it; `server.ts` gives it sockets.
 */
import { createRoute, OpenAPIHono, z } from "@hono/zod-openapi";
import type { Context, MiddlewareHandler } from "hono";
import {
  type AccessRules,
  type ApiEnv,
  checkExposure,
  checkHost,
  checkToken,
  type Transport,
} from "./access.ts";
import { limitBody } from "./body.ts";
import { addConflictRoutes } from "./conflict_routes.ts";
import { addDashboard } from "./dashboard.ts";
import { addEventRoutes } from "./event_routes.ts";
import { addInviteRoutes } from "./invite_routes.ts";
import { addJobRoutes } from "./job_routes.ts";
import { addNodeRoutes, type NodeRouteOptions } from "./node_routes.ts";
import { addPeerRoutes } from "./peer_routes.ts";
import { addQuarantineRoutes } from "./quarantine_routes.ts";
import { json, REFUSALS } from "./route.ts";
import { addPatternRoutes } from "./pattern_routes.ts";
import { addTableRoutes } from "./table_routes.ts";
import { addTokenRoutes } from "./token_routes.ts";
import { refuse, refuseThrown, requestLine } from "./problem.ts";

/** What {@link createApi} needs. */
export interface ApiOptions extends AccessRules, NodeRouteOptions {}

/** Answers a request that came over a transport. Never rejects. */
export type Api = (request: Request, transport: Transport) => Promise<Response>;

/** The API of a node. Throws `config` for an address that other machines reach without a token. */
export function createApi(options: ApiOptions): Api {
  checkExposure(options);
  const app = createApp(options);
  return async (request, transport) => await app.fetch(request, { transport });
}

function createApp(options: ApiOptions): OpenAPIHono<ApiEnv> {
  const app = new OpenAPIHono<ApiEnv>();
  app.use(setCommonHeaders, ensureError);
  app.use(checkHost(options), checkToken(options), limitBody());
  addNodeRoutes(app, options);
  addPeerRoutes(app, options.control);
  addPatternRoutes(app, options.control);
  addTableRoutes(app, options.control);
  addConflictRoutes(app, options.control);
  addEventRoutes(app, options.control);
  addTokenRoutes(app, options.control);
  addInviteRoutes(app, options.control);
  addJobRoutes(app, options.control);
  addQuarantineRoutes(app, options.control);
  addDocument(app, options);
  addDashboard(app);
  app.notFound((c) => refuseUnknown(app, c));
  app.onError((thrown, c) => refuseThrown(thrown, c));
  return app;
}

const setCommonHeaders: MiddlewareHandler = async (c, next) => {
  await next();
  c.header("cache-control", "no-store");
  c.header("x-content-type-options", "nosniff");
};

/** Hono hands instances of `Error` to `onError` and lets everything else that is thrown pass through. */
const ensureError: MiddlewareHandler = async (_, next) => {
  try {
    await next();
  } catch (thrown) {
    throw thrown instanceof Error ? thrown : new Error("Thrown value is no error", { cause: thrown });
  }
};

const openApi = createRoute({
  method: "get",
  path: "/openapi.json",
  tags: ["node"],
  summary: "This document",
  responses: { 200: json(z.looseObject({ openapi: z.string() }), "OpenAPI 3.1"), ...REFUSALS },
});

function addDocument(app: OpenAPIHono<ApiEnv>, { version, token }: ApiOptions): void {
  app.openAPIRegistry.registerComponent("securitySchemes", "token", { type: "http", scheme: "bearer" });
  // Made when it is first asked for: it takes a tenth of the time of a start.
  let document: ReturnType<typeof app.getOpenAPI31Document> | undefined;
  app.openapi(openApi, (c) => {
    document ??= app.getOpenAPI31Document({
      openapi: "3.1.0",
      info: { title: "mmlite control API", version, license: { name: "PostgreSQL License" } },
      servers: [{ url: "/" }],
      security: token === undefined ? [] : [{ token: [] }],
    });
    return c.json({ ...document }, 200);
  });
}

/** 405 where the path exists for other methods, otherwise 404. */
function refuseUnknown(app: OpenAPIHono<ApiEnv>, c: Context): Response {
  const allowed = allowedMethods(app, c.req.path);
  if (allowed.length === 0) {
    return refuse(c, {
      kind: "not_found",
      detail: `Cannot answer ${requestLine(c)}: there is no such path`,
      hint: "GET /openapi.json lists every path",
    });
  }
  c.header("allow", allowed.join(", "));
  return refuse(c, {
    kind: "usage",
    status: 405,
    title: "Method not allowed",
    detail: `Cannot answer ${requestLine(c)}: the path takes ${allowed.join(", ")}`,
    hint: "GET /openapi.json lists every path with its methods",
  });
}

function allowedMethods(app: OpenAPIHono<ApiEnv>, path: string): string[] {
  const isHere = (pattern: string) => new RegExp(`^${pattern.replaceAll(/:[^/]+/g, "[^/]+")}$`).test(path);
  const methods = app.routes
    .filter((route) => route.method !== "ALL" && isHere(route.path))
    .flatMap(({ method }) => method === "GET" ? ["GET", "HEAD"] : [method]);
  return [...new Set(methods)];
}
