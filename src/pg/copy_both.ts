/**
 * The backend's byte stream cut into messages, for a connection in copy-both mode.
 *
 * Each message is one type byte, a 32-bit big-endian length that counts itself, and the body
 * (https://www.postgresql.org/docs/current/protocol-message-formats.html). Pure: no I/O.
 */
import { Buffer } from "node:buffer";
import { MmliteError } from "../errors.ts";

/** The types of backend messages that a replication stream can see. */
export const BACKEND_MESSAGE = {
  commandComplete: 0x43,
  errorResponse: 0x45,
  noticeResponse: 0x4e,
  parameterStatus: 0x53,
  copyBothResponse: 0x57,
  readyForQuery: 0x5a,
  copyDone: 0x63,
  copyData: 0x64,
} as const;

/** Type byte and length. */
export const HEADER_BYTES = 5;
/** Longest body taken: PostgreSQL allocates at most 1 GiB for a message; copy headers come on top. */
const MAX_BODY_BYTES = 0x4000_0100;

/** Takes one whole message: its type and where its body stands in `bytes`. A view of the body may be kept. */
export type MessageSink = (type: number, bytes: Uint8Array, start: number, end: number) => void;

/**
 * Cuts chunks into messages. A message inside one chunk is handed on in place; one that spans chunks is
 * gathered in an array of exactly its size.
 */
export class MessageFramer {
  readonly #sink: MessageSink;
  readonly #header = new Uint8Array(HEADER_BYTES);
  #headerFilled = 0;
  #body: Uint8Array | undefined;
  #bodyFilled = 0;

  constructor(sink: MessageSink) {
    this.#sink = sink;
  }

  /** Takes the next bytes, which must not change afterwards. Throws `protocol` for an impossible length. */
  push(chunk: Uint8Array): void {
    let at = this.#headerFilled > 0 ? this.#gather(chunk, 0) : 0;
    while (at + HEADER_BYTES <= chunk.length) {
      const start = at + HEADER_BYTES;
      const end = start + bodyLength(chunk, at);
      if (end > chunk.length) break;
      this.#sink(chunk[at], chunk, start, end);
      at = end;
    }
    if (at < chunk.length) this.#gather(chunk, at);
  }

  /** Begins or goes on with a message that spans chunks, from `at` on; returns where the next one begins. */
  #gather(chunk: Uint8Array, at: number): number {
    const next = this.#fill(chunk, at);
    const body = this.#body;
    if (body === undefined || this.#bodyFilled < body.length) return next;
    this.#headerFilled = 0;
    this.#body = undefined;
    this.#sink(this.#header[0], body, 0, body.length);
    return next;
  }

  /** Copies what belongs to the unfinished message, from `at` on; returns the position after it. */
  #fill(chunk: Uint8Array, at: number): number {
    while (this.#headerFilled < HEADER_BYTES && at < chunk.length) {
      this.#header[this.#headerFilled++] = chunk[at++];
    }
    if (this.#headerFilled < HEADER_BYTES) return at;
    if (this.#body === undefined) {
      // Every byte of it is written before it is handed on.
      this.#body = plainBytes(bodyLength(this.#header, 0));
      this.#bodyFilled = 0;
    }
    const take = Math.min(chunk.length - at, this.#body.length - this.#bodyFilled);
    this.#body.set(chunk.subarray(at, at + take), this.#bodyFilled);
    this.#bodyFilled += take;
    return at + take;
  }
}

/** What an ErrorResponse or NoticeResponse says, as far as it is used; DETAIL may hold row values. */
export interface ServerReport {
  readonly severity: string;
  /** SQLSTATE. */
  readonly code: string;
  readonly message: string;
}

/** Decodes the body of an ErrorResponse or NoticeResponse: fields of one byte and a C string, until a zero. */
export function decodeServerReport(body: Uint8Array): ServerReport {
  const fields = new Map<string, string>();
  const decoder = new TextDecoder();
  for (let at = 0; at < body.length && body[at] !== 0;) {
    const end = body.indexOf(0, at + 1);
    if (end < 0) break;
    fields.set(String.fromCharCode(body[at]), decoder.decode(body.subarray(at + 1, end)));
    at = end + 1;
  }
  const text = (field: string) => fields.get(field) ?? "";
  return { severity: text("V") || text("S"), code: text("C"), message: text("M") };
}

/** A plain Uint8Array, as views of it are cheaper than those of a Buffer, without the zeros that it would begin with. */
function plainBytes(length: number): Uint8Array {
  return new Uint8Array(Buffer.allocUnsafeSlow(length).buffer);
}

/** The length of the body of the message that begins at `at`; throws `protocol` for an impossible one. */
export function bodyLength(bytes: Uint8Array, at: number): number {
  const length = bytes[at + 1] * 0x100_0000 + (bytes[at + 2] << 16) + (bytes[at + 3] << 8) + bytes[at + 4];
  if (length >= 4 && length - 4 <= MAX_BODY_BYTES) return length - 4;
  throw new MmliteError(
    "protocol",
    `Cannot read from PostgreSQL: message 0x${bytes[at].toString(16)} has length ${length}`,
  );
}
