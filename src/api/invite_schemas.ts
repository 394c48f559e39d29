/**
 * The JSON of `/v1/invites`. A token is in one answer only, that to the request that made it.
 */
import { z } from "@hono/zod-openapi";
import { PeerName } from "./schemas.ts";

/** Longest life of an invite, seconds: 30 days. */
const MAX_INVITE_SECONDS = 30 * 24 * 3600;

const Time = z.iso.datetime().openapi({ example: "2026-11-22T10:00:00.123Z" });
const InviteUrl = z.string().max(2048).refine(
  isHttpsOrigin,
  "Expected https, host and port alone, such as https://ams.example:7432",
);

/** The id of an invite, as it stands in paths: no secret. */
export const InviteId = z.string().regex(/^[0-9a-f]{16}$/, "Expected 16 hexadecimal digits")
  .openapi({ example: "9f86d081884c7d65" });

/** What POST takes for an invite. */
export const InviteInput = z.strictObject({
  name: PeerName.nullish().openapi({ description: "the only name that may join by it; any if absent" }),
  ttl_seconds: z.int().min(1).max(MAX_INVITE_SECONDS).optional()
    .openapi({ description: "how long the token lasts; an hour if absent" }),
  urls: z.array(InviteUrl).max(16).optional().openapi({
    description: "where the new node reaches this one; the advertised URL if absent",
    example: ["https://ams.example:7432"],
  }),
}).openapi("InviteInput");
export type InviteInput = z.infer<typeof InviteInput>;

/** A one-time token without its secret. */
export const Invite = z.object({
  id: InviteId,
  name: PeerName.nullable().openapi({ description: "the only name that may join by it" }),
  state: z.enum(["open", "used", "expired"]),
  created_at: Time,
  expires_at: Time,
  used_at: Time.nullable(),
  used_by: PeerName.nullable(),
}).openapi("Invite");
export type Invite = z.infer<typeof Invite>;

/** An invite that was just made. */
export const CreatedInvite = z.object({
  id: InviteId,
  token: z.string().openapi({ description: "a secret: whoever has it can join once" }),
  name: PeerName.nullable(),
  expires_at: Time,
  urls: z.array(z.string()),
}).openapi("CreatedInvite");
export type CreatedInvite = z.infer<typeof CreatedInvite>;

/** A page of invites. */
export const InviteList = z.object({ items: z.array(Invite), next_cursor: z.string().nullable() })
  .openapi("InviteList");

function isHttpsOrigin(text: string): boolean {
  const url = URL.parse(text);
  return url !== null && url.protocol === "https:" && url.href === `${url.origin}/` && !/[?#]$/.test(text);
}
