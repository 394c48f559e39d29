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

/** Takes one whole message: its type and where its body stands in `bytes`. */
export type MessageSink = (type: number, bytes: Uint8Array, start: number, end: number) => void;

/** Bytes of a chunk: several reads of as much as a socket has at a time, 64 KiB. A longer message gets one of its own. */
const CHUNK_BYTES = 0x4_0000;
/** Less room than a usual read takes is not worth one at a chunk's end, unless it is all that is missing of a message. */
const MIN_ROOM_BYTES = 0x1_0000;
/** Chunks that are kept to be used again, 1 MiB: as much may wait for the reader (`walsender_stream.ts`). */
const MAX_SPARE_CHUNKS = 4;

/**
 * Cuts what comes into messages, in chunks that are used again: a chunk for each read would keep the collector busy
 * half the time. A message that is not whole at a chunk's end is moved to the beginning of the next.
 */
export class MessageChunks {
  readonly #sink: MessageSink;
  #chunk = plainBytes(CHUNK_BYTES);
  /** Where the first message begins that is not whole, and where what has come ends. */
  #begin = 0;
  #end = 0;
  /** Bytes of that message with its header; 0 while its header is not whole. */
  #needed = 0;
  /** Full chunks: those of which something was handed on since the last {@link MessageChunks.close}, and before it. */
  #open: Uint8Array[] = [];
  #closed: Uint8Array[] = [];
  readonly #spare: Uint8Array[] = [];

  constructor(sink: MessageSink) {
    this.#sink = sink;
  }

  /** Where what comes next may be put, from the beginning; how much of it was, {@link MessageChunks.take} is to be told. */
  room(): Uint8Array {
    const isEnough = this.#chunk.length - this.#end >= MIN_ROOM_BYTES ||
      (this.#needed > 0 && this.#begin + this.#needed <= this.#chunk.length);
    if (!isEnough) this.#goOn(this.#needed);
    return this.#chunk.subarray(this.#end);
  }

  /** So many bytes have come. Hands on the messages that are whole; throws `protocol` for an impossible length. */
  take(length: number): void {
    this.#end += length;
    while (this.#end - this.#begin >= HEADER_BYTES) {
      this.#needed = HEADER_BYTES + bodyLength(this.#chunk, this.#begin);
      if (this.#needed > this.#end - this.#begin) break;
      const start = this.#begin + HEADER_BYTES;
      const type = this.#chunk[this.#begin];
      this.#begin += this.#needed;
      this.#needed = 0;
      this.#sink(type, this.#chunk, start, this.#begin);
    }
    if (this.#begin + this.#needed > this.#chunk.length) this.#goOn(this.#needed);
  }

  /** Takes a copy of bytes. */
  push(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      const room = this.room();
      const length = Math.min(room.length, bytes.length - at);
      room.set(bytes.subarray(at, at + length));
      at += length;
      this.take(length);
    }
  }

  /** What has been handed on so far is taken away by somebody. */
  close(): void {
    this.#closed.push(...this.#open);
    this.#open = [];
  }

  /** What was handed on before the last {@link MessageChunks.close} is not looked at any more. */
  reuse(): void {
    for (const chunk of this.#closed) if (this.#spare.length < MAX_SPARE_CHUNKS) this.#spare.push(chunk);
    this.#closed = [];
  }

  /** Goes over to another chunk, which has room for a message of that many bytes. */
  #goOn(needed: number): void {
    const full = this.#chunk;
    this.#chunk = needed > CHUNK_BYTES ? plainBytes(needed) : this.#spare.pop() ?? plainBytes(CHUNK_BYTES);
    this.#chunk.set(full.subarray(this.#begin, this.#end));
    this.#end -= this.#begin;
    this.#begin = 0;
    if (full.length === CHUNK_BYTES) this.#open.push(full);
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
