/**
 * The sender's hot path: pgoutput messages -> bytes of data frames, one copy per byte and no object per message.
 *
 * A message longer than a fragment is not copied at all: its fragments are views of it.
 */
import { Buffer } from "node:buffer";
import { MmliteError } from "../errors.ts";
import { writeHeader } from "./codec.ts";
import { FRAGMENT_BYTES, HEADER_BYTES, MAX_MESSAGE_BYTES, MESSAGE_LENGTH_BYTES } from "./layout.ts";

/** Drain a batch once it holds this many bytes: one HTTP/2 write of this size costs little more than a small one. */
export const BATCH_BYTES = 0x1_0000;

/** Frames are cut from slabs of this many bytes, so that an idle link's small frames cost no allocation each. */
const SLAB_BYTES = 0x4_0000;

/** Collects messages into frames; `drain` hands the frames over and leaves the batch empty. */
export class FrameBatch {
  #ready: Uint8Array[] = [];
  #readyLength = 0;
  #slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
  /** Where the open data frame begins and ends in the slab; no frame is open while they are equal. */
  #start = 0;
  #end = 0;

  /** Bytes waiting to be drained. */
  get byteLength(): number {
    return this.#readyLength + this.#end - this.#start;
  }

  /** Adds a pgoutput message. A long one is kept as a view until drained and written: it must not change. */
  add(message: Uint8Array): void {
    if (message.length > FRAGMENT_BYTES) return this.#addFragments(message);
    this.#reserve(MESSAGE_LENGTH_BYTES + message.length);
    this.#slab.writeUInt32BE(message.length, this.#end);
    this.#slab.set(message, this.#end + MESSAGE_LENGTH_BYTES);
    this.#end += MESSAGE_LENGTH_BYTES + message.length;
  }

  /** Takes everything collected, in order, as pieces to be written one after the other. */
  drain(): Uint8Array[] {
    this.#closeFrame();
    const pieces = this.#ready;
    this.#ready = [];
    this.#readyLength = 0;
    return pieces;
  }

  /** Makes room for `length` bytes in the open frame, or in a new one. */
  #reserve(length: number): void {
    const header = this.#start === this.#end ? HEADER_BYTES : 0;
    if (this.#end + header + length > this.#slab.length) {
      this.#closeFrame();
      this.#slab = Buffer.allocUnsafeSlow(Math.max(SLAB_BYTES, HEADER_BYTES + length));
      this.#start = this.#end = 0;
    }
    if (this.#start === this.#end) this.#end += HEADER_BYTES;
  }

  #closeFrame(): void {
    if (this.#start === this.#end) return;
    writeHeader(this.#slab, this.#start, "data", this.#end - this.#start - HEADER_BYTES);
    this.#push(this.#slab.subarray(this.#start, this.#end));
    this.#start = this.#end;
  }

  #addFragments(message: Uint8Array): void {
    if (message.length > MAX_MESSAGE_BYTES) {
      const why = `${message.length} bytes are more than ${MAX_MESSAGE_BYTES}`;
      throw new MmliteError("internal", `Cannot send a message: ${why}`);
    }
    this.#closeFrame();
    this.#push(fragmentStartHeader(message.length));
    this.#push(message.subarray(0, FRAGMENT_BYTES));
    for (let at = FRAGMENT_BYTES; at < message.length; at += FRAGMENT_BYTES) {
      const fragment = message.subarray(at, at + FRAGMENT_BYTES);
      this.#push(fragmentHeader(fragment.length));
      this.#push(fragment);
    }
  }

  #push(piece: Uint8Array): void {
    this.#ready.push(piece);
    this.#readyLength += piece.length;
  }
}

function fragmentStartHeader(totalLength: number): Uint8Array {
  const header = Buffer.allocUnsafe(HEADER_BYTES + MESSAGE_LENGTH_BYTES);
  writeHeader(header, 0, "fragment_start", MESSAGE_LENGTH_BYTES + FRAGMENT_BYTES);
  header.writeUInt32BE(totalLength, HEADER_BYTES);
  return header;
}

function fragmentHeader(length: number): Uint8Array {
  const header = Buffer.allocUnsafe(HEADER_BYTES);
  writeHeader(header, 0, "fragment", length);
  return header;
}
