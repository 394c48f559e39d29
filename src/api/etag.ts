/**
 * Entity tags of peers and tables, and the conditions that clients put on a change (RFC 9110, section 13).
 *
 * A tag covers what PUT replaces, not the counters and positions that change all the time.
 */
import { createHash } from "node:crypto";
import { MmliteError } from "../errors.ts";
import type { Precondition } from "./control.ts";
import type { PeerStatus, TableStatus } from "./schemas.ts";

/** The strong entity tag of a peer's settings. */
export function peerEtag(peer: Pick<PeerStatus, "name" | "url">): string {
  return etagOf([peer.name, peer.url]);
}

/** The strong entity tag of a table's policy. */
export function tableEtag({ schema, name, policy, types, policy_from }: TableStatus): string {
  return etagOf([schema, name, policy, Object.entries(types).sort(), policy_from]);
}

/** The condition that `If-Match` and `If-None-Match` put on a change of the named peer, if any. */
export function peerPrecondition(name: string, headers: Headers): Precondition<PeerStatus> | undefined {
  return precondition({ what: `peer "${name}"`, absent: "there is no such peer", etag: peerEtag }, headers);
}

/** The same for the policy of the named table. */
export function tablePrecondition(name: string, headers: Headers): Precondition<TableStatus> | undefined {
  return precondition({ what: `table ${name}`, absent: "there is no such table", etag: tableEtag }, headers);
}

interface Subject<Resource> {
  readonly what: string;
  /** Why a condition is not met where there is none. */
  readonly absent: string;
  readonly etag: (resource: Resource) => string;
}

function precondition<Resource>(
  { what, absent, etag }: Subject<Resource>,
  headers: Headers,
): Precondition<Resource> | undefined {
  const match = headers.get("if-match");
  const noneMatch = headers.get("if-none-match");
  if (match === null && noneMatch === null) return undefined;
  return (current) => {
    const tag = current === null ? null : etag(current);
    const met = (match === null || matches(match, tag)) && (noneMatch === null || !matches(noneMatch, tag));
    if (met) return;
    const why = current === null ? absent : "it is not the version that the condition names";
    throw new MmliteError("precondition_failed", `Cannot change ${what}: ${why}`);
  };
}

function matches(header: string, current: string | null): boolean {
  if (current === null) return false;
  return header.trim() === "*" || header.split(",").some((tag) => tag.trim() === current);
}

function etagOf(parts: readonly unknown[]): string {
  return `"${createHash("sha256").update(JSON.stringify(parts)).digest("base64url").slice(0, 22)}"`;
}
