/**
 * A stream's chunks -> frames, however the stream was chopped; and fragments -> the message they are pieces of.
 *
 * A frame inside one chunk is viewed, not copied; one that spans chunks is gathered into bytes of its own, so
 * that views in frames stay valid for as long as they are held.
 */
import { Buffer } from "node:buffer";
import { MmliteError } from "../errors.ts";
import { decodePayload } from "./codec.ts";
import type { Fragment, FragmentStart, Frame } from "./frame.ts";
import { checkHeader, HEADER_BYTES, LENGTH_BYTES, readUint32 } from "./layout.ts";

/** A frame of which the header has been read and a part of the payload is missing. */
interface OpenFrame {
  readonly kind: Frame["kind"];
  readonly payload: Uint8Array;
  filled: number;
}

/** Cuts a stream into frames. After an error it is of no further use. */
export class FrameDecoder {
  readonly #header = Buffer.alloc(HEADER_BYTES);
  #headerFilled = 0;
  #open: OpenFrame | null = null;

  /** The frames that the `received` bytes complete; throws a `protocol` error for bytes that are not a frame. */
  push(received: Uint8Array): Frame[] {
    const chunk = plainView(received);
    const frames: Frame[] = [];
    let at = 0;
    while (at < chunk.length) {
      if (this.#open !== null) at = this.#fillPayload(this.#open, chunk, at, frames);
      else if (this.#headerFilled > 0 || chunk.length - at < HEADER_BYTES) at = this.#fillHeader(chunk, at);
      else at = this.#takeFrame(chunk, at, frames);
    }
    return frames;
  }

  /** To be called at the end of the stream; throws a `protocol` error if that is inside a frame. */
  finish(): void {
    if (this.#open !== null) {
      const { kind, filled, payload } = this.#open;
      throw endInside(`a ${kind} frame: ${filled} of ${payload.length} payload bytes`);
    }
    if (this.#headerFilled > 0) {
      throw endInside(`a frame: ${this.#headerFilled} of ${HEADER_BYTES} header bytes`);
    }
  }

  /** Reads a frame whose header lies whole at `at`; returns where it ends in the chunk. */
  #takeFrame(chunk: Uint8Array, at: number, frames: Frame[]): number {
    const length = readUint32(chunk, at);
    const kind = checkHeader(length, chunk[at + LENGTH_BYTES]);
    const end = at + LENGTH_BYTES + length;
    const start = at + HEADER_BYTES;
    if (end <= chunk.length) {
      frames.push(decodePayload(kind, chunk.subarray(start, end)));
      return end;
    }
    this.#openFrame(kind, length);
    return start;
  }

  #fillHeader(chunk: Uint8Array, at: number): number {
    const end = Math.min(chunk.length, at + HEADER_BYTES - this.#headerFilled);
    this.#header.set(chunk.subarray(at, end), this.#headerFilled);
    this.#headerFilled += end - at;
    if (this.#headerFilled === HEADER_BYTES) {
      this.#headerFilled = 0;
      const length = readUint32(this.#header, 0);
      this.#openFrame(checkHeader(length, this.#header[LENGTH_BYTES]), length);
    }
    return end;
  }

  /** Every payload has at least one byte, so an open frame is always completed by a later one. */
  #openFrame(kind: Frame["kind"], length: number): void {
    this.#open = { kind, payload: plainView(Buffer.allocUnsafeSlow(length - 1)), filled: 0 };
  }

  #fillPayload(open: OpenFrame, chunk: Uint8Array, at: number, frames: Frame[]): number {
    const end = Math.min(chunk.length, at + open.payload.length - open.filled);
    open.payload.set(chunk.subarray(at, end), open.filled);
    open.filled += end - at;
    if (open.filled === open.payload.length) {
      this.#open = null;
      frames.push(decodePayload(open.kind, open.payload));
    }
    return end;
  }
}

/** A Buffer as a plain Uint8Array: views of it, one for each frame and value, cost less. */
function plainView(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function endInside(what: string): MmliteError {
  return new MmliteError("protocol", `Cannot read on: the stream ended inside ${what} had arrived`);
}

/** Puts fragments together: memory for the message is taken once, when its first piece arrives. */
export class MessageAssembler {
  #message: Buffer | null = null;
  #filled = 0;

  /** Takes the next piece; returns the whole message with its last one, and null before. Throws `protocol`. */
  push(frame: FragmentStart | Fragment): Uint8Array | null {
    const message = frame.kind === "fragment_start" ? this.#begin(frame) : this.#message;
    if (message === null) {
      throw new MmliteError("protocol", "Cannot read a fragment frame: no message was begun");
    }
    if (this.#filled + frame.bytes.length > message.length) {
      const sum = this.#filled + frame.bytes.length;
      throw new MmliteError(
        "protocol",
        `Cannot read a fragment frame: ${sum} bytes for a message of ${message.length}`,
      );
    }
    message.set(frame.bytes, this.#filled);
    this.#filled += frame.bytes.length;
    if (this.#filled < message.length) return null;
    this.#message = null;
    return message;
  }

  #begin(frame: FragmentStart): Buffer {
    if (this.#message !== null) throw this.#unfinished(frame.kind);
    this.#filled = 0;
    return this.#message = Buffer.allocUnsafeSlow(frame.totalLength);
  }

  /** Throws a `protocol` error if a message is incomplete, for a `kind` that cannot come in its middle. */
  assertWhole(kind: Frame["kind"]): void {
    if (this.#message !== null) throw this.#unfinished(kind);
  }

  #unfinished(kind: Frame["kind"]): MmliteError {
    const state = `${this.#filled} of ${this.#message?.length} bytes of a message have arrived`;
    return new MmliteError("protocol", `Cannot read a ${kind} frame: only ${state}`);
  }
}
