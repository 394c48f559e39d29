/**
 * The sender's hot path: pgoutput messages -> bytes of whole frames, one copy per byte and no object per message.
 *
 * A message longer than a fragment stays where it is until its fragments are drained, one copied at a time.
 */
import { Buffer } from "node:buffer";
import { copyWords, LastView, viewOf } from "../byte_words.ts";
import { MmliteError } from "../errors.ts";
import { writeHeader } from "./codec.ts";
import { FRAGMENT_BYTES, HEADER_BYTES, MAX_MESSAGE_BYTES, MESSAGE_LENGTH_BYTES } from "./layout.ts";

/** Drain a batch once it holds this many bytes: one HTTP/2 write of this size costs little more than a small one. */
export const BATCH_BYTES = 0x1_0000;

/** Frames are cut from slabs of this many bytes, so that an idle link's small frames cost no allocation each. */
const SLAB_BYTES = 0x4_0000;

/** Up to this many bytes are copied by words; a view and `set` take 40 ns, however few they are. */
const WORDS_BYTES = 96;

/** A finished frame, or a message to be cut into fragments. */
type Piece = { readonly frame: Uint8Array } | { readonly longMessage: Uint8Array };

/** Collects messages into frames; `drain` hands the frames over and leaves the batch empty. */
export class FrameBatch {
  #pieces: Piece[] = [];
  #piecesLength = 0;
  #slab: Buffer = Buffer.allocUnsafeSlow(SLAB_BYTES);
  #view: DataView = viewOf(this.#slab);
  readonly #source = new LastView();
  /** Where the open data frame begins and ends in the slab; no frame is open while they are equal. */
  #start = 0;
  #end = 0;

  /** Bytes waiting to be drained, headers of fragments left out. */
  get byteLength(): number {
    return this.#piecesLength + this.#end - this.#start;
  }

  /**
   * Adds the pgoutput message from `start` to `end` in `bytes`, the whole of them where left out. One longer than a
   * fragment must not change until it has been drained.
   */
  add(bytes: Uint8Array, start = 0, end: number = bytes.length): void {
    const length = end - start;
    if (length > FRAGMENT_BYTES) return this.#addLong(bytes.subarray(start, end));
    this.#reserve(MESSAGE_LENGTH_BYTES + length);
    this.#view.setUint32(this.#end, length);
    const at = this.#end + MESSAGE_LENGTH_BYTES;
    this.#end = at + length;
    if (length > WORDS_BYTES) this.#slab.set(bytes.subarray(start, end), at);
    else copyWords(this.#source.of(bytes), start, end, this.#view, at);
  }

  /** Adds a whole frame of another kind, behind the messages added so far. */
  addFrame(frame: Uint8Array): void {
    this.#closeFrame();
    this.#pieces.push({ frame });
    this.#piecesLength += frame.length;
  }

  /**
   * Takes everything collected, in order. Each item is the bytes of one whole frame, so that other frames (a
   * heartbeat) may be written between two; a fragment is made only when its turn comes.
   */
  drain(): Iterable<Uint8Array> {
    this.#closeFrame();
    const pieces = this.#pieces;
    this.#pieces = [];
    this.#piecesLength = 0;
    this.#source.clear();
    return framesOf(pieces);
  }

  /** Makes room for `length` bytes in the open frame, or in a new one. */
  #reserve(length: number): void {
    const header = this.#start === this.#end ? HEADER_BYTES : 0;
    if (this.#end + header + length > this.#slab.length) {
      this.#closeFrame();
      this.#slab = Buffer.allocUnsafeSlow(Math.max(SLAB_BYTES, HEADER_BYTES + length));
      this.#view = viewOf(this.#slab);
      this.#start = this.#end = 0;
    }
    if (this.#start === this.#end) this.#end += HEADER_BYTES;
  }

  #closeFrame(): void {
    if (this.#start === this.#end) return;
    writeHeader(this.#slab, this.#start, "data", this.#end - this.#start - HEADER_BYTES);
    const frame = this.#slab.subarray(this.#start, this.#end);
    this.#pieces.push({ frame });
    this.#piecesLength += frame.length;
    this.#start = this.#end;
  }

  #addLong(longMessage: Uint8Array): void {
    if (longMessage.length > MAX_MESSAGE_BYTES) {
      const why = `${longMessage.length} bytes are more than ${MAX_MESSAGE_BYTES}`;
      throw new MmliteError("internal", `Cannot send a message: ${why}`);
    }
    this.#closeFrame();
    this.#pieces.push({ longMessage });
    this.#piecesLength += longMessage.length;
  }
}

function* framesOf(pieces: readonly Piece[]): Generator<Uint8Array, void, undefined> {
  for (const piece of pieces) {
    if ("frame" in piece) yield piece.frame;
    else yield* fragmentsOf(piece.longMessage);
  }
}

function* fragmentsOf(message: Uint8Array): Generator<Uint8Array, void, undefined> {
  yield encodeFragmentStart(message);
  for (let at = FRAGMENT_BYTES; at < message.length; at += FRAGMENT_BYTES) {
    yield encodeFragment(message.subarray(at, at + FRAGMENT_BYTES));
  }
}

function encodeFragmentStart(message: Uint8Array): Uint8Array {
  const payloadLength = MESSAGE_LENGTH_BYTES + FRAGMENT_BYTES;
  const bytes = Buffer.allocUnsafeSlow(HEADER_BYTES + payloadLength);
  writeHeader(bytes, 0, "fragment_start", payloadLength);
  bytes.writeUInt32BE(message.length, HEADER_BYTES);
  bytes.set(message.subarray(0, FRAGMENT_BYTES), HEADER_BYTES + MESSAGE_LENGTH_BYTES);
  return bytes;
}

function encodeFragment(piece: Uint8Array): Uint8Array {
  const bytes = Buffer.allocUnsafeSlow(HEADER_BYTES + piece.length);
  writeHeader(bytes, 0, "fragment", piece.length);
  bytes.set(piece, HEADER_BYTES);
  return bytes;
}
