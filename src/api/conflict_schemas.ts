/**
 * The JSON of conflicts and of the policies by which they are settled.
 */
import { z } from "@hono/zod-openapi";
import { CONFLICT_POLICIES, CONFLICT_TYPES, type ConflictType } from "../conflict_policy.ts";
import { LsnText, Time } from "./schemas.ts";

/** Ids that one page of conflicts holds unless told, and at most. */
const DEFAULT_LIMIT = 100;
const MAX_LIMIT = 1000;

/** A 64-bit integer. */
const Id = z.string().regex(/^[0-9]{1,18}$/, "Expected an id, digits").openapi({ example: "4711" });
/** A time with microseconds. */
const Instant = z.string().regex(/^\d{4,6}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/)
  .openapi({ format: "date-time", example: "2026-11-22T10:00:00.123456Z" });
/** A row, or the columns of a key, by column; what is no number of JavaScript is text. */
const RowValue = z.record(z.string(), z.unknown()).nullable();

/** A type of conflict, by PostgreSQL 18's name. */
export const ConflictTypeName = z.enum(CONFLICT_TYPES).openapi("ConflictType");
/** How conflicts are settled. */
export const ConflictPolicyName = z.enum(CONFLICT_POLICIES).openapi("ConflictPolicy");
/** What became of the change. */
export const ResolutionName = z.enum(["applied", "skipped", "error"]).openapi("Resolution", {
  description: "applied: the change was written; skipped: what was here stayed",
});

/** For single types another policy. */
export const TypePolicies = z.strictObject(
  Object.fromEntries(CONFLICT_TYPES.map((type) => [type, ConflictPolicyName.optional()])) as {
    [Type in ConflictType]: z.ZodOptional<typeof ConflictPolicyName>;
  },
).openapi("TypePolicies");

/** What PUT takes for a table. */
export const TablePolicyInput = z.strictObject({
  policy: ConflictPolicyName,
  types: TypePolicies.optional().openapi({ description: "for single types of conflict another policy" }),
  allow_divergence: z.boolean().optional().openapi({
    description: "nodes may come to hold different rows; without it such a policy is refused",
  }),
}).openapi("TablePolicyInput");
export type TablePolicyInput = z.infer<typeof TablePolicyInput>;

const Version = z.object({
  origin: z.string().nullable().openapi({ description: "the node that wrote it; null where nobody knows" }),
  commit_timestamp: Instant.nullable(),
});

/** A conflict, without the rows. */
export const Conflict = z.object({
  id: Id,
  noted_at: Instant,
  table: z.string().openapi({ example: "public.users" }),
  type: z.string().openapi({ description: "a ConflictType", example: "update_origin_differs" }),
  resolution: z.string().openapi({ description: "a Resolution", example: "applied" }),
  change: z.string().openapi({ description: "what the other node did", example: "update" }),
  key: RowValue.openapi({ description: "null for a row without key", example: { id: 1 } }),
  local: Version.openapi({ description: "what was here" }),
  remote: Version.extend({
    lsn: LsnText.nullable().openapi({ description: "end of the transaction in the WAL of its origin" }),
  }).openapi({ description: "what came" }),
}).openapi("Conflict");
export type Conflict = z.infer<typeof Conflict>;

/** A conflict with both rows. */
export const WholeConflict = Conflict.extend({
  local: Conflict.shape.local.extend({ row: RowValue }),
  remote: Conflict.shape.remote.extend({ row: RowValue }),
}).openapi("WholeConflict");
export type WholeConflict = z.infer<typeof WholeConflict>;

/** A page of conflicts. */
export const ConflictList = z.object({ items: z.array(Conflict), next_cursor: z.string().nullable() })
  .openapi("ConflictList");
export type ConflictList = z.infer<typeof ConflictList>;

/** Which conflicts are wanted. */
export const ConflictQuery = z.strictObject({
  since: z.string().optional().openapi({
    description: "noted at this time or later: RFC 3339, or a duration such as 1h",
    example: "1h",
  }),
  table: z.string().optional().openapi({ example: "public.users" }),
  type: ConflictTypeName.optional(),
  resolution: ResolutionName.optional(),
  limit: z.string().optional().transform((text) => text === undefined ? DEFAULT_LIMIT : Number(text))
    .refine((limit) => Number.isInteger(limit) && limit >= 1 && limit <= MAX_LIMIT, {
      error: `Expected a number from 1 to ${MAX_LIMIT}`,
    })
    .openapi({ type: "integer", minimum: 1, maximum: MAX_LIMIT, default: DEFAULT_LIMIT }),
  cursor: Id.optional().openapi({ description: "next_cursor of the page before" }),
});

/** The path of one conflict. */
export const ConflictPath = z.strictObject({ id: Id });

/** What an event of `/v1/events` carries, by its name. */
export const EventPayloads = {
  conflict: z.object({
    id: Id,
    type: z.string(),
    resolution: z.string(),
    table: z.string(),
    noted_at: Instant,
  }).openapi("ConflictEvent"),
  peer: z.object({ name: z.string(), state: z.string(), since: Time, inbound: z.string() }).openapi(
    "PeerEvent",
  ),
  job: z.object({ id: z.string(), type: z.string(), state: z.string(), progress: z.number().nullable() })
    .openapi(
      "JobEvent",
    ),
  problem: z.object({
    state: z.enum(["present", "gone"]),
    kind: z.string(),
    message: z.string(),
    hint: z.string(),
  }).openapi("ProblemEvent"),
} as const;
