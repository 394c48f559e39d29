/**
 * Answers to a receiver that asks for rows: one after the other, beside what is pushed.
 */
import { MmliteError, toMmliteError } from "../errors.ts";
import { encodeFrame } from "../wire/codec.ts";
import type { WantRow } from "../wire/frame.ts";
import { FRAGMENT_BYTES } from "../wire/layout.ts";
import { encodeRowAnswer, type RowAnswer } from "../wire/row_frames.ts";

/** Rows that wait for their answers, at most: a receiver asks for 64 at a time. */
const MAX_WAITING = 256;

interface Ports {
  readonly readRow: (want: WantRow) => Promise<RowAnswer>;
  readonly write: (frame: Uint8Array) => Promise<void>;
}

/** Of one session. */
export class Answers {
  /** Rejects when answering has failed; never resolves. */
  readonly failed: Promise<never>;
  readonly #ports: Ports;
  readonly #reject: (error: MmliteError) => void;
  #waiting: WantRow[] = [];
  #answering = false;
  #closed = false;

  constructor(ports: Ports) {
    this.#ports = ports;
    const { promise, reject } = Promise.withResolvers<never>();
    promise.catch(() => {});
    this.failed = promise;
    this.#reject = reject;
  }

  /** Takes a question; throws `protocol` where too many wait. */
  offer(want: WantRow): void {
    if (this.#waiting.length >= MAX_WAITING) {
      throw new MmliteError("protocol", `Cannot go on: the receiver asks for more than ${MAX_WAITING} rows`);
    }
    this.#waiting.push(want);
    if (!this.#answering) void this.#answer();
  }

  /** Answers nothing any more. */
  close(): void {
    this.#closed = true;
    this.#waiting = [];
  }

  async #answer(): Promise<void> {
    this.#answering = true;
    try {
      for (let want = this.#waiting.shift(); want !== undefined; want = this.#waiting.shift()) {
        const bytes = encodeRowAnswer(await this.#ports.readRow(want));
        for (let at = 0; at < bytes.length && !this.#closed; at += FRAGMENT_BYTES) {
          const piece = bytes.subarray(at, at + FRAGMENT_BYTES);
          const isLast = at + FRAGMENT_BYTES >= bytes.length;
          await this.#ports.write(encodeFrame({ kind: "row", id: want.id, isLast, bytes: piece }));
        }
      }
    } catch (thrown) {
      this.#reject(toMmliteError(thrown));
    } finally {
      this.#answering = false;
    }
  }
}
