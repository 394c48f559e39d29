/**
 * A row that a receiver asks its author for, and the answer <-> bytes. Layout: `docs/PROTOCOL.md`, sections 4.12
 * and 4.13.
 */
import { Buffer } from "node:buffer";
import { MmliteError } from "../errors.ts";
import type { RowPiece, WantRow } from "./frame.ts";

/** The longest answer, bytes: a row that is longer is not sent. */
export const MAX_ROW_BYTES = 0x400_0000;
const NULL_LENGTH = -1;

/** A row as the node that was asked has it. Values as text, null for NULL. */
export type RowAnswer =
  /** There was none, after everything that was committed up to the time, microseconds since 2000-01-01 UTC. */
  | { readonly kind: "none"; readonly at: bigint }
  /** Committed at a time on a node; empty where that is not known any more. */
  | {
    readonly kind: "row";
    readonly at: bigint;
    readonly node: string;
    readonly columns: readonly string[];
    readonly values: readonly (Uint8Array | null)[];
  }
  /** It is not sent: too long, of a table that is not published, or of no known version. */
  | { readonly kind: "withheld"; readonly at: bigint };

const KINDS: readonly RowAnswer["kind"][] = ["none", "row", "withheld"];

/** The payload of a `want_row` frame. */
export function encodeWantRow({ id, schema, name, key }: WantRow): Uint8Array {
  const parts: Uint8Array[] = [uint32(id), shortText(schema), shortText(name), uint16(key.length)];
  for (const { column, value } of key) parts.push(shortText(column), longBytes(value));
  return Buffer.concat(parts);
}

/** Reads it; throws a `protocol` error for anything malformed. */
export function decodeWantRow(payload: Uint8Array): WantRow {
  const reader = new Reader("want_row", payload);
  const [id, schema, name] = [reader.uint32(), reader.shortText(), reader.shortText()];
  const key: { column: string; value: Uint8Array }[] = [];
  for (let left = reader.uint16(); left > 0; left--) {
    const column = reader.shortText();
    const value = reader.longBytes();
    if (value === null) throw reader.malformed("a key is NULL");
    key.push({ column, value });
  }
  reader.end();
  return { kind: "want_row", id, schema, name, key };
}

/** The payload of a `row` frame. */
export function encodeRowPiece({ id, isLast, bytes }: RowPiece): Uint8Array {
  return Buffer.concat([uint32(id), Buffer.of(isLast ? 1 : 0), bytes]);
}

/** Reads it; its bytes are a view. */
export function decodeRowPiece(payload: Uint8Array): RowPiece {
  const reader = new Reader("row", payload);
  const [id, last] = [reader.uint32(), reader.uint8()];
  if (last > 1) throw reader.malformed(`${last} says neither that more follows nor that it is the last`);
  return { kind: "row", id, isLast: last === 1, bytes: payload.subarray(5) };
}

/** An answer as the bytes that `row` frames carry. */
export function encodeRowAnswer(answer: RowAnswer): Uint8Array {
  const at = Buffer.allocUnsafe(8);
  at.writeBigInt64BE(answer.at);
  const parts: Uint8Array[] = [Buffer.of(KINDS.indexOf(answer.kind)), at];
  if (answer.kind === "row") {
    parts.push(shortText(answer.node), uint16(answer.columns.length));
    answer.columns.forEach((column, i) => parts.push(shortText(column), longBytes(answer.values[i])));
  }
  return Buffer.concat(parts);
}

/** Reads it; throws a `protocol` error for anything malformed. Values are views. */
export function decodeRowAnswer(bytes: Uint8Array): RowAnswer {
  const reader = new Reader("row", bytes);
  const type = reader.uint8();
  const kind = KINDS[type];
  if (kind === undefined) throw reader.malformed(`unknown answer ${type}`);
  const at = reader.int64();
  if (kind !== "row") {
    reader.end();
    return { kind, at };
  }
  const node = reader.shortText();
  const columns: string[] = [];
  const values: (Uint8Array | null)[] = [];
  for (let left = reader.uint16(); left > 0; left--) {
    columns.push(reader.shortText());
    values.push(reader.longBytes());
  }
  reader.end();
  return { kind, at, node, columns, values };
}

/** Walks over a payload; every read is checked. */
class Reader {
  readonly #kind: string;
  readonly #bytes: Buffer;
  #at = 0;

  constructor(kind: string, bytes: Uint8Array) {
    this.#kind = kind;
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  uint8(): number {
    return this.#take(1)[0];
  }

  uint16(): number {
    return this.#take(2).readUInt16BE();
  }

  uint32(): number {
    return this.#take(4).readUInt32BE();
  }

  int64(): bigint {
    return this.#take(8).readBigInt64BE();
  }

  shortText(): string {
    return this.#take(this.uint16()).toString("utf8");
  }

  longBytes(): Uint8Array | null {
    const length = this.#take(4).readInt32BE();
    if (length < NULL_LENGTH) throw this.malformed(`a length of ${length}`);
    return length === NULL_LENGTH ? null : this.#take(length);
  }

  end(): void {
    if (this.#at < this.#bytes.length) {
      throw this.malformed(`${this.#bytes.length - this.#at} bytes are left`);
    }
  }

  malformed(why: string): MmliteError {
    return new MmliteError("protocol", `Cannot read a ${this.#kind} frame: ${why}`);
  }

  #take(length: number): Buffer {
    const end = this.#at + length;
    if (end > this.#bytes.length) throw this.malformed("it is cut off");
    const taken = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return taken;
  }
}

function uint16(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

function uint32(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function shortText(text: string): Buffer {
  const bytes = Buffer.from(text, "utf8");
  return Buffer.concat([uint16(bytes.length), bytes]);
}

function longBytes(value: Uint8Array | null): Uint8Array {
  const length = Buffer.allocUnsafe(4);
  length.writeInt32BE(value?.length ?? NULL_LENGTH);
  return value === null ? length : Buffer.concat([length, value]);
}
