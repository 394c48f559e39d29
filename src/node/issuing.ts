/**
 * A certificate for whoever has a token: the check of the token and of the name, and its use in the same turn.
 */
import { Buffer } from "node:buffer";
import { createHash, timingSafeEqual, X509Certificate } from "node:crypto";
import { MmliteError } from "../errors.ts";
import { type InviteRow, readInvite, readInvites, useInvite } from "../pg/invites.ts";
import { type PeerRow, readPeer } from "../pg/peers.ts";
import type { Query } from "../pg/query.ts";
import { CERTIFICATE_DAYS, signRequest } from "../pki/authority.ts";
import type { PeerName } from "../wire/channel.ts";
import type { Invites } from "./invites.ts";
import { hashSecret } from "./invite_token.ts";
import type { JoinRequestOf } from "./join_messages.ts";

interface IssuingOptions {
  readonly query: Query;
  readonly self: PeerName;
  readonly invites: Invites;
  /** Throws if no peer of that name could be added. */
  readonly checkName: (name: string) => void;
}

/** What a node gets for its token. */
export interface Issued {
  /** PEM. */
  readonly certificate: string;
  /** The CA that signed it, PEM. */
  readonly authority: string;
}

/**
 * Signs the request of a node that shows a token, and uses the invite up. Whoever used it before may ask again with
 * the same key, because the answer may have been lost. Throws `refused`, or `conflict` for a name that is taken; the
 * invite is used only if a certificate was signed.
 */
export async function issueByInvite(options: IssuingOptions, asked: JoinRequestOf<"issue">): Promise<Issued> {
  const { query, self, invites } = options;
  const invite = await readInvite(query, asked.id);
  const usable = requireUsable(invite, asked);
  options.checkName(asked.name);
  const authority = await invites.requireAuthority();
  const certificate = await signRequest(authority, asked.request, {
    name: { cluster: self.cluster, node: asked.name },
    hosts: [],
    days: CERTIFICATE_DAYS,
  });
  const key = keyHash(certificate);
  requireUnused(usable, { name: asked.name, key });
  if (usable.usedBy === null) {
    requireFree(await readPeer(query, asked.name), asked.name);
    requireNoRival(await readInvites(query), { name: asked.name, key });
  }
  const used = await useInvite(query, { id: usable.id, node: asked.name, key });
  if (!used) requireUnused(await readInvite(query, usable.id), { name: asked.name, key });
  return { certificate, authority: authority.certificate.toString() };
}

/** Compares before it says anything: without the secret nobody learns what became of an invite. */
function requireUsable(invite: InviteRow | undefined, { secret, name }: JoinRequestOf<"issue">): InviteRow {
  const given = Buffer.from(hashSecret(secret), "hex");
  if (invite === undefined || !timingSafeEqual(given, Buffer.from(invite.secretHash, "hex"))) {
    throw refused(
      "its token is of no invite here",
      "Make a new one with `mmlite invite`; it may be withdrawn",
    );
  }
  if (invite.remainingSeconds === 0) {
    throw refused(`the invite expired at ${invite.expiresAt}`, "Make a new one with `mmlite invite`");
  }
  if (invite.node !== null && invite.node !== name) {
    throw refused(
      `the invite is for node "${invite.node}", not for "${name}"`,
      `Join with --name ${invite.node}, or make an invite for "${name}"`,
    );
  }
  return invite;
}

function requireUnused(
  invite: InviteRow | undefined,
  { name, key }: { readonly name: string; readonly key: string },
): void {
  if (invite === undefined) throw refused("the invite was withdrawn", "Make a new one with `mmlite invite`");
  if (invite.usedBy === null || (invite.usedBy === name && invite.usedKey === key)) return;
  throw refused(
    `the invite was used by node "${invite.usedBy}" at ${invite.usedAt}`,
    "Make a new one with `mmlite invite`: each lets in one host",
  );
}

/** A peer that was never met is one that the operator announced, or a join that was cut short. */
function requireFree(row: PeerRow | undefined, name: string): void {
  if (row === undefined || row.intent === "removed" || row.incarnation === null) return;
  throw new MmliteError("conflict", `Cannot take in node "${name}": there is a member of that name`, {
    hint:
      `Choose another --name; or, if that member is gone for good, run \`mmlite peers remove ${name} --force\``,
  });
}

function requireNoRival(
  invites: readonly InviteRow[],
  { name, key }: { readonly name: string; readonly key: string },
): void {
  const rival = invites.find(({ usedBy, usedKey, remainingSeconds }) =>
    usedBy === name && usedKey !== key && remainingSeconds > 0
  );
  if (rival === undefined) return;
  throw new MmliteError(
    "conflict",
    `Cannot take in node "${name}": another host has a certificate for that name by invite ${rival.id}`,
    {
      hint:
        `Choose another --name; or, if that host is gone for good, run \`mmlite invite withdraw ${rival.id}\``,
    },
  );
}

function refused(why: string, hint: string): MmliteError {
  return new MmliteError("refused", `Cannot take in the node: ${why}`, { hint });
}

function keyHash(certificate: string): string {
  const { publicKey } = new X509Certificate(certificate);
  return createHash("sha256").update(publicKey.export({ type: "spki", format: "der" })).digest("hex");
}
