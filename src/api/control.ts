/**
 * What the control API needs of a node: declared here by the consumer, provided by the assembly.
 *
 * Every method may throw an `MmliteError`; its kind decides the HTTP status.
 */
import type { CreatedInvite, Invite, InviteInput } from "./invite_schemas.ts";
import type { QuarantineDetail, QuarantineEntry, QuarantineList } from "./quarantine_schemas.ts";
import type { NodeStatus, PeerInput, PeerStatus, TableStatus } from "./schemas.ts";

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
 * A condition of the caller on what a change replaces: called with the peer as it is (null if there is none)
 * in the same turn as the change is decided, before anything is written; throws `precondition_failed`.
 */
export type Precondition = (current: PeerStatus | null) => void;

/** Options of {@link NodeControl.putPeer}. */
export interface PutPeerOptions {
  /** Check everything, change nothing. */
  readonly dryRun: boolean;
  readonly precondition?: Precondition;
}

/** Options of {@link NodeControl.removePeer}. */
export interface RemovePeerOptions {
  /** Drop the slot at once instead of delivering what is left first. */
  readonly force: boolean;
  readonly precondition?: Precondition;
}

/** Which part of a list is asked for. */
export interface Page {
  readonly limit: number;
  /** What the page before ended with. */
  readonly cursor?: string;
}

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
  /** Resolves to `removed` if the peer is gone, to `draining` if it goes once all is delivered; throws `not_found`. */
  removePeer(name: string, options: RemovePeerOptions): Promise<"removed" | "draining">;
  /** Stops the link until {@link resumePeer}, also across restarts; throws `not_found`. */
  pausePeer(name: string): Promise<PeerStatus>;
  /** Throws `not_found`. */
  resumePeer(name: string): Promise<PeerStatus>;
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

  /** Makes a one-time token; throws `config` where this node lacks what it takes. */
  createInvite(input: InviteInput): Promise<CreatedInvite>;
  listInvites(): Promise<readonly Invite[]>;
  /** Throws `not_found`. */
  deleteInvite(id: string): Promise<void>;

  listTables(): Promise<readonly TableStatus[]>;
  /** Throws `not_found`. */
  getTable(schema: string, name: string): Promise<TableStatus>;
}
