/**
 * Whom a certificate that was shown proves: a node of this cluster, or nobody, and why.
 *
 * TLS has checked the chain already; this looks again with the authorities as they are now, because a connection may
 * outlive them and the certificate.
 */
import type { X509Certificate } from "node:crypto";
import type { TLSSocket } from "node:tls";
import { isTrusted, MAX_CHAIN_LENGTH, servesBothEnds } from "../pki/certificate.ts";
import { peerNameOf } from "../pki/identity.ts";
import type { PeerName, ProvenPeer } from "../wire/channel.ts";
import type { Distrust } from "./turn_away.ts";

/** What a node shows others, and whom it trusts. All PEM. */
export interface Keys {
  readonly certificate: string;
  readonly key: string;
  /** One certificate each. */
  readonly authorities: readonly string[];
  /** Whom the certificate names: this node. */
  readonly name: PeerName;
}

/** The keys as they are now, and word of new ones. */
export interface KeySource {
  readonly current: Keys;
  /** Calls `listener` after each change, until the function that is returned is called. */
  onChange(listener: () => void): () => void;
}

/** What a connected socket's other end proved to be. */
export type Proof =
  | { readonly peer: ProvenPeer; readonly chain: readonly X509Certificate[] }
  | { readonly peer: null; readonly why: Distrust };

/** Looks at what the other end of a TLS connection has shown; TLS itself has made sure that it holds the key. */
export function proveOther(socket: TLSSocket, { authorities }: Pick<Keys, "authorities">): Proof {
  const chain = chainOf(socket);
  if (chain.length === 0) return { peer: null, why: "certificate_required" };
  const why = outOfDate(chain);
  if (why !== null) return { peer: null, why };
  if (!isTrusted(chain, authorities)) return { peer: null, why: "unknown_authority" };
  if (!servesBothEnds(chain[0])) return { peer: null, why: "wrong_usage" };
  // Whatever else the runtime holds against it.
  if (!socket.authorized) return { peer: null, why: "unknown_authority" };
  const peer = peerNameOf(chain[0]);
  if (peer === null) return { peer, why: "bad_certificate" };
  return { peer: { ...peer, expiresAt: new Date(chain[0].validTo) }, chain };
}

/** What runtimes call a certificate that they do not accept (`X509_V_ERR_*` of OpenSSL's verify(1)). */
const REFUSED_BY_TLS: ReadonlySet<string | undefined> = new Set([
  "CERT_HAS_EXPIRED",
  "CERT_NOT_YET_VALID",
  "CERT_REJECTED",
  "CERT_SIGNATURE_FAILURE",
  "CERT_UNTRUSTED",
  "DEPTH_ZERO_SELF_SIGNED_CERT",
  "INVALID_CA",
  "INVALID_PURPOSE",
  "SELF_SIGNED_CERT_IN_CHAIN",
  "UNABLE_TO_GET_ISSUER_CERT",
  "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
]);

/** Whether a TLS handshake failed for the other end's certificate; for what in it, runtimes do not agree. */
export function isDistrust({ code }: NodeJS.ErrnoException): boolean {
  return REFUSED_BY_TLS.has(code);
}

/** Whether a chain that was good once still is. */
export function isStillGood(chain: readonly X509Certificate[], authorities: readonly string[]): boolean {
  return outOfDate(chain) === null && isTrusted(chain, authorities);
}

/** The certificate that the other end showed, then its issuers as far as they are known. */
function chainOf(socket: TLSSocket): X509Certificate[] {
  const chain: X509Certificate[] = [];
  let next = socket.getPeerX509Certificate();
  while (next !== undefined && chain.length < MAX_CHAIN_LENGTH) {
    chain.push(next);
    next = next.issuerCertificate;
  }
  return chain;
}

function outOfDate(
  chain: readonly X509Certificate[],
): "certificate_expired" | "certificate_not_yet_valid" | null {
  const now = Date.now();
  if (chain.some(({ validTo }) => Date.parse(validTo) < now)) return "certificate_expired";
  return chain.some(({ validFrom }) => Date.parse(validFrom) > now) ? "certificate_not_yet_valid" : null;
}
