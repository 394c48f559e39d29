/**
 * What the control API needs of a node: declared here by the consumer, provided by the assembly.
 *
 * Every method may throw an `MmliteError`; its kind decides the HTTP status.
 */
import type { ConflictType, Resolution } from "../conflict_policy.ts";
import type { TableName } from "../table_name.ts";
import type { ConflictList, EventPayloads, TablePolicyInput, WholeConflict } from "./conflict_schemas.ts";
import type { CreatedInvite, Invite, InviteInput } from "./invite_schemas.ts";
import type { Job, JobInput, JobSummary } from "./job_schemas.ts";
import type { z } from "@hono/zod-openapi";
import type { PatternChange, PatternKind, TablePattern } from "./pattern_schemas.ts";
import type { QuarantineDetail, QuarantineEntry, QuarantineList } from "./quarantine_schemas.ts";
import type { BehindNode, NodeStatus, PeerInput, PeerStatus, TableStatus } from "./schemas.ts";
import type { RemovalReport } from "./removal_schemas.ts";
import type { PositionToken } from "./token_schemas.ts";
import type { MmliteError } from "../errors.ts";

/** One thing that `/readyz` looks at. */
export interface HealthCheck {
  /** Short and stable, such as `postgres`. */
  readonly name: string;
  readonly ok: boolean;
  /** One sentence for people; empty if there is nothing to say. */
  readonly message: string;
}

/** Whether the node can do its own part; a peer that is down does not count. */
export interface Health {
  readonly ready: boolean;
  readonly checks: readonly HealthCheck[];
}

/**
 * A condition of the caller on what a change replaces: called with it as it is (null if there is none)
 * in the same turn as the change is decided, before anything is written; throws `precondition_failed`.
 */
export type Precondition<Resource> = (current: Resource | null) => void;

/** Options of {@link NodeControl.putPeer}. */
export interface PutPeerOptions {
  /** Check everything, change nothing. */
  readonly dryRun: boolean;
  readonly precondition?: Precondition<PeerStatus>;
}

/** Options of {@link NodeControl.removePeer}. */
export interface RemovePeerOptions {
  /** Drop the slot at once instead of delivering what is left first. */
  readonly force: boolean;
  /** Change nothing, and tell what removing it by force would leave undelivered. */
  readonly dryRun: boolean;
  readonly precondition?: Precondition<PeerStatus>;
}

/** Options of {@link NodeControl.setTablePolicy}. */
export interface TablePolicyOptions {
  /** Check everything, change nothing; the answer is as the change would make it. */
  readonly dryRun: boolean;
  readonly precondition?: Precondition<TableStatus>;
}

/** Which conflicts are wanted; what is left out does not matter. */
export interface ConflictFilter {
  /** RFC 3339. */
  readonly since?: string;
  readonly table?: TableName;
  readonly type?: ConflictType;
  readonly resolution?: Resolution;
  /** Only those with a lower id. */
  readonly before?: string;
  readonly limit: number;
}

type EventName = keyof typeof EventPayloads;

/** Something that happened; `id` is where to go on from, for conflicts. */
export type NodeEvent = {
  [Name in EventName]: {
    readonly name: Name;
    readonly id: string | null;
    readonly data: z.infer<typeof EventPayloads[Name]>;
  };
}[EventName];

/** Which part of a list is asked for. */
export interface Page {
  readonly limit: number;
  /** What the page before ended with. */
  readonly cursor?: string;
}

/** What became of a wait for a token; `error` says that the time has run out, and for whom. */
export type WaitOutcome =
  | { readonly reached: true; readonly waitedSeconds: number }
  | { readonly reached: false; readonly error: MmliteError; readonly behind: BehindNode[] };

/** A node, as far as the control API can see and steer it. */
export interface NodeControl {
  status(): Promise<NodeStatus>;
  health(): Promise<Health>;
  /** The metrics in Prometheus's text exposition format. */
  metrics(): Promise<string>;

  listPeers(): Promise<readonly PeerStatus[]>;
  /** Throws `not_found`. */
  getPeer(name: string): Promise<PeerStatus>;
  /** Creates or replaces a peer, durably; the same input twice changes nothing the second time. */
  putPeer(
    name: string,
    input: PeerInput,
    options: PutPeerOptions,
  ): Promise<{ readonly created: boolean; readonly peer: PeerStatus }>;
  /** Resolves to `removed` if the peer is gone, to `draining` if it goes once all is delivered, and to what was, or would
   * be, left undelivered where that was forced, or is only asked; throws `not_found`. */
  removePeer(name: string, options: RemovePeerOptions): Promise<"removed" | "draining" | RemovalReport>;
  /** Stops the link until {@link resumePeer}, also across restarts; throws `not_found`. */
  pausePeer(name: string): Promise<PeerStatus>;
  /** Throws `not_found`. */
  resumePeer(name: string): Promise<PeerStatus>;
  /** Begins anew with a peer that stays one: with what is sent to it, what is received of it, or both and who it is;
   * throws `not_found`, or `conflict` for one that is being removed. */
  renewPeer(name: string, way: "sent" | "received" | "both"): Promise<PeerStatus>;
  /** Tries a blocked or waiting link again at once, and asks the peer to do the same; throws `not_found`. */
  retryPeer(name: string): Promise<PeerStatus>;
  /** Has the blocked transaction of a peer at `lsn` set aside, also across restarts; throws `not_found`, or
   * `conflict` if none is blocked there. */
  skipPeer(name: string, lsn: string, options: { readonly dryRun: boolean }): Promise<PeerStatus>;

  listQuarantine(page: Page): Promise<QuarantineList>;
  /** A transaction with a page of its rows; throws `not_found`. */
  showQuarantined(id: string, page: Page): Promise<QuarantineDetail>;
  /** Applies a transaction and takes it out of quarantine; throws `not_found`, or what it fails of. */
  retryQuarantined(id: string, options: { readonly dryRun: boolean }): Promise<QuarantineEntry>;
  /** Throws `not_found`. */
  discardQuarantined(id: string): Promise<void>;

  /** A token of all that is visible here now; with `own` of what was committed here alone. */
  giveToken(options: { readonly own: boolean }): Promise<PositionToken>;
  /**
   * Waits until all that a token stands for is visible here. Throws `invalid_input` for what is no token, `conflict` for
   * one that can never be met here, `transient` where too many wait, `aborted` at the signal or when the node closes.
   */
  waitFor(
    token: string,
    options: { readonly timeoutMs: number; readonly signal: AbortSignal },
  ): Promise<WaitOutcome>;

  /** Makes a one-time token; throws `config` where this node lacks what it takes. */
  createInvite(input: InviteInput): Promise<CreatedInvite>;
  listInvites(): Promise<readonly Invite[]>;
  /** Throws `not_found`. */
  deleteInvite(id: string): Promise<void>;

  /** Begins a job, or puts it behind those that run; throws what is wrong with the input. */
  createJob(input: JobInput, options: { readonly dryRun: boolean }): Promise<Job>;
  /** The latest first. */
  listJobs(): Promise<readonly JobSummary[]>;
  /** Throws `not_found`. */
  getJob(id: string): Promise<Job>;
  /** Cancels a job, or forgets one that has ended; throws `not_found`. */
  removeJob(id: string): Promise<void>;

  listTables(): Promise<readonly TableStatus[]>;
  /** Throws `not_found`. */
  getTable(table: TableName): Promise<TableStatus>;
  /**
   * Sets how conflicts of a table are settled, durably, or with null goes back to the file's. Throws `not_found`, and
   * `config` for a policy under which nodes can come to differ, unless that is allowed.
   */
  setTablePolicy(
    table: TableName,
    input: TablePolicyInput | null,
    options: TablePolicyOptions,
  ): Promise<TableStatus>;
  /** By their text. */
  listPatterns(): readonly TablePattern[];
  /** Adds a pattern, or makes it one of that kind, durably; throws `invalid_input` for what is none. */
  putPattern(
    pattern: string,
    kind: PatternKind,
    options: { readonly dryRun: boolean },
  ): Promise<{ readonly created: boolean; readonly change: PatternChange }>;
  /** Takes a pattern away, one of the file too; throws `not_found`. */
  removePattern(pattern: string, options: { readonly dryRun: boolean }): Promise<PatternChange>;
  /** Clears the mark that nodes may hold different rows of a table; throws `not_found`. */
  clearTable(table: TableName, options: { readonly dryRun: boolean }): Promise<TableStatus>;

  /** Conflicts, the newest first. */
  listConflicts(filter: ConflictFilter): Promise<ConflictList>;
  /** Throws `not_found`. */
  getConflict(id: string): Promise<WholeConflict>;
  /**
   * What happens, until the signal aborts or the node closes: conflicts noted from now on, or after the event with
   * the id `after`; peers and problems as they are, then each change.
   */
  events(options: { readonly after: string | null; readonly signal: AbortSignal }): AsyncIterable<NodeEvent>;
}
