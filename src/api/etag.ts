/**
 * Entity tags of peers, and the conditions that clients put on a change (RFC 9110, section 13).
 *
 * The tag covers what PUT replaces, not the counters and positions that change all the time.
 */
import { createHash } from "node:crypto";
import { MmliteError } from "../errors.ts";
import type { Precondition } from "./control.ts";
import type { PeerStatus } from "./schemas.ts";

/** The strong entity tag of a peer's settings. */
export function peerEtag(peer: Pick<PeerStatus, "name" | "url">): string {
  const digest = createHash("sha256").update(JSON.stringify([peer.name, peer.url])).digest("base64url");
  return `"${digest.slice(0, 22)}"`;
}

/** The condition that `If-Match` and `If-None-Match` put on a change of the named peer, if any. */
export function peerPrecondition(name: string, headers: Headers): Precondition | undefined {
  const match = headers.get("if-match");
  const noneMatch = headers.get("if-none-match");
  if (match === null && noneMatch === null) return undefined;
  return (current) => {
    const met = (match === null || matches(match, current)) &&
      (noneMatch === null || !matches(noneMatch, current));
    if (!met) throw notMet(name, current);
  };
}

function matches(header: string, current: PeerStatus | null): boolean {
  if (current === null) return false;
  if (header.trim() === "*") return true;
  return header.split(",").some((tag) => tag.trim() === peerEtag(current));
}

function notMet(name: string, current: PeerStatus | null): MmliteError {
  const why = current === null ? "there is no such peer" : "it is not the version that the condition names";
  return new MmliteError("precondition_failed", `Cannot change peer "${name}": ${why}`);
}
