/**
 * The token of `/v1/token`: how far the WAL of each node had come, as one node had it, in one word.
 *
 * Text: `mmpos1_`, then base64url of the bytes below and the first four of their SHA-256, so that a token that was cut
 * or mistyped is told from one that means something else. No secret. The bytes: the cluster's name behind its length,
 * the number of nodes, and for each its name behind its length, six bytes of its incarnation, and a position in its
 * WAL, eight bytes. The first is the node that gave the token.
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { MmliteError } from "../errors.ts";
import { type Lsn, toLsn } from "../lsn.ts";
import { NODE_NAME } from "../node_name.ts";

/** A position in the WAL of a node. */
export interface NodePosition {
  readonly node: string;
  /** Which life of the node's database, as {@link lifeOf} gives it: positions of two are never compared. */
  readonly life: string;
  /** Everything that ends up to here. */
  readonly lsn: Lsn;
}

/** What a token says. */
export interface PositionToken {
  readonly cluster: string;
  /** The node that gave it, and behind it those of which it had applied something; each once. */
  readonly positions: readonly [NodePosition, ...NodePosition[]];
}

const PREFIX = "mmpos1_";
const LIFE_BYTES = 6;
const LSN_BYTES = 8;
const CHECKSUM_BYTES = 4;
/** Longest token that is looked at, characters: some hundred nodes. */
export const MAX_TOKEN_LENGTH = 8_192;

/** What stands for an incarnation in a token: the first random bits of the UUID, 12 digits of hex. */
export function lifeOf(incarnation: string): string {
  return incarnation.replaceAll("-", "").slice(0, 2 * LIFE_BYTES);
}

/** The token as text. */
export function encodeToken({ cluster, positions }: PositionToken): string {
  const parts = [shortText(cluster), Buffer.of(positions.length)];
  for (const { node, life, lsn } of positions) {
    const position = Buffer.alloc(LSN_BYTES);
    position.writeBigUInt64BE(lsn);
    parts.push(shortText(node), Buffer.from(life, "hex"), position);
  }
  const payload = Buffer.concat(parts);
  return PREFIX + Buffer.concat([payload, checksum(payload)]).toString("base64url");
}

/** Reads a token; throws `invalid_input` for anything else. */
export function decodeToken(text: string): PositionToken {
  if (!text.startsWith(PREFIX)) {
    throw unreadable(
      /^mmpos\d+_/.test(text) ? "another version of mmlite has made it" : `it does not begin with ${PREFIX}`,
    );
  }
  if (text.length > MAX_TOKEN_LENGTH) throw unreadable(`it is longer than ${MAX_TOKEN_LENGTH} characters`);
  const bytes = Buffer.from(text.slice(PREFIX.length), "base64url");
  const payload = bytes.subarray(0, -CHECKSUM_BYTES);
  // What is no base64url is passed over, and so are the last bits.
  const isWhole = PREFIX + bytes.toString("base64url") === text &&
    checksum(payload).equals(bytes.subarray(payload.length));
  if (!isWhole) throw unreadable("a part of it is missing or changed");
  return readPayload(payload);
}

function readPayload(payload: Buffer): PositionToken {
  let at = 0;
  const take = (length: number) => {
    if (at + length > payload.length) throw unreadable("it does not say what it must");
    return payload.subarray(at, at += length);
  };
  const name = () => {
    const text = take(take(1)[0]).toString("latin1");
    if (!NODE_NAME.test(text)) throw unreadable("it does not say what it must");
    return text;
  };
  const cluster = name();
  const positions: NodePosition[] = [];
  for (let left = take(1)[0]; left > 0; left--) {
    positions.push({
      node: name(),
      life: take(LIFE_BYTES).toString("hex"),
      lsn: toLsn(take(LSN_BYTES).readBigUInt64BE()),
    });
  }
  const [first, ...others] = positions;
  const isOnce = new Set(positions.map(({ node }) => node)).size === positions.length;
  if (first === undefined || !isOnce || at < payload.length) throw unreadable("it does not say what it must");
  return { cluster, positions: [first, ...others] };
}

function shortText(text: string): Buffer {
  const bytes = Buffer.from(text, "latin1");
  return Buffer.concat([Buffer.of(bytes.length), bytes]);
}

function checksum(payload: Uint8Array): Buffer {
  return createHash("sha256").update(payload).digest().subarray(0, CHECKSUM_BYTES);
}

function unreadable(why: string): MmliteError {
  return new MmliteError("invalid_input", `Cannot read the token: ${why}`, {
    hint: "Give the whole of what GET /v1/token answered as `token`, in one piece",
  });
}
