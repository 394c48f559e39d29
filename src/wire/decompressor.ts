/**
 * The receiving end of a compressed stream: chunks as they arrive -> chunks of what was compressed.
 *
 * What is read is all that is decompressed: a stream that grows a thousandfold waits, in a bounded buffer, like any
 * other that arrives faster than it is applied.
 */
import { MmliteError } from "../errors.ts";
import { type Compression, createDecompressor, type ZlibStream } from "./compression.ts";

/** Chunks to be read one by one, and to be closed when no more are wanted. */
export interface ChunkReader {
  /** The next chunk, or `done` at the end. To be called again only once it has settled. */
  next(): Promise<IteratorResult<Uint8Array, void>>;
  /** Frees what decompression holds; does not touch where the chunks come from. Idempotent. */
  close(): void;
}

/**
 * Reads `chunks`, decompressed unless that is null. Throws what reading them throws, and `protocol` for bytes that
 * are not what `compression` makes or that want more memory than it may take; `remote` is for its message.
 */
export function openChunkReader(
  chunks: AsyncIterator<Uint8Array, void>,
  { compression, remote }: { compression: Compression | null; remote: string },
): ChunkReader {
  if (compression === null) return { next: () => chunks.next(), close: () => {} };
  return new Decompressor(chunks, { compression, remote });
}

const ENDED = "the compressed stream ended before the connection";

class Decompressor implements ChunkReader {
  readonly #chunks: AsyncIterator<Uint8Array, void>;
  readonly #remote: string;
  readonly #compression: Compression;
  readonly #stream: ZlibStream;
  /** A chunk was given to the stream that has not come out whole. */
  #isBusy = false;
  /** Bytes given to the stream. */
  #given = 0;
  /** Why nothing more can come out, once that is so. */
  #failure: string | undefined;
  #wake: () => void = () => {};

  constructor(
    chunks: AsyncIterator<Uint8Array, void>,
    { compression, remote }: { compression: Compression; remote: string },
  ) {
    this.#chunks = chunks;
    this.#compression = compression;
    this.#remote = remote;
    this.#stream = createDecompressor(compression);
    this.#stream
      .on("readable", () => this.#wake())
      .on("error", (error) => this.#fail(error.message))
      .on("end", () => this.#fail(ENDED));
  }

  async next(): Promise<IteratorResult<Uint8Array, void>> {
    for (;;) {
      const piece: Uint8Array | null = this.#stream.read();
      if (piece !== null) return { value: piece, done: false };
      if (this.#failure !== undefined) throw this.#broken(this.#failure);
      if (this.#isBusy) await new Promise<void>((resolve) => void (this.#wake = resolve));
      else {
        const { value, done } = await this.#chunks.next();
        if (done) return { value: undefined, done };
        this.#give(value);
      }
    }
  }

  #give(chunk: Uint8Array): void {
    this.#isBusy = true;
    this.#given += chunk.length;
    this.#stream.write(chunk, (error) => {
      if (error) return this.#fail(error.message);
      // Some runtimes pass over what follows the end without a word.
      if (this.#stream.bytesWritten < this.#given) return this.#fail(ENDED);
      this.#isBusy = false;
      this.#wake();
    });
  }

  #fail(why: string): void {
    this.#failure ??= why;
    this.#wake();
  }

  #broken(why: string): MmliteError {
    const what = `what ${this.#remote} sends in ${this.#compression}`;
    return new MmliteError("protocol", `Cannot decompress ${what}: ${why}`);
  }

  close(): void {
    this.#fail("it is closed");
    this.#stream.destroy();
  }
}
