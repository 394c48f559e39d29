/**
 * `/v1/invites`: one-time tokens by which new nodes join through this one.
 */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { ApiEnv } from "./access.ts";
import type { NodeControl } from "./control.ts";
import { CreatedInvite, InviteId, InviteInput, InviteList } from "./invite_schemas.ts";
import { json, knownKeys, NoQuery, REFUSALS } from "./route.ts";
import { refuseInvalid } from "./validation.ts";

const TAGS = ["invites"];

const createInvite = createRoute({
  method: "post",
  path: "/v1/invites",
  tags: TAGS,
  summary: "Make a one-time token for a new node",
  description: "Needs TLS and the CA's key on this node. The token is in this answer and nowhere else.",
  request: {
    query: NoQuery,
    body: { required: true, content: { "application/json": { schema: InviteInput } } },
  },
  responses: { 201: json(CreatedInvite, "created"), ...REFUSALS },
});

const listInvites = createRoute({
  method: "get",
  path: "/v1/invites",
  tags: TAGS,
  summary: "List the invites of this node",
  request: { query: NoQuery },
  responses: { 200: json(InviteList, "those of the last days, the latest first"), ...REFUSALS },
});

const deleteInvite = createRoute({
  method: "delete",
  path: "/v1/invites/{id}",
  tags: TAGS,
  summary: "Withdraw an invite",
  description: "Nobody can join by it from then on. A certificate that was issued by it stays valid.",
  request: { params: z.strictObject({ id: InviteId }), query: NoQuery },
  responses: { 204: { description: "gone" }, ...REFUSALS },
});

/** Adds the routes to the app. */
export function addInviteRoutes(app: OpenAPIHono<ApiEnv>, control: NodeControl): void {
  app.openapi(createInvite, async (c) => {
    const invite = await control.createInvite(c.req.valid("json"));
    return c.json(invite, 201, { location: `/v1/invites/${invite.id}` });
  }, refuseInvalid(knownKeys(createInvite)));

  app.openapi(listInvites, async (c) => {
    return c.json({ items: [...await control.listInvites()], next_cursor: null }, 200);
  }, refuseInvalid(knownKeys(listInvites)));

  app.openapi(deleteInvite, async (c) => {
    await control.deleteInvite(c.req.valid("param").id);
    return c.body(null, 204);
  }, refuseInvalid(knownKeys(deleteInvite)));
}
