/**
 * What removing a peer leaves undelivered, in both directions.
 */
import { z } from "@hono/zod-openapi";
import { LsnText, Time } from "./schemas.ts";

const Count = z.int().min(0);
const ByteAmount = z.string().regex(/^[0-9]+$/).openapi({ example: "8192" });

/** What a peer has not acknowledged of what was committed here. */
export const Undelivered = z.object({
  after_lsn: LsnText.nullable().openapi({
    description: "the peer has what ends before this; null if unknown",
  }),
  wal_bytes: ByteAmount.nullable().openapi({ description: "of WAL since then, whatever is in it" }),
  complete: z.boolean().openapi({
    description:
      "false: there is more than was counted, because there is too much to count, or as `problem` says",
  }),
  problem: z.string().nullable().openapi({ description: "why it could not be counted, or not all of it" }),
  transactions: Count,
  changes: Count,
  tables: z.array(z.object({
    table: z.string(),
    inserts: Count,
    updates: Count,
    deletes: Count,
    truncates: Count,
  })),
  first_committed_at: Time.nullable(),
  last_committed_at: Time.nullable().openapi({ description: "of those that were counted" }),
}).openapi("Undelivered");
export type Undelivered = z.infer<typeof Undelivered>;

/** How far the peer's own transactions have come. */
export const ReceivedOf = z.object({
  applied_lsn: LsnText.nullable().openapi({ description: "a position in the peer's WAL" }),
  committed_at: Time.nullable().openapi({
    description: "when the last of them that is here committed there",
  }),
  others: z.array(z.object({
    peer: z.string(),
    applied_lsn: LsnText.nullable(),
    committed_at: Time.nullable(),
    compared: z.enum(["equal", "lacks", "has_more", "unknown"]).openapi({
      description:
        "lacks: this other node lacks transactions that are here; has_more: they are there and not here",
    }),
    problem: z.string().nullable().openapi({ description: "why it could not be asked" }),
  })),
}).openapi("ReceivedOf");
export type ReceivedOf = z.infer<typeof ReceivedOf>;

/** What removing a peer by force leaves undelivered. */
export const RemovalReport = z.object({
  peer: z.string(),
  removed: z.boolean().openapi({ description: "false for a dry run" }),
  undelivered: Undelivered,
  received: ReceivedOf,
  remedies: z.array(z.string()).openapi({ description: "what to do about it, in this order" }),
}).openapi("RemovalReport");
export type RemovalReport = z.infer<typeof RemovalReport>;
