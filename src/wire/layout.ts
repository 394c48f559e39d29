/**
 * Numbers of the wire: frame types, sizes of fixed parts, and bounds. Tables: `docs/PROTOCOL.md`, sections 4 and 5.
 */
import { MmliteError } from "../errors.ts";
import type { Frame } from "./frame.ts";

/** Bytes of the length field that opens a frame. */
export const LENGTH_BYTES = 4;
/** Bytes before a frame's payload: the length field and the type. */
export const HEADER_BYTES = LENGTH_BYTES + 1;
/** Bytes before each message inside a data frame. */
export const MESSAGE_LENGTH_BYTES = 4;

/** The greatest length field, bytes: what a receiver sets aside for a frame before it has arrived. */
export const MAX_FRAME_BYTES = 0x10_0000;
/** The greatest payload of hello, welcome and refusal, bytes: they come from strangers, and are a few hundred. */
export const MAX_HANDSHAKE_BYTES = 0x1_0000;
/** The greatest message, bytes: PostgreSQL builds each in one buffer, and no buffer of it exceeds 1 GiB. */
export const MAX_MESSAGE_BYTES = 0x4000_0000;
/** A longer message travels as fragments of this many bytes each, so that heartbeats pass between them. */
export const FRAGMENT_BYTES = 0x4_0000;

/** A heartbeat with its half of an exchange of clocks, bytes. */
export const HEARTBEAT_CLOCK_BYTES = 28;

/** The greatest payload of seen, bytes: more than two thousand nodes. */
export const MAX_SEEN_BYTES = 0x1_0000;

interface FrameLayout {
  /** The type byte; never reused for another frame. */
  readonly type: number;
  /** The shortest and longest payload, bytes. */
  readonly min: number;
  readonly max: number;
}

/** Type byte and payload bounds of each frame. */
export const FRAME_LAYOUT: Readonly<Record<Frame["kind"], FrameLayout>> = {
  hello: { type: 1, min: 2, max: MAX_HANDSHAKE_BYTES },
  welcome: { type: 2, min: 2, max: MAX_HANDSHAKE_BYTES },
  refusal: { type: 3, min: 2, max: MAX_HANDSHAKE_BYTES },
  data: { type: 4, min: MESSAGE_LENGTH_BYTES, max: MAX_FRAME_BYTES - 1 },
  fragment_start: { type: 5, min: 5, max: MAX_FRAME_BYTES - 1 },
  fragment: { type: 6, min: 1, max: MAX_FRAME_BYTES - 1 },
  ack: { type: 7, min: 8, max: 8 },
  heartbeat: { type: 8, min: 8, max: HEARTBEAT_CLOCK_BYTES },
  caught_up: { type: 9, min: 8, max: 8 },
  seen: { type: 10, min: 18, max: MAX_SEEN_BYTES },
  try_again: { type: 11, min: 1, max: 1 },
  want_row: { type: 12, min: 10, max: MAX_FRAME_BYTES - 1 },
  row: { type: 13, min: 5, max: MAX_FRAME_BYTES - 1 },
  passed: { type: 14, min: 8, max: 8 },
  call_back: { type: 15, min: 1, max: 1 },
};

const KIND_OF_TYPE = new Map(
  Object.entries(FRAME_LAYOUT).map(([kind, { type }]) => [type, kind as Frame["kind"]]),
);

/** Reads an unsigned 32-bit integer; the four bytes must be there. */
export function readUint32(bytes: Uint8Array, at: number): number {
  return ((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]) >>> 0;
}

/** The frame kind behind a type byte and length field; throws a `protocol` error unless both are in bounds. */
export function checkHeader(length: number, type: number): Frame["kind"] {
  const kind = KIND_OF_TYPE.get(type);
  if (kind === undefined) {
    throw new MmliteError("protocol", `Cannot read a frame: unknown type ${type} (length ${length})`);
  }
  const { min, max } = FRAME_LAYOUT[kind];
  if (length < min + 1 || length > max + 1) {
    const bounds = `length ${length} is outside ${min + 1} to ${max + 1} bytes`;
    throw new MmliteError("protocol", `Cannot read a ${kind} frame (type ${type}): ${bounds}`);
  }
  return kind;
}
