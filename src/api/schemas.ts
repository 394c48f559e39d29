/**
 * The JSON of the control API: zod schemas, from which the types, the validation of bodies and the OpenAPI
 * document all follow.
 *
 * Keys are snake_case. LSNs are text (`16/B374D848`), amounts of bytes and identifiers of 64 bits are strings of
 * digits, counts are numbers, times are RFC 3339 in UTC. What a node says may gain keys; what a client sends may
 * not hold unknown ones.
 */
import { z } from "@hono/zod-openapi";
import { ERROR_POLICY, type ErrorKind } from "../errors.ts";
import { NODE_NAME, NODE_NAME_RULE } from "../node_name.ts";
import { PEER_STATES } from "../peer_state.ts";
import { TablePattern } from "./pattern_schemas.ts";

/** The name of a node or peer, as it stands in paths. */
export const PeerName = z.string()
  .regex(NODE_NAME, `Expected ${NODE_NAME_RULE}`)
  .openapi({ example: "fra" });

/** A position in a WAL. */
export const LsnText = z.string().regex(/^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/).openapi({ example: "16/B374D848" });
const ByteAmount = z.string().regex(/^-?[0-9]+$/).openapi({ example: "8192" });
const Uint64Text = z.string().regex(/^[0-9]+$/).openapi({ example: "7234567890123456789" });
/** A time in UTC. */
export const Time = z.iso.datetime().openapi({ example: "2026-11-22T10:00:00.123Z" });
const Count = z.int().nonnegative();
const Seconds = z.number();

/** A kind of error; the keys of `ERROR_POLICY`. */
export const ErrorKindName = z.enum(Object.keys(ERROR_POLICY) as [ErrorKind, ...ErrorKind[]])
  .openapi("ErrorKind");

/** Something that is wrong, with its remedy. */
export const Trouble = z.object({
  kind: ErrorKindName,
  message: z.string(),
  hint: z.string(),
}).openapi("Trouble");
export type Trouble = z.infer<typeof Trouble>;

/** The last thing that went wrong, and when. */
export const LastError = Trouble.extend({ at: Time }).openapi("LastError");
export type LastError = z.infer<typeof LastError>;

/** What a link does at the moment. */
export const PeerState = z.enum(PEER_STATES).openapi("PeerState");
export type PeerState = z.infer<typeof PeerState>;

/** What the receiving side of a peer does at the moment. */
export const InboundState = z.enum(["disconnected", "waiting", "copying", "streaming", "blocked", "fenced"])
  .openapi(
    "InboundState",
    {
      description:
        "waiting: this node dialled the peer, which cannot dial it, and the peer does not push; copying: nothing is taken " +
        "before the rows of this node have come",
    },
  );
export type InboundState = z.infer<typeof InboundState>;

/** The slot that feeds a peer, from `pg_replication_slots`; null where the server is too old to tell. */
export const SlotStatus = z.object({
  name: z.string(),
  confirmed_flush_lsn: LsnText.nullable(),
  restart_lsn: LsnText.nullable(),
  retained_wal_bytes: ByteAmount.nullable(),
  wal_status: z.string().nullable().openapi({
    description: "reserved, extended, unreserved or lost; from 13 on",
  }),
  safe_wal_size: ByteAmount.nullable(),
  active: z.boolean(),
}).openapi("SlotStatus");
export type SlotStatus = z.infer<typeof SlotStatus>;

/** What arrives from a peer and is applied here. */
export const InboundStatus = z.object({
  state: InboundState,
  applied_lsn: LsnText.nullable().openapi({ description: "position in the peer's WAL, not in this node's" }),
  applied_commit_timestamp: Time.nullable(),
  lag_seconds: Seconds.nullable(),
  transactions: Count,
  changes: Count,
  last_error: LastError.nullable(),
  blocked_lsn: LsnText.nullable().openapi({
    description:
      "of the transaction that cannot be applied, by its commit in the peer's WAL: what `skip` takes",
  }),
  awaited_rows: Count.nullable().openapi({
    description: "rows here that await values of the peer, which it was asked for or will be once it can be",
  }),
}).openapi("InboundStatus");
export type InboundStatus = z.infer<typeof InboundStatus>;

/** One peer: the link to it and what arrives from it. Counters count since the process started. */
export const PeerStatus = z.object({
  name: PeerName,
  url: z.string().nullable().openapi({ description: "null for a peer that dials this node" }),
  state: PeerState,
  since: Time.openapi({ description: "when the state began" }),
  awaits_dial: z.boolean().openapi({
    description: "cannot be dialled, and has not dialled this node: what is for it waits here",
  }),
  certificate_expires_at: Time.nullable().openapi({
    description: "of the certificate that it showed when it connected last; null on cleartext and before",
  }),
  removing: z.boolean().openapi({ description: "deleted; goes once everything is delivered" }),
  away_since: Time.nullable().openapi({ description: "since when nothing goes to it; null while it does" }),
  evicted_at: Time.nullable().openapi({
    description: "when its slot was dropped for the WAL that it kept (limits); null while it was not",
  }),
  repair_due_since: Time.nullable().openapi({
    description:
      "rows may differ from its own, because something was never delivered; null if nothing says so",
  }),
  policies_differ: z.boolean().openapi({
    description: "it settles conflicts by other policies than this node, as it said last",
  }),
  sent_lsn: LsnText.nullable(),
  acked_lsn: LsnText.nullable(),
  lag_bytes: ByteAmount.nullable(),
  lag_seconds: Seconds.nullable(),
  slot: SlotStatus.nullable(),
  clock_skew_seconds: Seconds.nullable().openapi({
    description: "the clock of the peer's PostgreSQL minus this node's; null before it was measured",
  }),
  clock_skew_uncertainty_seconds: Seconds.nullable().openapi({
    description: "how much that may be more or less: half of the time that heartbeats are under way",
  }),
  inbound: InboundStatus,
  sent_transactions: Count,
  compression: z.enum(["zstd", "gzip"]).nullable().openapi({
    description: "of what is sent; null for none, and while nothing flows",
  }),
  sent_message_bytes: ByteAmount.openapi({ description: "of pgoutput messages, as PostgreSQL sent them" }),
  sent_bytes: ByteAmount.openapi({
    description: "put on the stream: messages in frames, compressed if they are; HTTP/2 and TLS come on top",
  }),
  reconnects: Count,
  last_error: LastError.nullable(),
}).openapi("PeerStatus");
export type PeerStatus = z.infer<typeof PeerStatus>;

/** The local PostgreSQL; null what was never learned because no connection has succeeded yet. */
export const PostgresStatus = z.object({
  connected: z.boolean(),
  version: z.string().nullable().openapi({ example: "18.4" }),
  version_num: z.int().nullable().openapi({ example: 180004 }),
  system_identifier: Uint64Text.nullable(),
  timeline: z.int().nullable(),
  database: z.string().nullable(),
  host: z.string().nullable(),
  wal_lsn: LsnText.nullable(),
  track_commit_timestamp: z.boolean().nullable(),
  clock_offset_seconds: Seconds.nullable().openapi({
    description: "its clock minus that of the host of mmlite",
  }),
  problem: Trouble.nullable(),
}).openapi("PostgresStatus");
export type PostgresStatus = z.infer<typeof PostgresStatus>;

/** Who this node is and where it listens. */
export const NodeIdentity = z.object({
  name: z.string(),
  cluster: z.string().nullable(),
  incarnation: z.string().nullable(),
  version: z.string(),
  started_at: Time,
  peer_address: z.string().openapi({ example: "0.0.0.0:7432" }),
  api_address: z.string().nullable().openapi({ example: "127.0.0.1:7433" }),
  advertised_url: z.string().nullable(),
  insecure: z.boolean().openapi({ description: "the peer port speaks cleartext" }),
}).openapi("NodeIdentity");
export type NodeIdentity = z.infer<typeof NodeIdentity>;

/** How this node proves to its peers who it is. */
export const TlsStatus = z.object({
  identity: z.string().openapi({ example: "mmlite://mmlite/ams" }),
  certificate_expires_at: Time,
  ca_expires_at: Time.openapi({ description: "when the CA that issued it expires" }),
}).openapi("TlsStatus");
export type TlsStatus = z.infer<typeof TlsStatus>;

/** The whole node on one page. */
export const NodeStatus = z.object({
  node: NodeIdentity,
  tls: TlsStatus.nullable().openapi({ description: "null where the peer port speaks cleartext" }),
  postgres: PostgresStatus,
  peers: z.array(PeerStatus),
  tables: z.object({
    replicated: Count,
    insert_only: Count,
    diverged: Count.openapi({ description: "marked, because nodes may hold different rows" }),
  }),
  conflicts: z.object({
    since_start: z.record(z.string(), Count).openapi({ description: "by type" }),
    kept: Count.nullable().openapi({ description: "on record; beyond 10,000 an estimate" }),
  }),
  quarantine: z.object({ transactions: Count.nullable() }).openapi({
    description: "null while PostgreSQL is away",
  }),
  ready: z.boolean(),
  problems: z.array(Trouble),
}).openapi("NodeStatus");
export type NodeStatus = z.infer<typeof NodeStatus>;

/** What PUT takes for a peer. */
export const PeerInput = z.strictObject({
  url: z.string().max(2048)
    .refine(isPeerUrl, "Expected scheme, host and port alone, such as http://fra.example:7432")
    .nullish()
    .openapi({
      description: "where the peer's peer port is; null or absent for a peer that dials this node",
      example: "http://fra.example:7432",
    }),
}).openapi("PeerInput");
export type PeerInput = z.infer<typeof PeerInput>;

/** One table of the publication; `insert_only` has no usable key, and `hint` says how to give it one. */
export const TableStatus = z.object({
  schema: z.string(),
  name: z.string(),
  state: z.enum(["replicated", "insert_only"]),
  hint: z.string().nullable(),
  key_columns: z.array(z.string()),
  estimated_rows: Count.nullable().openapi({
    description: "the planner's estimate; null before the first ANALYZE",
  }),
  policy: z.string().openapi({ description: "a ConflictPolicy", example: "last_update_wins" }),
  types: z.record(z.string(), z.string()).openapi({
    description: "for single types of conflict another policy",
    example: { update_missing: "error" },
  }),
  policy_from: z.enum(["default", "file", "api"]),
  diverged: z.object({ since: z.string().openapi({ format: "date-time" }), reason: z.string() }).nullable()
    .openapi({ description: "nodes may hold different rows" }),
}).openapi("TableStatus");
export type TableStatus = z.infer<typeof TableStatus>;

/** A page of peers. */
export const PeerList = listOf(PeerStatus).openapi("PeerList");
/** A page of tables. */
export const TableList = listOf(TableStatus).extend({ patterns: z.array(TablePattern) }).openapi("TableList");

/** What `/version` answers. */
export const VersionInfo = z.object({ name: z.literal("mmlite"), version: z.string() }).openapi(
  "VersionInfo",
);

/** A node that is not applied here as far as was waited for. */
export const BehindNode = z.object({
  node: PeerName,
  wanted_lsn: LsnText.openapi({ description: "in that node's WAL, as is `applied_lsn`" }),
  applied_lsn: LsnText.nullable().openapi({ description: "null if nothing of it is applied here" }),
  behind_bytes: ByteAmount.nullable(),
  inbound_state: InboundState,
  last_error: Trouble.nullable().openapi({ description: "why nothing comes, or what comes is refused" }),
}).openapi("BehindNode");
export type BehindNode = z.infer<typeof BehindNode>;

/** RFC 9457 problem details; `kind` names the row of `ERROR_POLICY`, and `type` is that as a URN. */
export const Problem = z.object({
  type: z.string().openapi({ example: "urn:mmlite:problem:not_found" }),
  kind: ErrorKindName,
  title: z.string(),
  status: z.int(),
  detail: z.string(),
  hint: z.string(),
  errors: z.array(z.object({
    pointer: z.string().openapi({ description: "JSON pointer into the body, or the parameter's name" }),
    message: z.string(),
  })).optional(),
  behind: z.array(BehindNode).optional().openapi({ description: "what `/v1/wait` still waited for" }),
}).openapi("Problem");
export type Problem = z.infer<typeof Problem>;

function listOf<Item extends z.ZodType>(item: Item) {
  return z.object({ items: z.array(item), next_cursor: z.string().nullable() });
}

/** Whether a text is an http or https URL without credentials, path, query and fragment. */
function isPeerUrl(text: string): boolean {
  const url = URL.parse(text);
  if (url === null || !/^https?:\/\//i.test(text)) return false;
  return url.href === `${url.origin}/` && !/[?#]$/.test(text);
}
