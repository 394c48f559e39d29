/**
 * JSON values in lines over a channel, and bytes between them. Empty lines are heartbeats: they go out at an interval,
 * and whoever waits and hears nothing at all takes the other end for gone.
 */
import { Buffer } from "node:buffer";
import { MmliteError } from "../errors.ts";
import type { Channel } from "./channel.ts";

/** Longest line, bytes: a quarter of a million rows and their keys. */
export const MAX_LINE_BYTES = 64 * 0x10_0000;
/** Each end sends an empty line this often, milliseconds. */
const BEAT_MS = 5_000;
/** Whoever waits and hears nothing this long breaks off, milliseconds. */
const SILENCE_MS = 25_000;
const LINE_END = 0x0a;

/** Both directions of a channel. */
export class Lines {
  /** Bytes that came and went. */
  bytes = 0;
  readonly #channel: Channel;
  readonly #chunks: AsyncIterator<Uint8Array>;
  readonly #beat: ReturnType<typeof setInterval>;
  #rest: Buffer = Buffer.alloc(0);
  #heardAt = performance.now();

  constructor(channel: Channel) {
    this.#channel = channel;
    this.#chunks = channel.incoming[Symbol.asyncIterator]();
    this.#beat = setInterval(() => void this.#send("\n").catch(() => {}), BEAT_MS);
  }

  /** Sends a value. */
  async write(value: unknown): Promise<void> {
    await this.#send(`${JSON.stringify(value)}\n`);
  }

  /** Sends a value and bytes right behind it, in pieces that must not change afterwards. */
  async writeWith(value: unknown, pieces: readonly Uint8Array[]): Promise<void> {
    // One after the other without a turn between them, or a heartbeat could come in between.
    await Promise.all([this.write(value), ...pieces.map((bytes) => this.#sendBytes(bytes))]);
  }

  /** The next `length` bytes as they came, at most {@link MAX_LINE_BYTES}; throws `protocol` where the channel ends before. */
  async readPieces(length: number): Promise<Uint8Array[]> {
    const pieces: Buffer[] = [];
    for (let missing = length; missing > 0;) {
      if (this.#rest.length === 0) {
        const chunk = await this.#chunk();
        if (chunk === undefined) throw this.#violation("fewer bytes than it had announced");
        this.#rest = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
      }
      const piece = this.#rest.subarray(0, missing);
      this.#rest = this.#rest.subarray(piece.length);
      pieces.push(piece);
      missing -= piece.length;
    }
    return pieces;
  }

  /** The next value; undefined at the end. Throws `unreachable` when the other end is gone, `protocol` for what is no JSON. */
  async read(): Promise<unknown> {
    for (;;) {
      const line = await this.#line();
      if (line === undefined) return undefined;
      if (line.length > 0) return this.#parse(line);
    }
  }

  /** Ends the heartbeat, and breaks the channel off. */
  close(): void {
    clearInterval(this.#beat);
    this.#channel.destroy();
  }

  /** Ends the channel once what was written has gone out. */
  async end(): Promise<void> {
    clearInterval(this.#beat);
    await this.#channel.end().catch(() => {});
    this.#channel.destroy();
  }

  async #send(text: string): Promise<void> {
    await this.#sendBytes(Buffer.from(text));
  }

  async #sendBytes(bytes: Uint8Array): Promise<void> {
    this.bytes += bytes.length;
    await this.#channel.write(bytes);
  }

  async #line(): Promise<Buffer | undefined> {
    const pieces: Buffer[] = [];
    for (let length = 0;;) {
      const end = this.#rest.indexOf(LINE_END);
      const piece = end < 0 ? this.#rest : this.#rest.subarray(0, end);
      this.#rest = end < 0 ? Buffer.alloc(0) : this.#rest.subarray(end + 1);
      pieces.push(piece);
      length += piece.length;
      if (length > MAX_LINE_BYTES) throw this.#violation(`a line of more than ${MAX_LINE_BYTES} bytes`);
      if (end >= 0) return Buffer.concat(pieces);
      const chunk = await this.#chunk();
      if (chunk === undefined && length > 0) throw this.#violation("a line that does not end");
      if (chunk === undefined) return undefined;
      this.#rest = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    }
  }

  async #chunk(): Promise<Uint8Array | undefined> {
    this.#heardAt = performance.now();
    const watch = setInterval(() => {
      if (performance.now() - this.#heardAt < SILENCE_MS) return;
      const why = `Cannot hear ${this.#channel.remote}: silent for ${SILENCE_MS / 1000} s`;
      this.#channel.destroy(new MmliteError("unreachable", why));
    }, BEAT_MS);
    try {
      const { value, done } = await this.#chunks.next();
      if (done) return undefined;
      this.bytes += value.length;
      return value;
    } finally {
      clearInterval(watch);
    }
  }

  #parse(line: Buffer): unknown {
    try {
      return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(line));
    } catch {
      throw this.#violation("a line that is no JSON");
    }
  }

  #violation(what: string): MmliteError {
    return new MmliteError("protocol", `Cannot go on with ${this.#channel.remote}: it sent ${what}`);
  }
}
