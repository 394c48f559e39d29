/**
 * What two nodes say to each other when one compares its tables with the other's (`docs/PROTOCOL.md`, section 10): a
 * question a line, and its answer. Hashes and sums go as base64 of their bytes.
 */
import { Buffer } from "node:buffer";
import { z } from "zod";
import { MmliteError } from "../errors.ts";
import { formatLsn, parseLsn } from "../lsn.ts";
import type { Mark } from "../pg/marks.ts";
import { ITEM_KINDS } from "../pg/schema_items.ts";
import { MAX_BUCKETS, type ScannedRow } from "../pg/table_scan.ts";
import { MAX_LINE_BYTES } from "../wire/lines.ts";
import type { Version, WholeRow } from "../pg/whole_rows.ts";
import type { WantedRow } from "./side.ts";

const Identifier = z.string().max(256);
const Table = z.object({ schema: Identifier, name: Identifier });
const Columns = z.array(Identifier).max(1_600);
const Packed = z.base64().max(MAX_LINE_BYTES);
const Key = z.array(z.string().regex(/^([0-9a-f]{2})*$/)).max(32);
const Places = z.array(z.number().int().min(0).max(MAX_BUCKETS - 1)).max(MAX_BUCKETS);
const Lsn = z.string().regex(/^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/i);
const MarkMessage = z.object({
  lsn: Lsn,
  origins: z.array(z.object({ name: Identifier, lsn: Lsn })).max(10_000),
});

/** Digits of bytes; not by an expression that would take as many steps as it has pairs. */
const Digits = z.string().refine((text) => text.length % 2 === 0 && !/[^0-9a-f]/.test(text));
const VersionMessage = z.object({ at: z.string().regex(/^-?\d{1,19}$/), node: z.string().min(1).max(256) })
  .nullable();
const RowMessage = z.discriminatedUnion("kind", [
  z.object({
    kind: z.literal("row"),
    stamp: z.number().int().min(0),
    version: VersionMessage,
    values: z.array(Digits.nullable()).max(1_600),
  }),
  z.object({ kind: z.literal("none"), version: VersionMessage }),
  z.object({ kind: z.literal("long") }),
]);
type RowMessage = z.infer<typeof RowMessage>;
type WrittenMessage = z.infer<typeof WrittenMessage>;
/** Keys of which rows are asked for at a time, and rows that are given. */
export const MAX_ROWS = 1_000;
const WrittenMessage = z.object({
  key: Key,
  stamp: z.number().int().min(0).nullable(),
  version: VersionMessage,
  values: z.array(Digits.nullable()).max(1_600).nullable(),
});

/** Longest statement of what tables consist of, characters. */
const MAX_STATEMENT = 1_000_000;

const Question = z.discriminatedUnion("ask", [
  z.object({ ask: z.literal("tables") }),
  z.object({
    ask: z.literal("read"),
    plan: z.object({
      table: Table,
      keyed: z.boolean(),
      buckets: z.number().int().min(1).max(MAX_BUCKETS),
      share: z.number().min(0.001).max(1),
    }),
  }),
  z.object({ ask: z.literal("groups") }),
  z.object({ ask: z.literal("buckets"), groups: Places }),
  z.object({ ask: z.literal("open"), buckets: Places }),
  z.object({ ask: z.literal("keys"), hashes: Packed }),
  z.object({ ask: z.literal("look"), keys: z.array(Key).max(100_000) }),
  z.object({ ask: z.literal("rows"), keys: z.array(Key).min(1).max(MAX_ROWS) }),
  z.object({ ask: z.literal("applied"), node: Identifier }),
  z.object({ ask: z.literal("equal") }),
  z.object({ ask: z.literal("schema") }),
  z.object({ ask: z.literal("prepare"), table: Table }),
  z.object({
    ask: z.literal("write"),
    rows: z.array(WrittenMessage).min(1).max(MAX_ROWS),
    alone: z.boolean(),
  }),
  z.object({ ask: z.literal("mark") }),
  z.object({ ask: z.literal("behind"), own: MarkMessage, other: MarkMessage }),
]);
/** A question of the node that compares. */
export type Question = z.infer<typeof Question>;

/** The answers, by what was asked. */
export const Answers = {
  tables: z.object({
    tables: z.array(Table.extend({
      columns: Columns,
      key: Columns,
      estimatedRows: z.number().min(0),
      diverged: z.boolean(),
    })).max(100_000),
  }),
  read: z.object({ rows: z.number().int().min(0), total: z.string().regex(/^\d{1,20}$/) }),
  groups: z.object({ sums: Packed }),
  buckets: z.object({ sums: Packed }),
  open: z.object({ rows: Packed.nullable() }),
  keys: z.object({ keys: z.array(Key.nullable()) }),
  look: z.object({
    found: z.array(
      z.object({
        state: z.string().regex(/^\d{1,20}$/),
        stamp: z.number(),
        version: z.string().max(128).nullable(),
        awaited: z.boolean(),
      }).nullable(),
    ),
  }),
  rows: z.object({ rows: z.array(RowMessage).min(1).max(MAX_ROWS) }),
  equal: z.object({}),
  applied: z.object({ lsn: Lsn.nullable(), at: z.iso.datetime().nullable() }),
  schema: z.object({
    items: z.array(z.object({
      kind: z.enum(ITEM_KINDS),
      name: z.string().max(1_024),
      sql: z.string().max(MAX_STATEMENT),
      parts: z.array(z.object({ name: z.string().max(1_024), is: z.string().max(MAX_STATEMENT) })).max(2_000),
    })).max(1_000_000),
    leftOut: z.array(z.string().max(4_096)).max(100_000),
  }),
  prepare: z.object({}),
  write: z.object({
    outcomes: z.array(
      z.union([z.enum(["written", "changed"]), z.object({ refused: z.string().max(8_192) })]),
    ).max(MAX_ROWS),
  }),
  mark: MarkMessage,
  behind: z.object({ links: z.array(z.object({ from: Identifier, to: Identifier })).max(10_000) }),
} as const;
/** The answer to a kind of question. */
export type Answer<Ask extends Question["ask"]> = z.infer<(typeof Answers)[Ask]>;

/** What may come instead of an answer. */
export const Failure = z.object({
  error: z.object({ kind: z.string().max(64), message: z.string().max(8_192), hint: z.string().max(8_192) }),
});

/** Reads a question; throws `protocol`. */
export function parseQuestion(line: unknown): Question {
  const { data, error } = Question.safeParse(line);
  if (data !== undefined) return data;
  throw strange("question", error!);
}

/** Reads an answer; throws `protocol`. */
export function parseAnswer<Ask extends Question["ask"]>(ask: Ask, line: unknown): Answer<Ask> {
  const { data, error } = Answers[ask].safeParse(line);
  if (data !== undefined) return data as Answer<Ask>;
  throw strange(`answer about ${ask}`, error!);
}

function strange(what: string, { issues }: z.ZodError): MmliteError {
  const fields = issues.slice(0, 3).map(({ path }) => path.join(".") || "(whole)").join(", ");
  return new MmliteError("protocol", `Cannot read the ${what}: wrong or missing ${fields}`, {
    hint: "Run the same version of mmlite on both nodes",
  });
}

/** A mark as it travels. */
export function toMessage({ lsn, origins }: Mark): z.infer<typeof MarkMessage> {
  return {
    lsn: formatLsn(lsn),
    origins: origins.map(({ name, lsn }) => ({ name, lsn: formatLsn(lsn) })),
  };
}

/** The mark that travelled. */
export function fromMessage({ lsn, origins }: z.infer<typeof MarkMessage>): Mark {
  return { lsn: parseLsn(lsn), origins: origins.map(({ name, lsn }) => ({ name, lsn: parseLsn(lsn) })) };
}

/** A row as it travels. */
export function toRowMessage(row: WholeRow): RowMessage {
  if (row.kind === "long") return row;
  const version = toVersionMessage(row.version);
  return row.kind === "none" ? { ...row, version } : { ...row, version, values: [...row.values] };
}

function toVersionMessage(version: Version | null): z.infer<typeof VersionMessage> {
  return version === null ? null : { ...version, at: String(version.at) };
}

function fromVersionMessage(version: z.infer<typeof VersionMessage>): Version | null {
  return version === null ? null : { node: version.node, at: BigInt(version.at) };
}

/** A row that is to be written, as it travels. */
export function toWrittenMessage({ key, stamp, values, version }: WantedRow): WrittenMessage {
  return { key: [...key], stamp, values: values && [...values], version: toVersionMessage(version) };
}

/** What is to be written again. */
export function fromWrittenMessage(message: WrittenMessage): WantedRow {
  return { ...message, version: fromVersionMessage(message.version) };
}

/** The row that travelled. */
export function fromRowMessage(message: RowMessage): WholeRow {
  if (message.kind === "long") return message;
  return { ...message, version: fromVersionMessage(message.version) };
}

/** 64-bit numbers as base64 of their bytes, the lowest first. */
export function packNumbers(numbers: BigUint64Array | readonly bigint[]): string {
  const bytes = Buffer.alloc(numbers.length * 8);
  numbers.forEach((number: bigint, i: number) => bytes.writeBigUInt64LE(number, i * 8));
  return bytes.toString("base64");
}

/** The numbers again. */
export function unpackNumbers(text: string): BigUint64Array {
  const bytes = Buffer.from(text, "base64");
  return BigUint64Array.from({ length: bytes.length >> 3 }, (_, i) => bytes.readBigUInt64LE(i * 8));
}

/** Bytes of a row: the hash of its key, its state, its stamp. */
const ROW_BYTES = 20;

/** Rows by the hash of their key as base64. */
export function packRows(rows: ReadonlyMap<bigint, ScannedRow>): string {
  const bytes = Buffer.alloc(rows.size * ROW_BYTES);
  let at = 0;
  for (const [hash, { state, stamp }] of rows) {
    bytes.writeBigUInt64LE(hash, at);
    bytes.writeBigUInt64LE(state, at + 8);
    bytes.writeUInt32LE(stamp, at + 16);
    at += ROW_BYTES;
  }
  return bytes.toString("base64");
}

/** The rows again. */
export function unpackRows(text: string): Map<bigint, ScannedRow> {
  const bytes = Buffer.from(text, "base64");
  const rows = new Map<bigint, ScannedRow>();
  for (let at = 0; at + ROW_BYTES <= bytes.length; at += ROW_BYTES) {
    rows.set(bytes.readBigUInt64LE(at), {
      state: bytes.readBigUInt64LE(at + 8),
      stamp: bytes.readUInt32LE(at + 16),
    });
  }
  return rows;
}
