/**
 * Asks a sender for rows that it wrote and of which not all values came, and takes its answers.
 *
 * What is awaited stands in the database: a row is asked for again until its values are here.
 */
import { Buffer } from "node:buffer";
import { delay } from "../backoff.ts";
import { MmliteError } from "../errors.ts";
import { encodeFrame } from "../wire/codec.ts";
import type { RowPiece } from "../wire/frame.ts";
import { decodeRowAnswer, MAX_ROW_BYTES } from "../wire/row_frames.ts";
import type { TransactionSink, Unsent, WantedRow } from "./ports.ts";

/** Rows that are asked for at a time. */
const MAX_ASKED = 64;
/** How often rows are asked for again that the sender had not in a version that is here, milliseconds. */
const ASK_AGAIN_MS = 5_000;
/** Between two times of asking, milliseconds. */
const ASK_REST_MS = 50;

interface Ports {
  readonly unsent: Unsent;
  readonly sink: Pick<TransactionSink, "fetched">;
  /** This node's sender. */
  readonly sender: string;
  readonly write: (frame: Uint8Array) => Promise<void>;
}

/** Of one session. */
export class Questions {
  readonly #ports: Ports;
  readonly #asked = new Map<number, WantedRow>();
  #next = 0;
  /** Pieces of the answer that comes. */
  #pieces: Uint8Array[] = [];
  #length = 0;
  /** Whether there may be more than is asked for. */
  #more = false;
  #wake: () => void = () => {};

  constructor(ports: Ports) {
    this.#ports = ports;
  }

  /** Asks until the signal aborts; throws what reading or writing throws. */
  async run(signal: AbortSignal): Promise<void> {
    this.#ports.unsent.listen(() => this.#awaken(), signal);
    while (!signal.aborted) {
      const wake = new AbortController();
      this.#wake = () => wake.abort();
      if (this.#asked.size === 0) await this.#ask();
      await delay(ASK_AGAIN_MS, AbortSignal.any([signal, wake.signal]));
      await delay(ASK_REST_MS, signal);
    }
  }

  /** Takes a piece of an answer; throws `protocol` for one to nothing that was asked. */
  async take({ id, isLast, bytes }: RowPiece): Promise<void> {
    const row = this.#asked.get(id);
    if (row === undefined) throw this.#violation("a row that was not asked for");
    this.#length += bytes.length;
    if (this.#length > MAX_ROW_BYTES) throw this.#violation(`a row of more than ${MAX_ROW_BYTES} bytes`);
    this.#pieces.push(bytes);
    if (!isLast) return;
    const answer = decodeRowAnswer(Buffer.concat(this.#pieces));
    this.#pieces = [];
    this.#length = 0;
    this.#asked.delete(id);
    const { unsent, sink, sender } = this.#ports;
    // What another node wrote since comes from that one.
    if (answer.kind === "row" && answer.node === sender) await sink.fetched(row, answer);
    else await unsent.forget(row, answer.at, answer.kind === "withheld");
    if (this.#asked.size === 0 && this.#more) this.#wake();
  }

  #awaken(): void {
    this.#more = true;
    this.#wake();
  }

  async #ask(): Promise<void> {
    this.#more = false;
    const rows = await this.#ports.unsent.wanted(MAX_ASKED);
    this.#more ||= rows.length === MAX_ASKED;
    for (const row of rows) {
      const id = this.#next++;
      this.#asked.set(id, row);
      const { schema, name, key } = row;
      await this.#ports.write(encodeFrame({ kind: "want_row", id, schema, name, key }));
    }
  }

  #violation(what: string): MmliteError {
    return new MmliteError("protocol", `Cannot receive from "${this.#ports.sender}": it sent ${what}`);
  }
}
