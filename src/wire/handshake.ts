/**
 * Payloads of hello, welcome and refusal: JSON objects with `snake_case` keys. Layout: `docs/PROTOCOL.md` section 3.
 *
 * Unknown keys are ignored, so that a later version may add some; anything else unexpected is a `protocol` error.
 */
import { Buffer } from "node:buffer";
import { z } from "zod";
import { MmliteError } from "../errors.ts";
import { formatLsn, type Lsn, parseLsn } from "../lsn.ts";
import { COMPRESSIONS } from "./compression.ts";
import { type Hello, type NodeIdentity, PROTOCOL_VERSION, type Refusal, type Welcome } from "./frame.ts";
import { MAX_HANDSHAKE_BYTES } from "./layout.ts";

/** A frame of the handshake. */
export type HandshakeFrame = Hello | Welcome | Refusal;

/** Longest error text and hint of a refusal, UTF-16 units: two of them escaped to six bytes each still fit. */
export const MAX_REFUSAL_TEXT = 4_000;

/** Most types that a receiver may name. */
const MAX_BINARY_TYPES = 256;

const name = z.string().min(1).max(256);
const lsn = z.string().regex(/^[0-9A-Fa-f]{1,8}\/[0-9A-Fa-f]{1,8}$/).transform(parseLsn);
const uint32 = z.number().int().min(0).max(0xffff_ffff);

/** Whatever it is made of: it is only compared. */
const digest = z.string().max(64).nullable().default(null);

const identity = z.object({
  cluster: name,
  node: name,
  incarnation: name,
  system_identifier: z.string().regex(/^[0-9]{1,20}$/),
  timeline: uint32,
  server_version: uint32,
  program: name,
}).transform((identity): NodeIdentity => ({
  cluster: identity.cluster,
  node: identity.node,
  incarnation: identity.incarnation,
  systemIdentifier: identity.system_identifier,
  timeline: identity.timeline,
  serverVersion: identity.server_version,
  program: identity.program,
}));

const hello = z.object({
  protocol: uint32,
  identity,
  receiver: name,
  url: z.string().max(2048).nullable(),
  slot_lsn: lsn,
  acked_lsn: lsn.nullable(),
  wal_lsn: lsn,
  compression: z.array(z.string().max(32)).max(32).default([]),
  policies: digest,
}).transform((hello): Hello => ({
  kind: "hello",
  protocol: hello.protocol,
  identity: hello.identity,
  receiver: hello.receiver,
  url: hello.url,
  slotLsn: hello.slot_lsn,
  ackedLsn: hello.acked_lsn,
  walLsn: hello.wal_lsn,
  compression: hello.compression,
  policies: hello.policies,
}));

const copied = z.object({ snapshot: z.string().regex(/^\d+:\d+:[\d,]*$/), until: lsn });

const welcome = z.object({
  protocol: uint32,
  identity,
  resume_lsn: lsn,
  dials_back: z.boolean().default(true),
  compression: z.enum(COMPRESSIONS).nullable().default(null),
  policies: digest,
  binary_types: z.array(uint32).max(MAX_BINARY_TYPES).default([]),
  copied: copied.nullable().default(null),
}).transform((welcome): Welcome => ({
  kind: "welcome",
  protocol: welcome.protocol,
  identity: welcome.identity,
  resumeLsn: welcome.resume_lsn,
  dialsBack: welcome.dials_back,
  compression: welcome.compression,
  policies: welcome.policies,
  binaryTypes: welcome.binary_types,
  copied: welcome.copied,
}));

const refusal = z.object({
  error_kind: z.string().max(256),
  message: z.string(),
  hint: z.string(),
}).transform((refusal): Refusal => ({
  kind: "refusal",
  errorKind: refusal.error_kind,
  message: refusal.message,
  hint: refusal.hint,
}));

const SCHEMAS = { hello, welcome, refusal };

/** The payload of a handshake frame; a refusal's texts are cut to {@link MAX_REFUSAL_TEXT}, the others must fit. */
export function encodeHandshake(frame: HandshakeFrame): Uint8Array {
  const payload = Buffer.from(JSON.stringify(toJson(frame)));
  if (payload.length > MAX_HANDSHAKE_BYTES) {
    const why = `${payload.length} bytes are more than ${MAX_HANDSHAKE_BYTES}`;
    throw new MmliteError("internal", `Cannot write a ${frame.kind} frame: ${why}`);
  }
  return payload;
}

function toJson(frame: HandshakeFrame): unknown {
  switch (frame.kind) {
    case "hello":
      return {
        protocol: frame.protocol,
        identity: identityToJson(frame.identity),
        receiver: frame.receiver,
        url: frame.url,
        slot_lsn: formatLsn(frame.slotLsn),
        acked_lsn: formatNullable(frame.ackedLsn),
        wal_lsn: formatLsn(frame.walLsn),
        compression: frame.compression,
        policies: frame.policies,
      };
    case "welcome":
      return {
        protocol: frame.protocol,
        identity: identityToJson(frame.identity),
        resume_lsn: formatLsn(frame.resumeLsn),
        dials_back: frame.dialsBack,
        compression: frame.compression,
        policies: frame.policies,
        binary_types: frame.binaryTypes,
        copied: frame.copied === null
          ? null
          : { snapshot: frame.copied.snapshot, until: formatLsn(frame.copied.until) },
      };
    case "refusal":
      return {
        error_kind: frame.errorKind,
        message: frame.message.slice(0, MAX_REFUSAL_TEXT),
        hint: frame.hint.slice(0, MAX_REFUSAL_TEXT),
      };
  }
}

function identityToJson(identity: NodeIdentity): unknown {
  return {
    cluster: identity.cluster,
    node: identity.node,
    incarnation: identity.incarnation,
    system_identifier: identity.systemIdentifier,
    timeline: identity.timeline,
    server_version: identity.serverVersion,
    program: identity.program,
  };
}

function formatNullable(lsn: Lsn | null): string | null {
  return lsn === null ? null : formatLsn(lsn);
}

/** The handshake frame in a payload; throws a `protocol` error that names the fields at fault, not their values. */
export function decodeHandshake(kind: HandshakeFrame["kind"], payload: Uint8Array): HandshakeFrame {
  const json = parseJson(kind, payload);
  const result = SCHEMAS[kind].safeParse(json);
  if (result.success) return result.data;
  const protocol = foreignProtocol(json);
  if (protocol !== null) {
    throw new MmliteError(
      "protocol",
      `Cannot understand the peer's ${kind}: it speaks protocol ${protocol}, this node ${PROTOCOL_VERSION}`,
      { hint: "Run the same version of mmlite on both nodes" },
    );
  }
  const fields = result.error.issues.map((issue) => issue.path.join(".") || "(whole)").join(", ");
  throw new MmliteError("protocol", `Cannot read a ${kind} frame: wrong or missing ${fields}`);
}

function parseJson(kind: string, payload: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(payload));
  } catch {
    // The parser's own message quotes the text, which came from a stranger.
    throw new MmliteError(
      "protocol",
      `Cannot read a ${kind} frame: its ${payload.length} bytes are not JSON`,
    );
  }
}

function foreignProtocol(json: unknown): number | null {
  const parsed = z.object({ protocol: uint32 }).safeParse(json);
  return parsed.success && parsed.data.protocol !== PROTOCOL_VERSION ? parsed.data.protocol : null;
}
