/**
 * One `Channel` over one HTTP/2 stream, the same at both ends.
 *
 * Flow control reaches end to end: what is not read stays in the window, a full window holds `write` back.
 */
import type { Http2Stream } from "node:http2";
import { constants } from "node:http2";
import type { Socket } from "node:net";
import { MmliteError } from "../errors.ts";
import type { Channel, ProvenPeer } from "../wire/channel.ts";
import type { Connection } from "./connection.ts";
import { LINGER_MS } from "./session_options.ts";

/** Bytes handed to the stream and not yet taken by the window before `write` waits. */
const SEND_QUEUE_BYTES = 0x8_0000;
/** A longer write goes out in slices of this many bytes, so that the stream never queues more than a few. */
const SLICE_BYTES = 0x4_0000;

/** Made by `Connection.open`. */
export class StreamChannel implements Channel {
  readonly remote: string;
  readonly peer: ProvenPeer | null;
  readonly incoming: AsyncIterable<Uint8Array>;
  readonly #stream: Http2Stream;
  readonly #connection: Connection;
  /** Why the stream broke, if somebody said it. */
  #reason: Error | undefined;
  #isDestroyed = false;
  #queued = 0;
  /** Wakes the one write that waits for room. */
  #wake: () => void = () => {};
  /** Wakes `end`. */
  #ended: () => void = () => {};
  /** Settles when all earlier writes have been queued: writes never interleave. */
  #turn: Promise<void> = Promise.resolve();

  constructor(stream: Http2Stream, connection: Connection) {
    this.#stream = stream;
    this.#connection = connection;
    this.remote = connection.remote;
    this.peer = connection.peer;
    this.incoming = this.#read();
    stream.on("error", (error) => this.#reason ??= error);
    stream.on("close", () => this.#wake());
  }

  write(bytes: Uint8Array): Promise<void> {
    const written = this.#turn.then(() => this.#writeSlices(bytes));
    this.#turn = written.catch(() => {});
    return written;
  }

  async #writeSlices(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; at += SLICE_BYTES) {
      if (this.#isDestroyed || !this.#stream.writable) throw this.#broken("write to");
      this.#queue(bytes.subarray(at, at + SLICE_BYTES));
      while (this.#queued >= SEND_QUEUE_BYTES) await this.#room();
    }
  }

  #queue(slice: Uint8Array): void {
    this.#queued += slice.length;
    // Called with an error too; the next write reports it.
    this.#stream.write(slice, () => {
      this.#queued -= slice.length;
      this.#wake();
    });
  }

  async #room(): Promise<void> {
    if (this.#stream.destroyed || this.#isDestroyed) throw this.#broken("write to");
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    await promise;
  }

  async *#read(): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      for await (const chunk of this.#stream.iterator({ destroyOnReturn: false })) {
        if (this.#isDestroyed) break;
        yield chunk;
      }
    } catch (error) {
      if (error instanceof Error) this.#reason ??= error;
      throw this.#broken("read from");
    }
    // A reset stream ends like one that was ended, but for its code.
    if (this.#isDestroyed || this.#stream.rstCode !== constants.NGHTTP2_NO_ERROR) {
      throw this.#broken("read from");
    }
  }

  async end(): Promise<void> {
    await this.#turn;
    if (this.#isDestroyed) throw this.#broken("end");
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#ended = resolve;
    // On Deno a stream that the other end resets while a write is under way may neither finish nor close.
    const timer = setTimeout(resolve, LINGER_MS);
    this.#stream.once("close", resolve).end(resolve);
    await promise;
    clearTimeout(timer);
    if (!this.#stream.writableFinished) throw this.#broken("end");
  }

  destroy(reason?: Error): void {
    if (this.#isDestroyed || this.#stream.destroyed) return;
    this.#isDestroyed = true;
    this.#reason ??= reason;
    if (this.#stream.writableFinished) return this.#letGo();
    this.#reset();
    this.#connection.abandon(this, reason);
    this.#wake();
    this.#ended();
  }

  #reset(): void {
    // Node.js ends a stream before it resets it, and the other end would take that for a clean end.
    this.#stream.end = () => this.#stream;
    this.#stream.close(constants.NGHTTP2_CANCEL);
  }

  /**
   * Gives the incoming direction up after ours has ended, and waits for the other end to close. Closing first,
   * with bytes unread, makes TCP throw away what we sent last, and that says why we end (a refusal).
   */
  #letGo(): void {
    this.#stream.resume();
    const timer = setTimeout(() => {
      this.#stream.close(constants.NGHTTP2_CANCEL);
      this.#connection.abandon(this, undefined);
    }, LINGER_MS);
    this.#stream.once("close", () => clearTimeout(timer));
  }

  #broken(verb: string): MmliteError {
    const reason = this.#reason instanceof MmliteError
      ? this.#reason
      : this.#connection.reason ?? this.#reason;
    if (reason instanceof MmliteError) return reason;
    const why = reason?.message ?? `the connection is closed (code ${this.#stream.rstCode ?? "none"})`;
    return new MmliteError("unreachable", `Cannot ${verb} ${this.remote}: ${why}`, { cause: reason });
  }
}

/** Where the other end of a socket is, as `host:port`; IPv6 addresses in brackets. */
export function remoteOf(socket: Socket): string {
  const address = (socket.remoteAddress ?? "unknown").replace(/^::ffff:(?=\d+\.)/, "");
  return formatHostPort(address, socket.remotePort ?? 0);
}

/** `host:port`, with an IPv6 address in brackets. */
export function formatHostPort(host: string, port: number): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}
