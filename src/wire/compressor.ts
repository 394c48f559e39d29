/**
 * The sending end of a compressed stream: frame after frame, each sent whole before the next is compressed.
 */
import { MmliteError } from "../errors.ts";
import { type Compression, createCompressor, type ZlibStream } from "./compression.ts";

/** Sends bytes; resolves once there is room for more. */
type Send = (bytes: Uint8Array) => Promise<void>;

/** Where a pusher writes its frames after the handshake. */
export interface FrameWriter {
  /** Sends a frame; frames that are written at a time go one after the other. Throws what sending throws. */
  write(frame: Uint8Array): Promise<void>;
  /** Frees what compression holds; a write after that throws `unreachable`. Idempotent. */
  close(): void;
}

/** A writer that passes everything on to `send`, compressed unless that is null. */
export function openFrameWriter(send: Send, compression: Compression | null): FrameWriter {
  return compression === null ? { write: send, close: () => {} } : new Compressor(send, compression);
}

class Compressor implements FrameWriter {
  readonly #send: Send;
  readonly #stream: ZlibStream;
  /** What came out and was not sent yet. */
  #pieces: Uint8Array[] = [];
  /** Settles when all earlier frames have been sent. */
  #turn: Promise<void> = Promise.resolve();
  /** Ends the frame that is being compressed when the stream is closed. */
  #interrupt: () => void = () => {};

  constructor(send: Send, compression: Compression) {
    this.#send = send;
    this.#stream = createCompressor(compression);
    this.#stream.on("data", (piece: Uint8Array) => void this.#pieces.push(piece));
    // The callback of the write gets the same error.
    this.#stream.on("error", () => {});
    this.#stream.on("close", () => this.#interrupt());
  }

  write(frame: Uint8Array): Promise<void> {
    const written = this.#turn.then(() => this.#compress(frame));
    this.#turn = written.catch(() => {});
    return written;
  }

  async #compress(frame: Uint8Array): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const closed = () =>
      reject(new MmliteError("unreachable", "Cannot compress a frame: the stream is closed"));
    if (this.#stream.destroyed) closed();
    else {
      this.#interrupt = closed;
      this.#stream.write(frame, (error) => error ? reject(error) : resolve());
    }
    await promise;
    for (const piece of this.#pieces.splice(0)) await this.#send(piece);
  }

  close(): void {
    this.#stream.destroy();
  }
}
