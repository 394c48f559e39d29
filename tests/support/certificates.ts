/**
 * Certificates of every kind, good and bad, for tests that show them to peers; made in memory, anew in each test.
 */
import "reflect-metadata";
import { Buffer } from "node:buffer";
import { createPrivateKey } from "node:crypto";
import * as x509 from "@peculiar/x509";
import type { Keys, KeySource } from "../../src/http/trust.ts";

const CURVE = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const DAY_MS = 24 * 60 * 60_000;

/** A certificate and its key, PEM. */
export interface TestCertificate {
  readonly certificate: string;
  readonly key: string;
}

/** What a certificate says; what is left out is as `mmlite cert issue` makes it. */
export interface Claims {
  readonly commonName?: string;
  /** SAN URIs. */
  readonly uris?: readonly string[];
  readonly usages?: readonly x509.ExtendedKeyUsage[];
  /** When its validity begins and ends, days from now. */
  readonly days?: readonly [from: number, to: number];
}

/** A certificate authority. */
export class TestAuthority {
  readonly certificate: string;
  readonly #issuer: x509.X509Certificate;
  readonly #keys: CryptoKeyPair;

  private constructor(issuer: x509.X509Certificate, keys: CryptoKeyPair) {
    this.#issuer = issuer;
    this.#keys = keys;
    this.certificate = issuer.toString("pem");
  }

  static async create(commonName = "test CA"): Promise<TestAuthority> {
    const keys = await crypto.subtle.generateKey(CURVE, true, ["sign", "verify"]);
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      name: `CN=${commonName}`,
      keys,
      signingAlgorithm: CURVE,
      notBefore: new Date(Date.now() - 20 * DAY_MS),
      notAfter: new Date(Date.now() + 20 * DAY_MS),
      extensions: [new x509.BasicConstraintsExtension(true, 2, true)],
    });
    return new TestAuthority(certificate, keys);
  }

  /** A certificate with any claims. */
  async issue(claims: Claims = {}): Promise<TestCertificate> {
    const keys = await crypto.subtle.generateKey(CURVE, true, ["sign", "verify"]);
    const certificate = await x509.X509CertificateGenerator.create({
      ...contents(claims),
      subject: `CN=${claims.commonName ?? "test"}`,
      issuer: this.#issuer.subject,
      publicKey: keys.publicKey,
      signingKey: this.#keys.privateKey,
      signingAlgorithm: CURVE,
    });
    return { certificate: certificate.toString("pem"), key: await exportKey(keys.privateKey) };
  }

  /** The certificate of a node, as `mmlite cert issue` makes it, but for what `claims` says. */
  issueNode(node: string, { cluster = "mmlite", ...claims }: Claims & { cluster?: string } = {}) {
    return this.issue({ uris: [`mmlite://${cluster}/${node}`], ...claims });
  }

  /** An authority that this one vouches for. */
  async createIntermediate(): Promise<TestAuthority> {
    const keys = await crypto.subtle.generateKey(CURVE, true, ["sign", "verify"]);
    const certificate = await x509.X509CertificateGenerator.create({
      subject: "CN=intermediate CA",
      issuer: this.#issuer.subject,
      publicKey: keys.publicKey,
      signingKey: this.#keys.privateKey,
      signingAlgorithm: CURVE,
      notBefore: this.#issuer.notBefore,
      notAfter: this.#issuer.notAfter,
      extensions: [new x509.BasicConstraintsExtension(true, 0, true)],
    });
    return new TestAuthority(certificate, keys);
  }
}

/** A certificate that claims to be issued by the holder of another one, whatever that may do. */
export async function forge(claims: Claims, holder: TestCertificate): Promise<TestCertificate> {
  const issuer = new x509.X509Certificate(holder.certificate);
  const der = createPrivateKey(holder.key).export({ type: "pkcs8", format: "der" });
  const signingKey = await crypto.subtle.importKey("pkcs8", new Uint8Array(der), CURVE, true, ["sign"]);
  const keys = await crypto.subtle.generateKey(CURVE, true, ["sign", "verify"]);
  const forged = await x509.X509CertificateGenerator.create({
    ...contents(claims),
    subject: "CN=forged",
    issuer: issuer.subject,
    publicKey: keys.publicKey,
    signingKey,
    signingAlgorithm: CURVE,
  });
  const certificate = `${forged.toString("pem")}\n${holder.certificate}`;
  return { certificate, key: await exportKey(keys.privateKey) };
}

/** A certificate that only its own key vouches for. */
export async function selfSigned(claims: Claims): Promise<TestCertificate> {
  const keys = await crypto.subtle.generateKey(CURVE, true, ["sign", "verify"]);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    ...contents(claims),
    name: `CN=${claims.commonName ?? "test"}`,
    keys,
    signingAlgorithm: CURVE,
  });
  return { certificate: certificate.toString("pem"), key: await exportKey(keys.privateKey) };
}

/** The keys of one node, which a test may exchange. */
export class TestKeys implements KeySource {
  readonly #listeners = new Set<() => void>();
  #current: Keys;

  constructor(current: Keys) {
    this.#current = current;
  }

  /** Keys of a node whose certificate is good. */
  static async create(authority: TestAuthority, node: string, cluster = "mmlite"): Promise<TestKeys> {
    const issued = await authority.issueNode(node, { cluster });
    return new TestKeys({ ...issued, authorities: [authority.certificate], name: { cluster, node } });
  }

  get current(): Keys {
    return this.#current;
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  change(changes: Partial<Keys>): void {
    this.#current = { ...this.#current, ...changes };
    for (const listener of this.#listeners) listener();
  }
}

function contents({ uris = [], usages, days: [from, to] = [-1, 10] }: Claims) {
  const { serverAuth, clientAuth } = x509.ExtendedKeyUsage;
  const names = uris.map((value) => ({ type: "url" as const, value }));
  return {
    notBefore: new Date(Date.now() + from * DAY_MS),
    notAfter: new Date(Date.now() + to * DAY_MS),
    extensions: [
      new x509.ExtendedKeyUsageExtension([...usages ?? [serverAuth, clientAuth]]),
      ...(names.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension(names)]),
    ],
  };
}

async function exportKey(key: CryptoKey): Promise<string> {
  const der = Buffer.from(await crypto.subtle.exportKey("pkcs8", key));
  return createPrivateKey({ key: der, type: "pkcs8", format: "der" })
    .export({ type: "pkcs8", format: "pem" }) as string;
}
