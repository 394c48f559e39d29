/**
 * Certificates out of PEM files: read them, say what is in them, and whether one vouches for another.
 */
import { X509Certificate } from "node:crypto";
import { extensionOf, readElements, readFirst } from "./der.ts";
import { clusterOf, formatClusterUri, formatPeerUri, peerNameOf } from "./identity.ts";
import { formatHostName, hostNames } from "./subject_names.ts";

/** What is worth knowing of a certificate. */
export interface CertificateFacts {
  /** The URI of the node, or of the cluster for an authority; null where the certificate has none. */
  readonly identity: string | null;
  readonly authority: boolean;
  /** Such as `dns:ams.example` and `ip:10.0.0.1`. */
  readonly hosts: readonly string[];
  readonly issuer: string;
  /** SHA-256 of the DER, hexadecimal pairs with colons. */
  readonly fingerprint: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
}

const PEM_BLOCK = /-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g;
/** 2.5.29.37, and the two purposes of RFC 5280 4.2.1.12, encoded. */
const EXTENDED_KEY_USAGE = "551d25";
const SERVER_AND_CLIENT = ["2b06010505070301", "2b06010505070302"];
/** A chain is not followed further than this: a longer one is an error of whoever made it. */
export const MAX_CHAIN_LENGTH = 8;
/** As long before a certificate expires, days, people are told. */
export const EXPIRY_WARNING_DAYS = 30;
/** A day, milliseconds. */
export const DAY_MS = 24 * 60 * 60_000;

/** Every certificate of a PEM text in its order; text around them is skipped. Throws what the parser throws. */
export function readCertificates(pem: string): X509Certificate[] {
  return [...pem.matchAll(PEM_BLOCK)].map(([block]) => new X509Certificate(block));
}

/** What a certificate says. */
export function certificateFacts(certificate: X509Certificate): CertificateFacts {
  return {
    identity: identityOf(certificate),
    authority: certificate.ca,
    hosts: hostNames(certificate).map(formatHostName),
    issuer: certificate.issuer,
    fingerprint: certificate.fingerprint256,
    notBefore: new Date(certificate.validFrom),
    notAfter: new Date(certificate.validTo),
  };
}

/** The authority that vouches for a chain (the node's own certificate first); null where none does. */
export function findAuthority(
  chain: readonly X509Certificate[],
  authorities: readonly X509Certificate[],
): X509Certificate | null {
  let current = chain[0];
  for (let length = 0; length < MAX_CHAIN_LENGTH; length++) {
    // The longest-lived one: an authority that was renewed with its old key vouches under both certificates.
    const found = authorities.filter((authority) => isIssuedBy(current, authority)).sort(byExpiry).at(-1);
    if (found !== undefined) return found;
    const next = chain.find((other) => other !== current && isIssuedBy(current, other));
    if (next === undefined) return null;
    current = next;
  }
  return null;
}

/** Whether a chain, the node's own certificate first, still stands under one of the authorities (PEM). */
export function isTrusted(chain: readonly X509Certificate[], authorities: readonly string[]): boolean {
  return chain.length > 0 && findAuthority(chain, authorities.flatMap(readCertificates)) !== null;
}

/** Whether a certificate may be used by both ends of a connection; one that restricts nothing may. */
export function servesBothEnds(certificate: X509Certificate): boolean {
  try {
    const extension = extensionOf(certificate, EXTENDED_KEY_USAGE);
    if (extension === null) return true;
    const purposes = readElements(readFirst(extension).contents).map(({ contents }) =>
      contents.toString("hex")
    );
    return SERVER_AND_CLIENT.every((purpose) => purposes.includes(purpose));
  } catch (error) {
    if (error instanceof RangeError) return false;
    throw error;
  }
}

function identityOf(certificate: X509Certificate): string | null {
  const name = peerNameOf(certificate);
  if (name !== null) return formatPeerUri(name);
  const cluster = clusterOf(certificate);
  return cluster === null ? null : formatClusterUri(cluster);
}

function isIssuedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  try {
    return issuer.ca && certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
  } catch {
    // A chain comes from a stranger: its certificates may have keys of a kind that the runtime cannot read.
    return false;
  }
}

function byExpiry(one: X509Certificate, other: X509Certificate): number {
  return Date.parse(one.validTo) - Date.parse(other.validTo);
}
