/**
 * Whole pgoutput messages as places in the chunks that they came in: three numbers' worth a message, no object.
 *
 * A view of each message would cost more than all that is done with a short one between two sockets.
 */

/** Messages in order. The bytes behind them do not change for as long as the batch is used. */
export class MessageBatch {
  readonly #chunks: Uint8Array[] = [];
  readonly #starts: number[] = [];
  readonly #ends: number[] = [];
  #byteLength = 0;

  /** How many messages there are. */
  get length(): number {
    return this.#chunks.length;
  }

  /** Bytes of all messages together. */
  get byteLength(): number {
    return this.#byteLength;
  }

  /** Appends the message from `start` to `end` in `bytes`, the whole of them where left out. */
  add(bytes: Uint8Array, start = 0, end: number = bytes.length): void {
    this.#chunks.push(bytes);
    this.#starts.push(start);
    this.#ends.push(end);
    this.#byteLength += end - start;
  }

  /** What the message at `index` lies in, from {@link start} to {@link end}; for indexes below `length` only. */
  bytes(index: number): Uint8Array {
    return this.#chunks[index];
  }

  /** Where the message at `index` begins in its bytes. */
  start(index: number): number {
    return this.#starts[index];
  }

  /** Where it ends. */
  end(index: number): number {
    return this.#ends[index];
  }
}
