/**
 * The JSON of what is in quarantine.
 */
import { z } from "@hono/zod-openapi";
import { LastError } from "./schemas.ts";

const LsnText = z.string().regex(/^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/).openapi({ example: "16/B374D848" });
const Time = z.iso.datetime().openapi({ example: "2026-11-22T10:00:00.123Z" });
const Values = z.record(z.string(), z.string().nullable());

/** A transaction of another node that was set aside, without its rows. */
export const QuarantineEntry = z.object({
  id: z.string().regex(/^[0-9]+$/),
  origin: z.string().openapi({ description: "the node that it was committed on" }),
  commit_lsn: LsnText.openapi({ description: "position in the origin's WAL, as errors name it" }),
  end_lsn: LsnText,
  commit_timestamp: Time,
  changes: z.int().nonnegative(),
  error: LastError.openapi({ description: "what it failed of last" }),
  quarantined_at: Time,
}).openapi("QuarantineEntry");
export type QuarantineEntry = z.infer<typeof QuarantineEntry>;

/** One change of such a transaction: its rows as the text that came. */
export const QuarantineChange = z.object({
  number: z.int().positive().openapi({ description: "grows within the transaction, with gaps" }),
  table: z.string(),
  kind: z.enum(["insert", "update", "delete", "truncate"]),
  old: Values.nullable().openapi({
    description: "the key, or the whole row with REPLICA IDENTITY FULL; null if none came",
  }),
  new: Values.nullable(),
  unchanged: z.array(z.string()).openapi({
    description: "columns whose long value did not change and did not come",
  }),
}).openapi("QuarantineChange");
export type QuarantineChange = z.infer<typeof QuarantineChange>;

/** A transaction with a page of its changes. */
export const QuarantineDetail = QuarantineEntry.extend({
  rows: z.object({ items: z.array(QuarantineChange), next_cursor: z.string().nullable() }),
}).openapi("QuarantineDetail");
export type QuarantineDetail = z.infer<typeof QuarantineDetail>;

/** A page of transactions. */
export const QuarantineList = z.object({
  items: z.array(QuarantineEntry),
  next_cursor: z.string().nullable(),
}).openapi("QuarantineList");
export type QuarantineList = z.infer<typeof QuarantineList>;

/** Which transaction is skipped. */
export const SkipInput = z.strictObject({
  lsn: z.string().regex(/^[0-9A-Fa-f]{1,8}\/[0-9A-Fa-f]{1,8}$/, "Expected an LSN such as 16/B374D848")
    .openapi({
      description: "of the blocked transaction: its commit LSN, as errors name it, or its end",
      example: "16/B374D848",
    }),
}).openapi("SkipInput");
export type SkipInput = z.infer<typeof SkipInput>;
