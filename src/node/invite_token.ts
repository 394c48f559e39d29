/**
 * The token that `mmlite invite` prints: where to join, whom to trust there, and the secret that lets one node in.
 *
 * Text: `mmlite1_`, then base64url of a JSON object and the first bytes of its SHA-256, so that a token that was
 * cut or mistyped is told from one that is refused.
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { z } from "zod";
import { MmliteError } from "../errors.ts";
import { NODE_NAME } from "../node_name.ts";

/** What a token says. */
export interface InviteToken {
  readonly cluster: string;
  /** The node that invites. */
  readonly inviter: string;
  /** Where its peer port may be reached, `https` URLs, the likeliest first. */
  readonly urls: readonly string[];
  /** SHA-256 of the CA certificate's DER, base64url: what answers there must show it. */
  readonly authority: string;
  readonly id: string;
  /** 32 random bytes, base64url. */
  readonly secret: string;
  readonly expiresAt: Date;
}

const PREFIX = "mmlite1_";
const CHECKSUM_BYTES = 4;
/** Longest token that is looked at, characters. */
export const MAX_TOKEN_LENGTH = 8_192;

const Bytes32 = z.string().regex(/^[A-Za-z0-9_-]{43}$/);
const Payload = z.object({
  v: z.literal(1),
  cluster: z.string().regex(NODE_NAME),
  inviter: z.string().regex(NODE_NAME),
  urls: z.array(z.url({ protocol: /^https$/ }).max(2_048)).min(1).max(16),
  ca: Bytes32,
  id: z.string().regex(/^[0-9a-f]{16}$/),
  secret: Bytes32,
  expires: z.int().positive(),
});

/** The token as text: a secret. */
export function encodeToken(token: InviteToken): string {
  const { cluster, inviter, urls, authority, id, secret, expiresAt } = token;
  const expires = Math.floor(expiresAt.getTime() / 1000);
  const payload = Buffer.from(
    JSON.stringify({ v: 1, cluster, inviter, urls, ca: authority, id, secret, expires }),
  );
  return PREFIX + Buffer.concat([payload, checksum(payload)]).toString("base64url");
}

/** Reads a token; throws `invalid_input`, which never repeats what was given. */
export function decodeToken(text: string): InviteToken {
  if (!text.startsWith(PREFIX)) {
    throw unreadable(
      /^mmlite\d+_/.test(text) ? "another version of mmlite has made it" : `it does not begin with ${PREFIX}`,
    );
  }
  const bytes = text.length > MAX_TOKEN_LENGTH
    ? Buffer.alloc(0)
    : Buffer.from(text.slice(PREFIX.length), "base64url");
  const payload = bytes.subarray(0, -CHECKSUM_BYTES);
  const isWhole = /^[A-Za-z0-9_-]+$/.test(text) &&
    checksum(payload).equals(bytes.subarray(payload.length));
  if (!isWhole) throw unreadable("a part of it is missing or changed");
  return readPayload(payload.toString("utf8"));
}

/** What is kept of a secret: its SHA-256, hex. */
export function hashSecret(secret: string): string {
  return createHash("sha256").update(Buffer.from(secret, "base64url")).digest("hex");
}

function readPayload(json: string): InviteToken {
  const { data } = Payload.safeParse(parseJson(json));
  if (data === undefined) throw unreadable("it does not say what it must");
  const { cluster, inviter, urls, ca, id, secret, expires } = data;
  return { cluster, inviter, urls, authority: ca, id, secret, expiresAt: new Date(expires * 1000) };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function checksum(payload: Uint8Array): Buffer {
  return createHash("sha256").update(payload).digest().subarray(0, CHECKSUM_BYTES);
}

function unreadable(why: string): MmliteError {
  return new MmliteError("invalid_input", `Cannot read the token: ${why}`, {
    hint: "Copy all of what `mmlite invite` printed, in one piece",
  });
}
