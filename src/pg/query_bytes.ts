/**
 * Writes the frontend messages of the extended query protocol, byte by byte, into chunks for a socket.
 *
 * Layouts: https://www.postgresql.org/docs/current/protocol-message-formats.html. Values go in as the bytes that
 * came; a long one becomes a chunk of its own, not a copy.
 */
import { Buffer } from "node:buffer";
import { copyWords, LastView, viewOf } from "../byte_words.ts";

/** Size of a chunk, bytes: several small transactions, well under a socket's buffer. */
const CHUNK_BYTES = 64 * 1024;
/** Values from this size on are handed to the socket as they are, bytes. */
const LARGE_VALUE_BYTES = 16 * 1024;
/** Up to this many bytes are copied by words, which is faster than making the view that `set` wants. */
const WORDS_BYTES = 96;
/** Chunks kept for the next use: new ones would be tens of megabytes of garbage before a collection. */
const MAX_SPARE_CHUNKS = 4;

const PARSE = 0x50; // P
const BIND = 0x42; // B
const EXECUTE = 0x45; // E
const CLOSE = 0x43; // C
const COPY_DATA = 0x64; // d
const COPY_DONE = 0x63; // c
const DESCRIBE = 0x44; // D
const FLUSH = 0x48; // H
const SYNC = 0x53; // S
const STATEMENT = 0x53; // S
const PORTAL = 0x50; // P
const NULL_LENGTH = -1;

/** Format of all parameters of one Bind. */
export const TEXT_FORMAT = 0;
/** Format of all parameters of one Bind. */
export const BINARY_FORMAT = 1;
/** {@link TEXT_FORMAT} or {@link BINARY_FORMAT}. */
export type ParameterFormat = typeof TEXT_FORMAT | typeof BINARY_FORMAT;

/** A statement to prepare: `name` is ASCII, and empty for one that is used once. */
export interface StatementText {
  readonly name: string;
  readonly sql: string;
  /** Type OID of each parameter; 0 lets the server infer it. */
  readonly parameterTypes: readonly number[];
}

/** Parameters of one Bind that are written in place instead of being made first. */
export interface ParameterWriter {
  /** Bytes of each parameter, all in binary form. */
  readonly lengths: readonly number[];
  /** Writes the bytes of one, exactly as many. */
  write(index: number, into: ParameterBytes): void;
}

/** Where a {@link ParameterWriter} writes. */
export interface ParameterBytes {
  /** A 32-bit integer. */
  int32(value: number): void;
  /** Values of many rows, each with its length before it as it stands in pgoutput. */
  values(values: PlacedValues): void;
}

/** Where the values of one column lie: of the row `i` of `messages` at `first + i * step` in the other two. */
export interface PlacedValues {
  readonly messages: readonly Uint8Array[];
  /** Rows (their index in `messages`) to write. */
  readonly rows: readonly number[];
  /** Where each value begins; the four bytes before it are its length. */
  readonly starts: Int32Array;
  /** Bytes of each value; negative for NULL. */
  readonly sizes: Int32Array;
  readonly first: number;
  readonly step: number;
}

/** Builds messages and hands full chunks to `send`; {@link QueryBytes.finish} hands over what is left. */
export class QueryBytes implements ParameterBytes {
  readonly #send: (chunk: Uint8Array) => void;
  #chunk: Buffer = Buffer.allocUnsafeSlow(CHUNK_BYTES);
  #view: DataView = viewOf(this.#chunk);
  readonly #source = new LastView();
  #start = 0;
  #end = 0;
  /** Chunks that the socket may still hold, in order, and where their last byte ends. */
  readonly #full: { readonly chunk: Buffer; readonly end: number }[] = [];
  readonly #spare: Buffer[] = [];

  constructor(send: (chunk: Uint8Array) => void) {
    this.#send = send;
  }

  /** Prepares a statement. */
  parse(statement: StatementText): void {
    const sql = Buffer.from(statement.sql, "utf8");
    const types = statement.parameterTypes;
    this.#header(PARSE, statement.name.length + 1 + sql.length + 1 + 2 + 4 * types.length);
    this.#name(statement.name);
    this.#bytes(sql);
    this.#byte(0);
    this.#int16(types.length);
    for (const type of types) this.int32(type);
  }

  /** Binds parameters to a prepared statement in the unnamed portal; null is SQL NULL. */
  bind(name: string, format: ParameterFormat, values: readonly (Uint8Array | null)[]): void {
    let length = 1 + name.length + 1 + 4 + 2 + 2;
    for (const value of values) length += 4 + (value === null ? 0 : value.length);
    this.#header(BIND, length);
    this.#byte(0);
    this.#name(name);
    this.#int16(1);
    this.#int16(format);
    this.#int16(values.length);
    for (const value of values) {
      this.int32(value === null ? NULL_LENGTH : value.length);
      if (value !== null) this.#bytes(value);
    }
    this.#int16(0);
  }

  /** Binds parameters in binary form that are written in place. */
  bindWith(name: string, parameters: ParameterWriter): void {
    const { lengths } = parameters;
    let length = 1 + name.length + 1 + 4 + 2 + 2;
    for (const bytes of lengths) length += 4 + bytes;
    this.#header(BIND, length);
    this.#byte(0);
    this.#name(name);
    this.#int16(1);
    this.#int16(BINARY_FORMAT);
    this.#int16(lengths.length);
    for (let i = 0; i < lengths.length; i++) {
      this.int32(lengths[i]);
      parameters.write(i, this);
    }
    this.#int16(0);
  }

  /** A piece of what a COPY reads; `bytes` may be changed afterwards. */
  copyData(bytes: Uint8Array, length: number): void {
    this.#header(COPY_DATA, length);
    for (let at = 0; at < length; at += LARGE_VALUE_BYTES) {
      this.#copy(bytes, at, Math.min(length, at + LARGE_VALUE_BYTES));
    }
  }

  /** The end of what a COPY reads. */
  copyDone(): void {
    this.#header(COPY_DONE, 0);
  }

  /** Runs the unnamed portal to its end. */
  execute(): void {
    this.#header(EXECUTE, 5);
    this.#byte(0);
    this.int32(0);
  }

  /** Asks for the names of the unnamed portal's columns. */
  describe(): void {
    this.#header(DESCRIBE, 2);
    this.#byte(PORTAL);
    this.#byte(0);
  }

  /** Forgets a prepared statement. */
  close(name: string): void {
    this.#header(CLOSE, 1 + name.length + 1);
    this.#byte(STATEMENT);
    this.#name(name);
  }

  /** Asks the server to send the replies it holds back. */
  flush(): void {
    this.#header(FLUSH, 0);
  }

  /** Ends a batch: after an error the server skips everything up to here. */
  sync(): void {
    this.#header(SYNC, 0);
  }

  /** Hands over what has been written so far. */
  finish(): void {
    if (this.#end > this.#start) this.#send(this.#chunk.subarray(this.#start, this.#end));
    this.#start = this.#end;
  }

  /** Takes back what was handed over up to the end of `bytes`: the socket holds it no longer. */
  reclaim(bytes: Uint8Array): void {
    const at = this.#full.findIndex(({ chunk }) => chunk.buffer === bytes.buffer);
    if (at < 0 || this.#full[at].end !== bytes.byteOffset + bytes.length) return;
    for (const { chunk } of this.#full.splice(0, at + 1)) {
      if (this.#spare.length < MAX_SPARE_CHUNKS) this.#spare.push(chunk);
    }
  }

  #header(type: number, payloadLength: number): void {
    this.#byte(type);
    this.int32(payloadLength + 4);
  }

  #name(name: string): void {
    this.#room(name.length + 1);
    for (let i = 0; i < name.length; i++) this.#chunk[this.#end++] = name.charCodeAt(i);
    this.#chunk[this.#end++] = 0;
  }

  #byte(value: number): void {
    this.#room(1);
    this.#chunk[this.#end++] = value;
  }

  #int16(value: number): void {
    this.#room(2);
    this.#chunk[this.#end++] = value >>> 8;
    this.#chunk[this.#end++] = value;
  }

  int32(value: number): void {
    this.#room(4);
    this.#view.setInt32(this.#end, value);
    this.#end += 4;
  }

  values({ messages, rows, starts, sizes, first, step }: PlacedValues): void {
    for (let i = 0, place = first; i < rows.length; i++, place += step) {
      const size = sizes[place];
      if (size < 0) {
        this.int32(NULL_LENGTH);
        continue;
      }
      const bytes = messages[rows[i]];
      const [start, end] = [starts[place] - 4, starts[place] + size];
      if (size + 4 > WORDS_BYTES) {
        this.#slice(bytes, start, end);
        continue;
      }
      this.#room(size + 4);
      this.#end = copyWords(this.#source.of(bytes), start, end, this.#view, this.#end);
    }
  }

  #slice(bytes: Uint8Array, start: number, end: number): void {
    if (end - start >= LARGE_VALUE_BYTES) this.#bytes(bytes.subarray(start, end));
    else this.#copy(bytes, start, end);
  }

  /** Copies at most {@link LARGE_VALUE_BYTES}. */
  #copy(bytes: Uint8Array, start: number, end: number): void {
    const length = end - start;
    this.#room(length);
    this.#chunk.set(bytes.subarray(start, end), this.#end);
    this.#end += length;
  }

  #bytes(bytes: Uint8Array): void {
    if (bytes.length >= LARGE_VALUE_BYTES) {
      this.finish();
      this.#send(bytes);
      return;
    }
    this.#room(bytes.length);
    this.#chunk.set(bytes, this.#end);
    this.#end += bytes.length;
  }

  /** Makes room for `length` bytes, at most {@link LARGE_VALUE_BYTES}, in one piece. */
  #room(length: number): void {
    if (this.#end + length <= this.#chunk.length) return;
    this.finish();
    // Another chunk, because the socket may still hold this one.
    this.#full.push({ chunk: this.#chunk, end: this.#end });
    this.#chunk = this.#spare.pop() ?? Buffer.allocUnsafeSlow(CHUNK_BYTES);
    this.#view = viewOf(this.#chunk);
    this.#start = 0;
    this.#end = 0;
  }
}
