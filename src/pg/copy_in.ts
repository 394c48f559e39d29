/**
 * `COPY … FROM STDIN` on a connection of the driver, from pieces of bytes that are written to its socket as they are.
 */
import { Buffer } from "node:buffer";
import type pg from "pg";
import { type Client, clientConnection } from "./client.ts";
import { BACKEND_MESSAGE, HEADER_BYTES } from "./copy_both.ts";

/** Bytes that follow a type byte at least: the length itself. */
const LENGTH_BYTES = 4;
const COPY_DONE = Buffer.from([BACKEND_MESSAGE.copyDone, 0, 0, 0, LENGTH_BYTES]);

/** One COPY under way. */
export class CopyIn {
  readonly #socket: pg.Connection["stream"];
  readonly #ready = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<number>();
  #failure: Error | undefined;
  #rows = 0;
  #wake = () => {};

  private constructor(client: Client, sql: string) {
    this.#socket = clientConnection(client).stream;
    this.#ready.promise.catch(() => {});
    this.#ended.promise.catch(() => {});
    this.#socket.on("drain", this.#drained);
    // The driver calls these by name: its own name for such an object is Submittable.
    client.query({
      submit: (connection: pg.Connection) => void connection.query(sql),
      handleCopyInResponse: () => this.#ready.resolve(),
      handleCommandComplete: ({ text }: { readonly text: string }) => {
        this.#rows = Number(/^COPY (\d+)/.exec(text)?.[1] ?? 0);
      },
      handleReadyForQuery: () => this.#end(),
      handleError: (error: Error) => this.#end(error),
    });
  }

  /** Begins a COPY; resolves once the server takes rows. */
  static async begin(client: Client, sql: string): Promise<CopyIn> {
    const copy = new CopyIn(client, sql);
    await copy.#ready.promise;
    return copy;
  }

  /** Takes the next bytes, of which there are fewer than 1 GiB; resolves once there is room for more. */
  async write(pieces: readonly Uint8Array[]): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
    const header = Buffer.alloc(HEADER_BYTES, BACKEND_MESSAGE.copyData);
    header.writeUInt32BE(length + LENGTH_BYTES, 1);
    // One call of the system for all.
    this.#socket.cork();
    let hasRoom = this.#socket.write(header);
    for (const piece of pieces) hasRoom = this.#socket.write(piece);
    this.#socket.uncork();
    if (hasRoom) return;
    await new Promise<void>((resolve) => this.#wake = resolve);
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Ends it; returns how many rows there were. */
  async end(): Promise<number> {
    if (this.#failure !== undefined) throw this.#failure;
    this.#socket.write(COPY_DONE);
    return await this.#ended.promise;
  }

  readonly #drained = () => this.#wake();

  #end(error?: Error): void {
    this.#socket.off("drain", this.#drained);
    this.#failure ??= error;
    if (this.#failure === undefined) this.#ended.resolve(this.#rows);
    else {
      this.#ready.reject(this.#failure);
      this.#ended.reject(this.#failure);
    }
    this.#wake();
  }
}
