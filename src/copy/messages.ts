/**
 * What the node whose rows are copied and the one that they come to say to each other (`docs/PROTOCOL.md`, section 11):
 * lines of JSON, and rows as COPY prints them behind the lines that announce them.
 */
import { z } from "zod";
import { isErrorKind, MmliteError } from "../errors.ts";
import { formatLsn, parseLsn } from "../lsn.ts";
import { toPrintable } from "../printable.ts";
import { MAX_LINE_BYTES } from "../wire/lines.ts";

const Identifier = z.string().max(256);
const Position = z.string().regex(/^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/i).transform(parseLsn);
const Time = z.string().max(64);
const Count = z.number().int().min(0);

/** More rows of a copy that is under way, on another channel. */
const MoreRequest = z.object({ more: z.object({ copy: z.string().max(64) }) });
/** See {@link parseRequest}. */
export type MoreRequest = z.infer<typeof MoreRequest>["more"];

/** The rows of a node. */
const CopyRequest = z.object({
  copy: z.object({
    /** How far each node is applied where the rows are to come to. */
    applied: z.array(z.object({ node: Identifier, lsn: Position })).max(10_000),
    /** What there is, with the OIDs of its types. */
    tables: z.array(z.object({
      schema: Identifier,
      name: Identifier,
      columns: z.array(z.object({ name: Identifier, type: Count })).max(1_600),
    })).max(100_000),
  }),
});
/** See {@link parseRequest}. */
export type CopyRequest = z.infer<typeof CopyRequest>["copy"];
const Request = z.union([CopyRequest, MoreRequest]);

const Answer = z.union([
  /** It takes a while still, and why. */
  z.object({ waiting: z.string().max(1_024) }),
  /** The snapshot is taken. */
  z.object({
    snapshot: z.object({
      /** By which more channels are asked for. */
      id: z.string().max(64),
      /** `txid_current_snapshot()`. */
      sees: z.string().regex(/^\d+:\d+:[\d,]*$/),
      until: Position,
      /** When it was taken, by the clock of its server, microseconds since 2000-01-01 UTC. */
      at: z.string().regex(/^\d{1,18}$/).transform(BigInt),
      applied: z.array(z.object({ node: Identifier, lsn: Position, at: Time.nullable() })).max(10_000),
      tables: z.array(z.object({
        schema: Identifier,
        name: Identifier,
        columns: z.array(Identifier).max(1_600),
        rows: Count,
      })).max(100_000),
    }),
  }),
  z.object({
    note: z.object({ kind: z.string().max(64), row: z.record(z.string(), z.string().nullable()) }),
  }),
  /** Rows of a table follow. */
  z.object({
    part: z.object({
      /** Its place in the list. */
      table: Count,
      /** All of one version; null where each says its own before its columns. */
      version: z.object({ node: Identifier, at: Time }).nullable(),
      binary: z.boolean(),
    }),
  }),
  /** So many bytes of so many rows, about, are right behind this line. */
  z.object({ data: Count.max(MAX_LINE_BYTES), rows: Count }),
  /** After the last part on the first channel: how many there were on all. */
  z.object({ end: z.enum(["part", "all"]), parts: Count.optional() }),
  z.object({
    error: z.object({
      kind: z.string().max(64),
      message: z.string().max(8_192),
      hint: z.string().max(8_192),
    }),
  }),
]);
/** What the node says whose rows are copied. */
export type CopyAnswer = z.infer<typeof Answer>;
/** See {@link CopyAnswer}. */
export type CopySnapshot = Extract<CopyAnswer, { snapshot: unknown }>["snapshot"];

/** Reads the request; throws `protocol`. */
export function parseRequest(line: unknown): z.infer<typeof Request> {
  const { data, error } = Request.safeParse(line);
  if (data !== undefined) return data;
  throw strange("request for rows", error!);
}

/** Reads what comes next; throws `protocol`, and the other node's error where it has failed. */
export function parseCopyAnswer(line: unknown, node: string): CopyAnswer {
  const { data, error } = Answer.safeParse(line);
  if (data === undefined) throw strange("rows", error!);
  if (!("error" in data)) return data;
  const { kind, message, hint } = data.error;
  throw new MmliteError(isErrorKind(kind) ? kind : "internal", `${toPrintable(message)} (on "${node}")`, {
    hint: toPrintable(hint),
  });
}

/** A request as it travels. */
export function toRequest({ applied, tables }: CopyRequest): unknown {
  return { copy: { applied: applied.map(({ node, lsn }) => ({ node, lsn: formatLsn(lsn) })), tables } };
}

/** Asks for more rows of a copy, by the id of its snapshot. */
export function toMoreRequest(copy: string): unknown {
  return { more: { copy } };
}

function strange(what: string, { issues }: z.ZodError): MmliteError {
  const fields = issues.slice(0, 3).map(({ path }) => path.join(".") || "(whole)").join(", ");
  return new MmliteError("protocol", `Cannot read the ${what}: wrong or missing ${fields}`, {
    hint: "Run the same version of mmlite on both nodes",
  });
}
