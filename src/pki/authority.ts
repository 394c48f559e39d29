/**
 * The cluster's own certificate authority: makes it, and issues certificates of nodes with it.
 *
 * Keys are ECDSA P-256, certificates name a node by its SAN URI, and an authority names its cluster the same way,
 * so that it issues for no other.
 */
import { Buffer } from "node:buffer";
import { createPrivateKey, createPublicKey, type KeyObject, randomBytes, X509Certificate } from "node:crypto";
import type * as X509 from "@peculiar/x509";
import { MmliteError } from "../errors.ts";
import { readProtectedFile } from "../protected_file.ts";
import type { PeerName } from "../wire/channel.ts";
import { DAY_MS } from "./certificate.ts";
import { readCertificateFile, unusableCertificate } from "./certificate_file.ts";
import { clusterOf, formatClusterUri, formatPeerUri } from "./identity.ts";
import type { HostName } from "./subject_names.ts";

/** A certificate that may issue others, and its key. */
export interface Authority {
  readonly certificate: X509Certificate;
  /** PEM (PKCS#8): the cluster's greatest secret. */
  readonly key: string;
  /** The cluster that it is for; null for an authority that something else than mmlite made. */
  readonly cluster: string | null;
}

/** A certificate and its key, both PEM. */
export interface KeyPair {
  readonly certificate: string;
  readonly key: string;
}

/** Whom a certificate is for, under which hosts it is reached, and how long it holds. */
export interface Subject {
  readonly name: PeerName;
  readonly hosts: readonly HostName[];
  /** Days from now; never longer than the authority itself. */
  readonly days: number;
}

/** Life of an authority, days: replacing one takes a change on every node, so it is rare. */
export const AUTHORITY_DAYS = 3650;
/** Life of a node's certificate, days: what public authorities once allowed at most, and enough to plan for. */
export const CERTIFICATE_DAYS = 825;

/** How far back validity begins, milliseconds: clocks of hosts differ. */
const BACKDATE_MS = 10 * 60_000;
const CURVE = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;

/** Makes an authority for a cluster. */
export async function createAuthority(
  { cluster, days }: { cluster: string; days: number },
): Promise<Authority> {
  const x509 = await loadLibrary();
  const keys = await createKeys();
  // Two authorities of one cluster live side by side while one replaces the other: their names must differ.
  const name = `CN=mmlite CA of ${cluster} ${randomBytes(4).toString("hex")}`;
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    ...validity(days),
    serialNumber: serialNumber(),
    name,
    keys,
    signingAlgorithm: CURVE,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      new x509.SubjectAlternativeNameExtension([{ type: "url", value: formatClusterUri(cluster) }]),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return {
    certificate: new X509Certificate(certificate.toString("pem")),
    key: await exportKey(keys.privateKey),
    cluster,
  };
}

/** Reads an authority from its files; of several in `ca`, the one whose key it is. Throws `config`. */
export async function readAuthority(files: { ca: string; caKey: string }): Promise<Authority> {
  const key = await readProtectedFile(files.caKey, "CA key file");
  const { certificates } = await readCertificateFile(files.ca, "Name the CA's certificate with --tls-ca");
  const parsed = parseKey(key, files.caKey);
  const certificate = certificates.find((one) => one.ca && one.checkPrivateKey(parsed));
  if (certificate === undefined) {
    throw new MmliteError(
      "config",
      `Cannot use CA key file "${files.caKey}": "${files.ca}" holds no CA of it`,
      {
        hint: "Name the CA certificate that belongs to the key",
      },
    );
  }
  return { certificate, key, cluster: clusterOf(certificate) };
}

/** Issues a certificate with a new key. Throws `invalid_input` where the authority is another cluster's. */
export async function issueCertificate(authority: Authority, subject: Subject): Promise<KeyPair> {
  const keys = await createKeys();
  const certificate = await certify(authority, { subject, publicKey: keys.publicKey });
  return { certificate, key: await exportKey(keys.privateKey) };
}

/** Issues a certificate for a key (PEM) that is there already, so that only one file changes. */
export async function renewCertificate(
  authority: Authority,
  { key, subject }: { key: string; subject: Subject },
): Promise<string> {
  const publicKey = new Uint8Array(createPublicKey(key).export({ type: "spki", format: "der" }));
  return await certify(authority, { subject, publicKey });
}

/** Makes a key and the request (PKCS#10, PEM) for a certificate of it; what it is for, its signer decides. */
export async function createRequest(): Promise<{ readonly request: string; readonly key: string }> {
  const x509 = await loadLibrary();
  const keys = await createKeys();
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: "CN=mmlite",
    keys,
    signingAlgorithm: CURVE,
  });
  return { request: request.toString("pem"), key: await exportKey(keys.privateKey) };
}

/**
 * Issues a certificate for the key of a request; nothing else in the request counts. Throws `invalid_input` for
 * one that cannot be read, that its own key has not signed, or whose key is of another kind than mmlite makes.
 */
export async function signRequest(authority: Authority, request: string, subject: Subject): Promise<string> {
  const publicKey = await readRequest(request);
  return await certify(authority, { subject, publicKey });
}

function parseKey(pem: string, path: string): KeyObject {
  try {
    return createPrivateKey(pem);
  } catch {
    throw unusableCertificate(
      path,
      "it holds no private key in PEM form without a password",
      "Name the CA's key",
    );
  }
}

async function readRequest(pem: string): Promise<Uint8Array<ArrayBuffer>> {
  const x509 = await loadLibrary();
  let publicKey: Uint8Array<ArrayBuffer>;
  let signed: boolean;
  try {
    const request = new x509.Pkcs10CertificateRequest(pem);
    publicKey = new Uint8Array(request.publicKey.rawData);
    const { asymmetricKeyDetails } = createPublicKey({
      key: Buffer.from(publicKey),
      type: "spki",
      format: "der",
    });
    signed = asymmetricKeyDetails?.namedCurve === "prime256v1" && await request.verify();
  } catch (cause) {
    throw refusedRequest("it cannot be read", cause);
  }
  if (!signed) throw refusedRequest("no ECDSA P-256 key has signed it");
  return publicKey;
}

function refusedRequest(why: string, cause?: unknown): MmliteError {
  return new MmliteError("invalid_input", `Cannot sign the certificate request: ${why}`, { cause });
}

async function certify(
  authority: Authority,
  { subject, publicKey }: { subject: Subject; publicKey: X509.PublicKeyType },
): Promise<string> {
  const x509 = await loadLibrary();
  const { name, hosts, days } = subject;
  if (authority.cluster !== null && authority.cluster !== name.cluster) {
    throw new MmliteError(
      "invalid_input",
      `Cannot issue a certificate for ${
        formatPeerUri(name)
      }: the CA is that of cluster "${authority.cluster}"`,
      { hint: `Use --cluster ${authority.cluster}, or the CA of cluster "${name.cluster}"` },
    );
  }
  const issuer = new x509.X509Certificate(new Uint8Array(authority.certificate.raw));
  const { signingKey, signingAlgorithm } = await importSigner(authority.key);
  const certificate = await x509.X509CertificateGenerator.create({
    ...validity(days, issuer.notAfter),
    serialNumber: serialNumber(),
    subject: `CN=${name.node}`,
    issuer: issuer.subjectName,
    publicKey,
    signingKey,
    signingAlgorithm,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([
        x509.ExtendedKeyUsage.serverAuth,
        x509.ExtendedKeyUsage.clientAuth,
      ]),
      new x509.SubjectAlternativeNameExtension([
        { type: "url", value: formatPeerUri(name) },
        ...hosts.map(({ kind, text }) => ({ type: kind, value: text })),
      ]),
      await x509.SubjectKeyIdentifierExtension.create(publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
    ],
  });
  return `${certificate.toString("pem")}\n`;
}

/**
 * The library that writes certificates, loaded where one is written: it takes 60 ms and 8 MB, which a node that
 * only reads its files need not pay.
 */
async function loadLibrary(): Promise<typeof X509> {
  await import("reflect-metadata");
  return await import("@peculiar/x509");
}

async function createKeys(): Promise<CryptoKeyPair> {
  return await crypto.subtle.generateKey(CURVE, true, ["sign", "verify"]);
}

async function exportKey(key: CryptoKey): Promise<string> {
  const der = Buffer.from(await crypto.subtle.exportKey("pkcs8", key));
  return createPrivateKey({ key: der, type: "pkcs8", format: "der" }).export({
    type: "pkcs8",
    format: "pem",
  }) as string;
}

/** The key of an authority; one that mmlite has not made may be RSA or of another curve. */
async function importSigner(
  pem: string,
): Promise<
  { signingKey: CryptoKey; signingAlgorithm: EcdsaParams & EcKeyImportParams | RsaHashedImportParams }
> {
  const key = createPrivateKey(pem);
  const algorithm = signerAlgorithm(key.asymmetricKeyType, key.asymmetricKeyDetails?.namedCurve);
  const der = new Uint8Array(key.export({ type: "pkcs8", format: "der" }));
  const signingKey = await crypto.subtle.importKey("pkcs8", der, algorithm, false, ["sign"]);
  return { signingKey, signingAlgorithm: algorithm };
}

function signerAlgorithm(
  type: string | undefined,
  curve: string | undefined,
): EcdsaParams & EcKeyImportParams | RsaHashedImportParams {
  if (type === "rsa") return { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" };
  if (curve === "prime256v1") return CURVE;
  if (curve === "secp384r1") return { name: "ECDSA", namedCurve: "P-384", hash: "SHA-384" };
  throw new MmliteError("config", `Cannot issue certificates with a CA key of type ${curve ?? type}`, {
    hint: "Use a CA key of type ECDSA P-256, ECDSA P-384 or RSA",
  });
}

function validity(days: number, latest?: Date): { notBefore: Date; notAfter: Date } {
  const now = Date.now();
  const notAfter = Math.min(now + days * DAY_MS, latest?.getTime() ?? Infinity);
  return { notBefore: new Date(now - BACKDATE_MS), notAfter: new Date(notAfter) };
}

/** Sixteen random bytes; the first in 0x40 to 0x7f, so that the number is positive and of one length. */
function serialNumber(): string {
  const bytes = randomBytes(16);
  bytes[0] = 0x40 | bytes[0] & 0x3f;
  return bytes.toString("hex");
}
