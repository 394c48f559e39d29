/**
 * The certificate, key and authorities that this node shows its peers: read from files, checked before they are
 * used, and read again when they change, so that a renewal needs no restart.
 *
 * A set of files that does not fit together never replaces one that does: files are written one after the
 * other, and a watch may look in between.
 */
import { createPrivateKey, type KeyObject, type X509Certificate } from "node:crypto";
import { stat } from "node:fs/promises";
import { createSecureContext } from "node:tls";
import { delay } from "../backoff.ts";
import { type MmliteError, toMmliteError } from "../errors.ts";
import { log } from "../log.ts";
import { readProtectedFile } from "../protected_file.ts";
import type { PeerName } from "../wire/channel.ts";
import { findAuthority, servesBothEnds } from "./certificate.ts";
import { readCertificateFile, unusableCertificate } from "./certificate_file.ts";
import { formatPeerUri, isSamePeer, peerNameOf } from "./identity.ts";

/** Where the three files are. */
export interface TlsFiles {
  /** The node's certificate, with those between it and the authority where there are any. */
  readonly cert: string;
  readonly key: string;
  /** The authorities to trust; several while one replaces another. */
  readonly ca: string;
}

/** One set that fits together. */
export interface TlsMaterial {
  /** PEM, as in the file. */
  readonly certificate: string;
  /** PEM, as in the file: a secret. */
  readonly key: string;
  /** PEM, one certificate each; at least one. */
  readonly authorities: readonly string[];
  /** Whom the certificate names: this node. */
  readonly name: PeerName;
  readonly expiresAt: Date;
  /** When the authority expires that vouches for the certificate. */
  readonly authorityExpiresAt: Date;
}

/** How often the files are looked at, milliseconds: a renewal is prepared days ahead, so this may be slow. */
const WATCH_INTERVAL_MS = 5_000;

const HINT_CA = "Copy ca.pem here from the node where `mmlite cert ca` made it";
const HINT_ISSUE = "Issue one with `mmlite cert issue NAME` where the CA key is, and copy it here";

/** The current set, and word of a new one. */
export class TlsKeys {
  readonly #files: TlsFiles;
  readonly #name: PeerName;
  readonly #listeners = new Set<(material: TlsMaterial) => void>();
  #current: TlsMaterial;
  #problem: MmliteError | null = null;
  #turn: Promise<Reload> = Promise.resolve("same");

  private constructor(files: TlsFiles, name: PeerName, current: TlsMaterial) {
    this.#files = files;
    this.#name = name;
    this.#current = current;
  }

  /** Reads and checks the files for the node that `name` says; throws `config`. */
  static async load(files: TlsFiles, name: PeerName): Promise<TlsKeys> {
    return new TlsKeys(files, name, await readMaterial(files, name));
  }

  /** What to show and whom to trust from now on. */
  get current(): TlsMaterial {
    return this.#current;
  }

  /** Why the files as they are now cannot be used, null while they are in use. */
  get problem(): MmliteError | null {
    return this.#problem;
  }

  /** Calls `listener` after each change of {@link current}, until the function that is returned is called. */
  onChange(listener: (material: TlsMaterial) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /**
   * Reads the files again; true if they were new and are in use now. Files that cannot be used become
   * {@link problem} and a warning, and leave the current set as it is. Never throws.
   */
  async reload(): Promise<boolean> {
    const done = await this.#inTurn(() => this.#reload());
    if (done === "same") log("tls").info("The certificate files have not changed");
    return done === "changed";
  }

  /** Looks at the files until `signal` is aborted, and reads them when they have changed. Never throws. */
  async watch(signal: AbortSignal, intervalMs = WATCH_INTERVAL_MS): Promise<void> {
    let seen: string | null = null;
    let read: string | null = null;
    while (!signal.aborted) {
      const stamp = await stampOf(this.#files);
      // Files that have just changed may be half of a change, whether they fit together or not.
      if (stamp === seen && (stamp !== read || this.#problem !== null)) {
        await this.#inTurn(() => this.#reload());
        read = stamp;
      }
      seen = stamp;
      await delay(intervalMs, signal);
    }
  }

  #inTurn(work: () => Promise<Reload>): Promise<Reload> {
    return this.#turn = this.#turn.then(work, work);
  }

  async #reload(): Promise<Reload> {
    let material: TlsMaterial;
    try {
      material = await readMaterial(this.#files, this.#name);
    } catch (thrown) {
      this.#refuse(toMmliteError(thrown));
      return "failed";
    }
    const isMended = this.#problem !== null;
    this.#problem = null;
    if (isSameMaterial(material, this.#current)) {
      if (isMended) log("tls").info("The certificate files are as they were again");
      return "same";
    }
    this.#current = material;
    log("tls").info("Using the new certificate files; the certificate expires {at}", {
      at: material.expiresAt.toISOString(),
    });
    for (const listener of [...this.#listeners]) listener(material);
    return "changed";
  }

  /** Once for each reason, however often the files are looked at. */
  #refuse(error: MmliteError): void {
    if (error.message !== this.#problem?.message) {
      log("tls").warn("Keeping the certificate files as they were: {why}. {hint}", {
        why: error.message,
        hint: error.hint,
      });
    }
    this.#problem = error;
  }
}

type Reload = "changed" | "same" | "failed";

async function readMaterial(files: TlsFiles, name: PeerName): Promise<TlsMaterial> {
  const { text: certificate, certificates: chain } = await readCertificateFile(files.cert, HINT_ISSUE);
  const key = await readProtectedFile(files.key, "key file");
  const { certificates: authorities } = await readCertificateFile(files.ca, HINT_CA);
  refuseWrongKey(files, { certificate: chain[0], key });
  refuseOutOfTime(files.cert, chain[0]);
  refuseWrongName(files.cert, { certificate: chain[0], name });
  if (!servesBothEnds(chain[0])) {
    throw unusableCertificate(files.cert, "it is not for both serverAuth and clientAuth", HINT_ISSUE);
  }
  const authority = findAuthority(chain, authorities);
  if (authority === null) {
    throw unusableCertificate(files.cert, `no authority in "${files.ca}" has issued it`, HINT_ISSUE);
  }
  refuseOutOfTime(files.ca, authority);
  refuseWeak(files.cert, { certificate, key });
  return {
    certificate,
    key,
    authorities: authorities.map((one) => one.toString()),
    name,
    expiresAt: new Date(chain[0].validTo),
    authorityExpiresAt: new Date(authority.validTo),
  };
}

function refuseWrongKey(
  files: TlsFiles,
  { certificate, key }: { certificate: X509Certificate; key: string },
): void {
  let parsed: KeyObject;
  try {
    parsed = createPrivateKey(key);
  } catch {
    throw unusableCertificate(
      files.key,
      "it holds no private key in PEM form without a password",
      HINT_ISSUE,
    );
  }
  if (certificate.checkPrivateKey(parsed)) return;
  throw unusableCertificate(files.key, `it is not the key of "${files.cert}"`, HINT_ISSUE);
}

/** What the TLS library would not take, such as a key that is too short: better said here than at a handshake. */
function refuseWeak(path: string, { certificate, key }: { certificate: string; key: string }): void {
  try {
    createSecureContext({ cert: certificate, key, minVersion: "TLSv1.3" });
  } catch (cause) {
    // OpenSSL's text is `error:0A00018F:SSL routines::ee key too small`.
    throw unusableCertificate(path, (cause as Error).message.split(":").at(-1)!, HINT_ISSUE);
  }
}

function refuseOutOfTime(path: string, { validFrom, validTo }: X509Certificate): void {
  const now = Date.now();
  if (now < Date.parse(validFrom)) {
    throw unusableCertificate(
      path,
      `it is not valid before ${new Date(validFrom).toISOString()}`,
      "Check this host's clock",
    );
  }
  if (now > Date.parse(validTo)) {
    throw unusableCertificate(path, `it expired at ${new Date(validTo).toISOString()}`, HINT_ISSUE);
  }
}

function refuseWrongName(
  path: string,
  { certificate, name }: { certificate: X509Certificate; name: PeerName },
): void {
  const named = peerNameOf(certificate);
  if (named !== null && isSamePeer(named, name)) return;
  const says = named === null ? "it names no node of mmlite" : `it names ${formatPeerUri(named)}`;
  throw unusableCertificate(path, `${says}, and this node is ${formatPeerUri(name)}`, HINT_ISSUE);
}

function isSameMaterial(one: TlsMaterial, other: TlsMaterial): boolean {
  return one.certificate === other.certificate && one.key === other.key &&
    one.authorities.join() === other.authorities.join();
}

/** What changes when a file, or what its symbolic link leads to, is replaced or written. */
async function stampOf({ cert, key, ca }: TlsFiles): Promise<string> {
  const stamps = await Promise.all(
    [cert, key, ca].map(async (path) => {
      const { ino, size, mtimeMs, ctimeMs } = await stat(path);
      return `${ino} ${size} ${mtimeMs} ${ctimeMs}`;
    }).map((stamp) => stamp.catch(() => "absent")),
  );
  return stamps.join();
}
