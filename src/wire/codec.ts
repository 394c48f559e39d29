/**
 * Single frames <-> bytes. Layout: `docs/PROTOCOL.md` section 4.
 *
 * The hot path of the sender is `frame_batch.ts`; streams are cut into frames by `frame_decoder.ts`.
 */
import { Buffer } from "node:buffer";
import { MmliteError } from "../errors.ts";
import { type Lsn, toLsn } from "../lsn.ts";
import type { Ack, CaughtUp, Data, Fragment, FragmentStart, Frame, Heartbeat } from "./frame.ts";
import { decodeHandshake, encodeHandshake } from "./handshake.ts";
import {
  FRAME_LAYOUT,
  HEADER_BYTES,
  LENGTH_BYTES,
  MAX_FRAME_BYTES,
  MAX_MESSAGE_BYTES,
  MESSAGE_LENGTH_BYTES,
} from "./layout.ts";
import { MessageCursor } from "./message_cursor.ts";
import { decodeRowPiece, decodeWantRow, encodeRowPiece, encodeWantRow } from "./row_frames.ts";

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
      return encode64((buffer) => buffer.writeBigInt64BE(frame.sentAt));
    case "caught_up":
      return encode64((buffer) => buffer.writeBigInt64BE(frame.committedBefore));
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
      return { kind, sentAt: viewOf(payload).getBigInt64(0) } satisfies Heartbeat;
    case "caught_up":
      return { kind, committedBefore: viewOf(payload).getBigInt64(0) } satisfies CaughtUp;
    case "want_row":
      return decodeWantRow(payload);
    case "row":
      return decodeRowPiece(payload);
  }
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
