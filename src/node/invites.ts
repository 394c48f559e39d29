/**
 * The invites of this node: makes tokens, lists them, and tells whether one is outstanding.
 */
import { Buffer } from "node:buffer";
import { createHash, randomBytes, type X509Certificate } from "node:crypto";
import type { CreatedInvite, Invite, InviteInput } from "../api/invite_schemas.ts";
import { MmliteError } from "../errors.ts";
import { log } from "../log.ts";
import { createInvite, deleteInvite, type InviteRow, readInvites } from "../pg/invites.ts";
import { type Authority, readAuthority } from "../pki/authority.ts";
import { findAuthority, readCertificates } from "../pki/certificate.ts";
import type { TlsKeys, TlsMaterial } from "../pki/tls_keys.ts";
import type { PeerName } from "../wire/channel.ts";
import type { Database } from "./database.ts";
import { encodeToken, hashSecret } from "./invite_token.ts";

/** Life of an invite that says nothing else, seconds. */
const DEFAULT_TTL_SECONDS = 3600;

/** What {@link Invites} needs. */
export interface InvitesOptions {
  readonly database: Database;
  readonly self: PeerName;
  /** Null for a node that speaks cleartext. */
  readonly tls: TlsKeys | null;
  /** Where certificate and key of the CA would be; null where nobody said. */
  readonly authorityFiles: { readonly ca: string; readonly caKey: string } | null;
  /** Where peers dial this node; null if nowhere. */
  readonly url: () => string | null;
}

/** See the module. */
export class Invites {
  readonly #options: InvitesOptions;
  readonly #logger = log("invites");
  /** On the clock of `performance.now()`. */
  #openUntil = 0;

  constructor(options: InvitesOptions) {
    this.#options = options;
  }

  /** Takes up the invites that the database has. */
  async load(): Promise<void> {
    this.#watch(await readInvites(this.#query("read the invites")));
  }

  /** Whether some invite has not expired. Used ones count: its user may ask again, and everybody else is told. */
  get isOpen(): boolean {
    return performance.now() < this.#openUntil;
  }

  /** Makes a token. Throws `config` where TLS, the CA's key or an address is missing. */
  async create(input: InviteInput): Promise<CreatedInvite> {
    const { self } = this.#options;
    const { material } = await this.#requireAuthority("invite a node");
    const urls = this.#urls(input.urls ?? []);
    const id = randomBytes(8).toString("hex");
    const secret = randomBytes(32).toString("base64url");
    const row = await createInvite(this.#query("invite a node"), {
      id,
      secretHash: hashSecret(secret),
      node: input.name ?? null,
      ttlSeconds: input.ttl_seconds ?? DEFAULT_TTL_SECONDS,
    });
    await this.load();
    this.#logger.info("Invite {id} lets {whom} join until {at}", {
      id,
      whom: row.node === null ? "one node" : `node "${row.node}"`,
      at: row.expiresAt,
    });
    const token = encodeToken({
      ...{ cluster: self.cluster, inviter: self.node, urls, id, secret },
      authority: authorityFingerprint(material),
      expiresAt: new Date(row.expiresAt),
    });
    return { id, token, name: row.node, expires_at: row.expiresAt, urls };
  }

  /** Every invite on record, the latest first. */
  async list(): Promise<Invite[]> {
    return (await readInvites(this.#query("list the invites"))).map(toInvite);
  }

  /** Withdraws an invite; throws `not_found`. */
  async withdraw(id: string): Promise<void> {
    const found = await deleteInvite(this.#query(`withdraw invite "${id}"`), id);
    await this.load();
    if (found) return;
    throw new MmliteError("not_found", `Cannot withdraw invite "${id}": there is none of that id`, {
      hint: "`mmlite invite list` shows them all",
    });
  }

  /** The CA with its key, read anew each time; throws `config` where this node has none. */
  async requireAuthority(): Promise<Authority> {
    return (await this.#requireAuthority("sign the certificate of a new node")).authority;
  }

  async #requireAuthority(doing: string): Promise<{ authority: Authority; material: TlsMaterial }> {
    const { tls, authorityFiles, self } = this.#options;
    if (tls === null) {
      throw new MmliteError("config", `Cannot ${doing}: this node speaks cleartext`, {
        hint: "Run `mmlite cert ca` here, then start again without --insecure and without tls: off",
      });
    }
    if (authorityFiles === null) throw this.#noAuthority(doing, null);
    try {
      return { authority: await readAuthority(authorityFiles), material: tls.current };
    } catch (thrown) {
      if (isMissing(thrown)) throw this.#noAuthority(doing, authorityFiles.caKey);
      throw thrown instanceof MmliteError
        ? new MmliteError(thrown.kind, `Cannot ${doing} on "${self.node}": ${thrown.message}`, {
          hint: thrown.hint,
          cause: thrown,
        })
        : thrown;
    }
  }

  #noAuthority(doing: string, place: string | null): MmliteError {
    const where = place === null ? "" : `, "${place}" is missing`;
    return new MmliteError(
      "config",
      `Cannot ${doing} on "${this.#options.self.node}": it has no key of the CA${where}`,
      { hint: "Do it on the node where `mmlite cert ca` was run, or name the key's file with --tls-ca-key" },
    );
  }

  #urls(given: readonly string[]): string[] {
    if (given.length > 0) return given.map((url) => new URL(url).origin);
    const url = this.#options.url();
    if (url !== null && url.startsWith("https:")) return [url];
    throw new MmliteError("config", "Cannot invite a node: nobody can dial this one", {
      hint: "Name the address that the new node can reach with --url, or invite from another member",
    });
  }

  #watch(rows: readonly InviteRow[]): void {
    const seconds = Math.max(0, ...rows.map(({ remainingSeconds }) => remainingSeconds));
    this.#openUntil = performance.now() + seconds * 1000;
  }

  #query(doing: string) {
    return this.#options.database.control.query(doing);
  }
}

/** SHA-256 of the DER of the authority that vouches for this node, base64url: what the joiner checks. */
export function authorityFingerprint({ certificate, authorities }: TlsMaterial): string {
  const authority = findAuthority(readCertificates(certificate), authorities.flatMap(readCertificates));
  return fingerprintOf(authority!);
}

/** SHA-256 of a certificate's DER, base64url. */
export function fingerprintOf(certificate: X509Certificate): string {
  return createHash("sha256").update(Buffer.from(certificate.raw)).digest("base64url");
}

function toInvite(row: InviteRow): Invite {
  const state = row.usedBy !== null ? "used" : row.remainingSeconds > 0 ? "open" : "expired";
  return {
    id: row.id,
    name: row.node,
    state,
    created_at: row.createdAt,
    expires_at: row.expiresAt,
    used_at: row.usedAt,
    used_by: row.usedBy,
  };
}

function isMissing(thrown: unknown): boolean {
  const cause = thrown instanceof MmliteError ? thrown.cause : thrown;
  return (cause as { code?: string } | undefined)?.code === "ENOENT";
}
