/**
 * `/v1/peers`: what this node replicates with.
 */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { MmliteError } from "../errors.ts";
import type { ApiEnv } from "./access.ts";
import type { NodeControl } from "./control.ts";
import { peerEtag, peerPrecondition } from "./etag.ts";
import { SkipInput } from "./quarantine_schemas.ts";
import { RemovalReport } from "./removal_schemas.ts";
import { DryRunQuery, isOn, json, knownKeys, NoQuery, REFUSALS, RemoveQuery } from "./route.ts";
import { PeerInput, PeerList, PeerName, PeerStatus } from "./schemas.ts";
import { refuseInvalid } from "./validation.ts";

const PeerPath = z.strictObject({ name: PeerName });
const TAGS = ["peers"];

const listPeers = createRoute({
  method: "get",
  path: "/v1/peers",
  tags: TAGS,
  summary: "List the peers",
  request: { query: NoQuery },
  responses: { 200: json(PeerList, "every peer, by name"), ...REFUSALS },
});

const getPeer = createRoute({
  method: "get",
  path: "/v1/peers/{name}",
  tags: TAGS,
  summary: "Show a peer",
  request: { params: PeerPath, query: NoQuery },
  responses: { 200: json(PeerStatus, "the peer; ETag names its settings"), ...REFUSALS },
});

const putPeer = createRoute({
  method: "put",
  path: "/v1/peers/{name}",
  tags: TAGS,
  summary: "Create or replace a peer",
  description: "Idempotent. Takes If-Match and If-None-Match. A dry run answers as the change would.",
  request: {
    params: PeerPath,
    query: DryRunQuery,
    body: { required: true, content: { "application/json": { schema: PeerInput } } },
  },
  responses: {
    200: json(PeerStatus, "replaced, or as it was"),
    201: json(PeerStatus, "created"),
    ...REFUSALS,
  },
});

const removePeer = createRoute({
  method: "delete",
  path: "/v1/peers/{name}",
  tags: TAGS,
  summary: "Remove a peer",
  description: "Delivers what is left first, then drops the slot; by force at once. Takes If-Match.",
  request: { params: PeerPath, query: RemoveQuery },
  responses: {
    200: json(RemovalReport, "of a forced removal, or a dry run: what is left undelivered"),
    202: json(PeerStatus, "goes once everything is delivered"),
    204: { description: "gone" },
    ...REFUSALS,
  },
});

const skipPeer = createRoute({
  method: "post",
  path: "/v1/peers/{name}/skip",
  tags: TAGS,
  summary: "Put the one transaction of a peer that cannot be applied here into quarantine",
  description: "Durable: done when the transaction comes again. Refused if none is blocked at that LSN.",
  request: {
    params: PeerPath,
    query: DryRunQuery,
    body: { required: true, content: { "application/json": { schema: SkipInput } } },
  },
  responses: { 202: json(PeerStatus, "accepted"), ...REFUSALS },
});

const renewPeer = createRoute({
  method: "post",
  path: "/v1/peers/{name}/renew",
  tags: TAGS,
  summary: "Begin anew with a peer, and note that a repair is due",
  description:
    "Gives up its slot and makes a new one, how far it is applied here, and who it was. What was not " +
    "delivered before never is. The peer has to do its part with this node.",
  request: {
    params: PeerPath,
    query: DryRunQuery.extend({
      only: z.enum(["sent", "received"]).optional().openapi({
        description: "sent: only the slot for it; received: only how far it is applied here",
      }),
    }),
  },
  responses: { 202: json(PeerStatus, "accepted"), ...REFUSALS },
});

/** Adds the routes to the app. */
export function addPeerRoutes(app: OpenAPIHono<ApiEnv>, control: NodeControl): void {
  app.openapi(listPeers, async (c) => {
    return c.json({ items: [...await control.listPeers()], next_cursor: null }, 200);
  }, refuseInvalid(knownKeys(listPeers)));

  app.openapi(getPeer, async (c) => {
    const peer = await control.getPeer(c.req.valid("param").name);
    return c.json(peer, 200, { etag: peerEtag(peer) });
  }, refuseInvalid(knownKeys(getPeer)));

  app.openapi(putPeer, async (c) => {
    const { name } = c.req.valid("param");
    if (c.req.raw.body === null) throw noBody(name);
    const { created, peer } = await control.putPeer(name, c.req.valid("json"), {
      dryRun: isOn(c.req.valid("query").dry_run),
      precondition: peerPrecondition(name, c.req.raw.headers),
    });
    const etag = peerEtag(peer);
    return created ? c.json(peer, 201, { etag, location: `/v1/peers/${name}` }) : c.json(peer, 200, { etag });
  }, refuseInvalid(knownKeys(putPeer)));

  app.openapi(removePeer, async (c) => {
    const { name } = c.req.valid("param");
    const outcome = await control.removePeer(name, {
      force: isOn(c.req.valid("query").force),
      dryRun: isOn(c.req.valid("query").dry_run),
      precondition: peerPrecondition(name, c.req.raw.headers),
    });
    if (typeof outcome === "object") return c.json(outcome, 200);
    const peers = outcome === "removed" ? [] : await control.listPeers();
    // A short drain may be over by now.
    const draining = peers.find((peer) => peer.name === name);
    return draining === undefined ? c.body(null, 204) : c.json(draining, 202);
  }, refuseInvalid(knownKeys(removePeer)));

  addPeerAction(app, {
    action: "pause",
    summary: "Stop the link to a peer until it is resumed, also across restarts",
    run: (name) => control.pausePeer(name),
    show: (name) => control.getPeer(name),
  });
  addPeerAction(app, {
    action: "resume",
    summary: "Let a paused link go on",
    run: (name) => control.resumePeer(name),
    show: (name) => control.getPeer(name),
  });
  addPeerAction(app, {
    action: "retry",
    summary: "Try a blocked or waiting link again at once, and ask the peer to do the same",
    run: (name) => control.retryPeer(name),
    show: (name) => control.getPeer(name),
  });
  addSkip(app, control);
  addRenew(app, control);
}

/** Adds the route that begins anew with a peer. */
function addRenew(app: OpenAPIHono<ApiEnv>, control: NodeControl): void {
  app.openapi(renewPeer, async (c) => {
    const { name } = c.req.valid("param");
    const { only, dry_run } = c.req.valid("query");
    return c.json(
      await (isOn(dry_run) ? control.getPeer(name) : control.renewPeer(name, only ?? "both")),
      202,
    );
  }, refuseInvalid(knownKeys(renewPeer)));
}

/** Adds the route that skips one transaction. */
function addSkip(app: OpenAPIHono<ApiEnv>, control: NodeControl): void {
  app.openapi(skipPeer, async (c) => {
    const { name } = c.req.valid("param");
    const dryRun = isOn(c.req.valid("query").dry_run);
    return c.json(await control.skipPeer(name, c.req.valid("json").lsn, { dryRun }), 202);
  }, refuseInvalid(knownKeys(skipPeer)));
}

/** No body must not mean what `{}` means: that takes a peer's address away. */
function noBody(name: string): MmliteError {
  return new MmliteError("invalid_input", `Cannot set peer "${name}": the request has no body`, {
    hint: "Send its URL, or {} for a peer that dials this node",
  });
}

interface PeerAction {
  readonly action: "pause" | "resume" | "retry";
  readonly summary: string;
  readonly run: (name: string) => Promise<PeerStatus>;
  /** What a dry run does instead. */
  readonly show: (name: string) => Promise<PeerStatus>;
}

function addPeerAction(app: OpenAPIHono<ApiEnv>, options: PeerAction): void {
  const route = createRoute({
    method: "post",
    path: `/v1/peers/{name}/${options.action}`,
    tags: TAGS,
    summary: options.summary,
    request: { params: PeerPath, query: DryRunQuery },
    responses: { 202: json(PeerStatus, "accepted"), ...REFUSALS },
  });
  app.openapi(route, async (c) => {
    const { name } = c.req.valid("param");
    const dryRun = isOn(c.req.valid("query").dry_run);
    return c.json(await (dryRun ? options.show(name) : options.run(name)), 202);
  }, refuseInvalid(knownKeys(route)));
}
