/**
 * The JSON of `/v1/jobs`: long work that a node does for an operator.
 */
import { z } from "@hono/zod-openapi";
import { BYTE_SIZE_RULE, parseByteSize } from "../byte_size.ts";
import { NODE_NAME } from "../node_name.ts";

/** Keys of a table that a comparison reports, unless told, and at most. */
const DEFAULT_LIMIT = 10_000;
const MAX_LIMIT = 100_000;
/** How long keys that differ are looked at again, seconds: unless told, and at most. */
const DEFAULT_SETTLE_SECONDS = 60;
const MAX_SETTLE_SECONDS = 3_600;

/** Whether PostgreSQL can keep a text. */
function isStorable(text: string): boolean {
  return text.isWellFormed() && !text.includes("\0");
}

const Tables = z.array(
  z.string().min(1).max(1_024).refine(isStorable, "Expected a text that PostgreSQL can hold"),
).min(1).max(1_000).optional().openapi({
  description: "patterns such as public.*; all replicated tables where left out",
  example: ["public.*"],
});
const Share = z.number().min(0.01).max(1).default(1).openapi({
  description: "of the time, the share in which the servers read",
});
const Limit = z.number().int().min(1).max(MAX_LIMIT).default(DEFAULT_LIMIT);
const SettleSeconds = z.number().min(1).max(MAX_SETTLE_SECONDS).default(DEFAULT_SETTLE_SECONDS).openapi({
  description: "how long rows that differ are looked at again, until it is known that this is no lag",
});
const DryRun = z.boolean().default(false).openapi({
  description: "find what would be written, and write nothing",
});

/** A comparison of tables. */
export const VerifyInput = z.strictObject({
  type: z.literal("verify"),
  tables: Tables,
  peers: z.array(z.string().regex(NODE_NAME)).min(1).max(1_000).optional().openapi({
    description: "with whom; all peers where left out",
  }),
  share: Share,
  limit: Limit.openapi({
    description: "differing rows of a table to find before the next table is compared",
  }),
  settle_seconds: SettleSeconds,
}).openapi("VerifyInput");
export type VerifyInput = z.infer<typeof VerifyInput>;

/** A copy of another node's rows to this one. */
export const CopyInput = z.strictObject({
  type: z.literal("copy"),
  from: z.string().regex(NODE_NAME).openapi({ description: "a peer that has the rows", example: "ams" }),
  mode: z.enum(["empty", "replace", "keep", "merge"]).default("empty").openapi({
    description:
      "what becomes of rows here: with empty there must be none of this node's own, with replace they are given up, " +
      "with keep they must be equal, and with merge both nodes get the newer one of each",
  }),
  max_rate: z.string().refine((text) => parseByteSize(text) !== null, `Expected ${BYTE_SIZE_RULE}`).optional()
    .openapi({ description: "bytes of rows in a second, at most", example: "20MiB" }),
  create_schema: z.boolean().default(false).openapi({
    description:
      "create first what is missing here of the peer's replicated tables: types, sequences, tables, constraints, " +
      "indexes; but no functions, triggers, rights and comments",
  }),
}).openapi("CopyInput");
export type CopyInput = z.infer<typeof CopyInput>;

/** Making rows of this node what they are at a peer, or those of both what the newer ones are. */
export const RepairInput = z.strictObject({
  type: z.literal("repair"),
  source: z.string().regex(NODE_NAME).optional().openapi({
    description: "the peer whose rows are right; not with newest",
    example: "ams",
  }),
  newest: z.boolean().default(false).openapi({
    description: "of each row that differs the newer one is right, and both nodes get it",
  }),
  peer: z.string().regex(NODE_NAME).optional().openapi({
    description: "with newest: the other node; may be left out where there is one peer",
  }),
  tables: Tables,
  dry_run: DryRun,
  share: Share,
  limit: Limit.openapi({ description: "of a dry run: differing rows of a table to list" }),
  settle_seconds: SettleSeconds,
}).refine(({ source, newest }) => newest || source !== undefined, {
  path: ["source"],
  message: "Expected the peer whose rows are right, or newest",
}).refine(({ source, newest }) => !newest || source === undefined, {
  path: ["source"],
  message: "Expected none with newest: the other node is the peer",
}).refine(({ peer, newest }) => newest || peer === undefined, {
  path: ["peer"],
  message: "Expected none without newest: the other node is the source",
}).openapi("RepairInput");
export type RepairInput = z.infer<typeof RepairInput>;

/** The same for one table. */
export const ResyncInput = z.strictObject({
  type: z.literal("resync"),
  table: z.string().min(1).max(1_024).refine(isStorable, "Expected a text that PostgreSQL can hold").openapi({
    example: "public.users",
  }),
  from: z.string().regex(NODE_NAME).openapi({ description: "the peer whose rows are right", example: "ams" }),
  dry_run: DryRun,
  share: Share,
  limit: Limit.openapi({ description: "of a dry run: differing rows to list" }),
  settle_seconds: SettleSeconds,
}).openapi("ResyncInput");
export type ResyncInput = z.infer<typeof ResyncInput>;

/** What is asked for. */
export const JobInput = z.discriminatedUnion("type", [VerifyInput, RepairInput, ResyncInput, CopyInput])
  .openapi(
    "JobInput",
  );
export type JobInput = z.infer<typeof JobInput>;

const Fault = z.object({ kind: z.string(), message: z.string(), hint: z.string() });
const RowKey = z.record(z.string(), z.string());

const VerifiedTable = z.object({
  table: z.string().openapi({ example: "public.users" }),
  outcome: z.enum(["equal", "differs", "undecided"]),
  problem: z.string().openapi({
    description: "why rows were not compared, or not to the end; empty if they were",
  }),
  rows: z.object({ here: z.number(), there: z.number() }).nullable().openapi({
    description: "when they were read",
  }),
  differences: z.array(z.union([
    z.object({ key: RowKey, difference: z.enum(["only_here", "only_there", "other_values"]) }),
    z.object({ row_hash: z.string(), here: z.number(), there: z.number() }),
  ])).openapi({ description: "of a table without key: how often the same row is on each node" }),
  undecided: z.array(z.object({
    key: RowKey.nullable(),
    reason: z.enum(["changing", "lagging", "awaiting_values"]),
  })),
  complete: z.boolean().openapi({
    description: "whether everything was compared and every difference is listed",
  }),
  other_versions: z.number().openapi({
    description: "rows that were looked at again and are alike, but for when and by whom they were written",
  }),
  diverged: z.boolean().openapi({ description: "marked as diverged, on either node" }),
}).openapi("VerifiedTable");

/** What a comparison has found. */
export const VerifyReport = z.object({
  node: z.string(),
  outcome: z.enum(["equal", "differs", "undecided", "failed"]),
  peers: z.array(z.object({
    peer: z.string(),
    outcome: z.enum(["equal", "differs", "undecided", "failed"]),
    error: Fault.nullable(),
    bytes: z.number().openapi({ description: "that the two nodes exchanged for it" }),
    tables: z.array(VerifiedTable),
  })),
}).openapi("VerifyReport");
export type VerifyReport = z.infer<typeof VerifyReport>;

const RepairedTable = z.object({
  table: z.string().openapi({ example: "public.users" }),
  outcome: z.enum(["equal", "differs", "undecided"]).openapi({
    description: "after the repair; of a dry run before it",
  }),
  problem: z.string().openapi({
    description: "why rows were not compared or not repaired, or not to the end; empty if they were",
  }),
  rows: z.object({ here: z.number(), there: z.number() }).nullable().openapi({
    description: "when they were read",
  }),
  overwritten: z.number(),
  inserted: z.number(),
  deleted: z.number(),
  given: z.object({ overwritten: z.number(), inserted: z.number(), deleted: z.number() }).openapi({
    description: "the same at the peer, of a repair by the newest rows",
  }),
  changed_meanwhile: z.number().openapi({
    description: "rows that changed on either node between the look and the write, and were left",
  }),
  refused: z.number().openapi({ description: "rows that could not be written" }),
  refusals: z.array(z.object({ key: RowKey, reason: z.string() })).openapi({
    description: "these rows, not more than 10,000",
  }),
  planned: z.array(z.object({
    key: RowKey,
    action: z.enum(["overwrite", "insert", "delete"]),
    node: z.string(),
  })).openapi({ description: "of a dry run: what would be done, and on which node, not more than limit" }),
  undecided: z.array(z.object({
    key: RowKey.nullable(),
    reason: z.enum(["changing", "lagging", "awaiting_values"]),
  })),
  complete: z.boolean().openapi({
    description: "whether everything was compared, and of a dry run is listed",
  }),
  diverged: z.boolean().openapi({ description: "marked as diverged, on either node" }),
}).openapi("RepairedTable");
export type RepairedTable = z.infer<typeof RepairedTable>;

/** What was copied. */
export const CopyReport = z.object({
  node: z.string(),
  from: z.string(),
  mode: z.enum(["empty", "replace", "keep", "merge"]),
  created: z.array(z.string()).openapi({
    description: "with create_schema: what was made",
    example: ["table public.t"],
  }),
  left_out: z.array(z.string()).openapi({
    description: "with create_schema: what was not taken over, and why",
  }),
  rows: z.number().openapi({ description: "that were copied; with keep and merge: that were compared here" }),
  tables: z.array(z.object({ table: z.string().openapi({ example: "public.users" }), rows: z.number() })),
  peers: z.array(z.object({
    peer: z.string(),
    outcome: z.enum(["equal", "differs", "undecided"]),
    taken: z.number().openapi({ description: "rows that were written here as the peer has them" }),
    given: z.number().openapi({ description: "rows that were written at the peer as they are here" }),
    removed: z.number().openapi({ description: "rows that were deleted here" }),
    removed_there: z.number().openapi({ description: "rows that were deleted at the peer" }),
    tables: z.array(RepairedTable),
  })).openapi({
    description: "with keep and merge: what was found and done, with the node that was named first",
  }),
}).openapi("CopyReport");
export type CopyReport = z.infer<typeof CopyReport>;

/** What a repair has done, or would do. */
export const RepairReport = z.object({
  node: z.string(),
  source: z.string().openapi({ description: "the peer" }),
  newest: z.boolean(),
  dry_run: z.boolean(),
  outcome: z.enum(["equal", "differs", "undecided", "failed"]),
  bytes: z.number().openapi({ description: "that the two nodes exchanged for it" }),
  tables: z.array(RepairedTable),
}).openapi("RepairReport");
export type RepairReport = z.infer<typeof RepairReport>;

/** A job without its result. */
export const JobSummary = z.object({
  id: z.string(),
  type: z.string(),
  state: z.enum(["queued", "running", "succeeded", "failed", "cancelled"]),
  input: z.looseObject({}),
  created_at: z.string(),
  started_at: z.string().nullable(),
  finished_at: z.string().nullable(),
  progress: z.number().min(0).max(1).nullable().openapi({ description: "null while it cannot be told" }),
  rows: z.number().nullable().openapi({ description: "read since it began; null once it has ended" }),
  bytes: z.number().nullable().openapi({
    description: "exchanged with peers since it began; null once it has ended",
  }),
  eta_seconds: z.number().nullable(),
  error: Fault.nullable().openapi({ description: "a job that failed may have a result all the same" }),
}).openapi("JobSummary");
export type JobSummary = z.infer<typeof JobSummary>;

/** A job. */
export const Job = JobSummary.extend({ result: z.union([VerifyReport, RepairReport, CopyReport]).nullable() })
  .openapi(
    "Job",
  );
export type Job = z.infer<typeof Job>;

/** All of them. */
export const JobList = z.object({ items: z.array(JobSummary), next_cursor: z.null() }).openapi("JobList");
export type JobList = z.infer<typeof JobList>;
