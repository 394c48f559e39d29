/**
 * Single frames <-> bytes. Layout: `docs/PROTOCOL.md` section 4.
 *
 * The hot path of the sender is `frame_batch.ts`; streams are cut into frames by `frame_decoder.ts`.
 */
import { Buffer } from "node:buffer";
import { MmliteError } from "../errors.ts";
import { type Lsn, toLsn } from "../lsn.ts";
import type { SeenNode } from "../seen_versions.ts";
import type {
  Ack,
  CallBack,
  CaughtUp,
  Data,
  Fragment,
  FragmentStart,
  Frame,
  Heartbeat,
  Passed,
  Seen,
  TryAgain,
} from "./frame.ts";
import { decodeHandshake, encodeHandshake } from "./handshake.ts";
import {
  FRAME_LAYOUT,
  HEADER_BYTES,
  HEARTBEAT_CLOCK_BYTES,
  LENGTH_BYTES,
  MAX_FRAME_BYTES,
  MAX_MESSAGE_BYTES,
  MESSAGE_LENGTH_BYTES,
} from "./layout.ts";
import { MessageCursor } from "./message_cursor.ts";
import { decodeRowPiece, decodeWantRow, encodeRowPiece, encodeWantRow } from "./row_frames.ts";

/** Position and time of a node in a seen frame. */
const SEEN_VALUES_BYTES = 16;

/** A frame as bytes, header included; throws `internal` for one beyond the bounds. */
export function encodeFrame(frame: Frame): Uint8Array {
  const payload = encodePayload(frame);
  if (payload.length >= MAX_FRAME_BYTES) {
    const why = `${payload.length} bytes do not fit in ${MAX_FRAME_BYTES}`;
    throw new MmliteError("internal", `Cannot write a ${frame.kind} frame: ${why}`);
  }
  const bytes = Buffer.allocUnsafe(HEADER_BYTES + payload.length);
  writeHeader(bytes, 0, frame.kind, payload.length);
  bytes.set(payload, HEADER_BYTES);
  return bytes;
}

/** Writes the header of a frame whose payload takes `payloadLength` bytes. */
export function writeHeader(into: Buffer, at: number, kind: Frame["kind"], payloadLength: number): void {
  into.writeUInt32BE(payloadLength + 1, at);
  into[at + LENGTH_BYTES] = FRAME_LAYOUT[kind].type;
}

function encodePayload(frame: Frame): Uint8Array {
  switch (frame.kind) {
    case "hello":
    case "welcome":
    case "refusal":
      return encodeHandshake(frame);
    case "data":
      return frame.payload;
    case "fragment_start":
      return encodeFragmentStart(frame);
    case "fragment":
      return frame.bytes;
    case "ack":
      return encode64((buffer) => buffer.writeBigUInt64BE(frame.endLsn));
    case "heartbeat":
      return encodeHeartbeat(frame);
    case "caught_up":
      return encode64((buffer) => buffer.writeBigInt64BE(frame.committedBefore));
    case "passed":
      return encode64((buffer) => buffer.writeBigUInt64BE(frame.walLsn));
    case "seen":
      return encodeSeen(frame);
    case "try_again":
    case "call_back":
      return new Uint8Array(1);
    case "want_row":
      return encodeWantRow(frame);
    case "row":
      return encodeRowPiece(frame);
  }
}

function encodeFragmentStart(frame: FragmentStart): Uint8Array {
  return Buffer.concat([encode32(frame.totalLength), frame.bytes]);
}

function encode32(value: number): Buffer {
  const buffer = Buffer.allocUnsafe(4);
  buffer.writeUInt32BE(value);
  return buffer;
}

function encode64(write: (into: Buffer) => void): Buffer {
  const buffer = Buffer.allocUnsafe(8);
  write(buffer);
  return buffer;
}

/**
 * The frame of this kind in `payload`, which `checkHeader` has found to be of a possible length.
 *
 * Bytes inside the frame are views into `payload`. Throws a `protocol` error for anything malformed.
 */
export function decodePayload(kind: Frame["kind"], payload: Uint8Array): Frame {
  switch (kind) {
    case "hello":
    case "welcome":
    case "refusal":
      return decodeHandshake(kind, payload);
    case "data":
      return decodeData(payload);
    case "fragment_start":
      return decodeFragmentStart(payload);
    case "fragment":
      return { kind, bytes: payload } satisfies Fragment;
    case "ack":
      return { kind, endLsn: decodeLsn(payload) } satisfies Ack;
    case "heartbeat":
      return decodeHeartbeat(payload);
    case "caught_up":
      return { kind, committedBefore: viewOf(payload).getBigInt64(0) } satisfies CaughtUp;
    case "passed":
      return { kind, walLsn: decodeLsn(payload) } satisfies Passed;
    case "seen":
      return decodeSeen(payload);
    case "try_again":
    case "call_back":
      return { kind } satisfies TryAgain | CallBack;
    case "want_row":
      return decodeWantRow(payload);
    case "row":
      return decodeRowPiece(payload);
  }
}

/** Of an echo that there is none of, all bits of its time are zero: nobody's clock shows 1970. */
function encodeHeartbeat({ sentAt, clock }: Heartbeat): Uint8Array {
  if (clock === undefined) return encode64((buffer) => buffer.writeBigInt64BE(sentAt));
  const buffer = Buffer.alloc(HEARTBEAT_CLOCK_BYTES);
  buffer.writeBigInt64BE(sentAt, 0);
  buffer.writeUInt32BE(clock.uncertainty, 8);
  buffer.writeBigInt64BE(clock.echo?.sentAt ?? 0n, 12);
  buffer.writeBigUInt64BE(clock.echo?.heldFor ?? 0n, 20);
  return buffer;
}

function decodeHeartbeat(payload: Uint8Array): Heartbeat {
  const view = viewOf(payload);
  const sentAt = view.getBigInt64(0);
  if (payload.length === 8) return { kind: "heartbeat", sentAt };
  if (payload.length !== HEARTBEAT_CLOCK_BYTES) {
    const bounds = `${payload.length} bytes are neither 8 nor ${HEARTBEAT_CLOCK_BYTES}`;
    throw new MmliteError("protocol", `Cannot read a heartbeat frame: ${bounds}`);
  }
  const echoed = view.getBigInt64(12);
  const echo = echoed === 0n ? null : { sentAt: echoed, heldFor: view.getBigUint64(20) };
  return { kind: "heartbeat", sentAt, clock: { uncertainty: view.getUint32(8), echo } };
}

function encodeSeen({ nodes }: Seen): Uint8Array {
  return Buffer.concat(nodes.map(({ node, position, timestamp }) => {
    const name = Buffer.from(node, "utf8");
    const bytes = Buffer.allocUnsafe(1 + name.length + SEEN_VALUES_BYTES);
    bytes.writeUInt8(name.length, 0);
    bytes.set(name, 1);
    bytes.writeBigUInt64BE(position, 1 + name.length);
    bytes.writeBigInt64BE(timestamp, 1 + name.length + 8);
    return bytes;
  }));
}

function decodeSeen(payload: Uint8Array): Seen {
  const view = viewOf(payload);
  const nodes: SeenNode[] = [];
  for (let at = 0; at < payload.length;) {
    const values = at + 1 + payload[at];
    if (payload[at] === 0 || values + SEEN_VALUES_BYTES > payload.length) {
      throw new MmliteError("protocol", `Cannot read a seen frame: a node of it does not fit at ${at}`);
    }
    const node = Buffer.from(payload.subarray(at + 1, values)).toString("utf8");
    nodes.push({ node, position: toLsn(view.getBigUint64(values)), timestamp: view.getBigInt64(values + 8) });
    at = values + SEEN_VALUES_BYTES;
  }
  return { kind: "seen", nodes };
}

/** Walks over the messages once, so that none of a frame is taken whose last runs past its end. */
function decodeData(payload: Uint8Array): Data {
  const cursor = new MessageCursor(payload);
  while (cursor.next());
  return { kind: "data", payload };
}

function decodeFragmentStart(payload: Uint8Array): FragmentStart {
  const totalLength = viewOf(payload).getUint32(0);
  const bytes = payload.subarray(MESSAGE_LENGTH_BYTES);
  if (totalLength > MAX_MESSAGE_BYTES || totalLength <= bytes.length) {
    const bounds = `a message of ${totalLength} bytes is outside ${bytes.length + 1} to ${MAX_MESSAGE_BYTES}`;
    throw new MmliteError("protocol", `Cannot read a fragment_start frame: ${bounds}`);
  }
  return { kind: "fragment_start", totalLength, bytes };
}

function decodeLsn(payload: Uint8Array): Lsn {
  return toLsn(viewOf(payload).getBigUint64(0));
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
