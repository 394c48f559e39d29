/**
 * What an inbox needs from the rest of the node, declared by the inbox.
 */
import type { OffsetInterval } from "../clock_offset.ts";
import type { MmliteError } from "../errors.ts";
import type { Lsn } from "../lsn.ts";
import type { SeenNode } from "../seen_versions.ts";
import type { ProvenPeer } from "../wire/channel.ts";
import type { SenderClock } from "../wire/clock_exchange.ts";
import type { Compression } from "../wire/compression.ts";
import type { CopiedFrom, Hello, NodeIdentity } from "../wire/frame.ts";
import type { RowAnswer } from "../wire/row_frames.ts";

/** Applies one origin's transactions, in order. */
export interface TransactionSink {
  /** One verbatim pgoutput message, from `start` to `end` in `bytes`, the whole of them where left out; returns a
   * promise only when the caller must wait. */
  push(bytes: Uint8Array, start?: number, end?: number): Promise<void> | void;
  /** What the sender had of other nodes when it committed the transactions that follow, where that has changed; a promise
   * only when the caller must wait. */
  seen(nodes: readonly SeenNode[]): Promise<void> | void;
  /** Whatever the sender committed before this time, microseconds since 2000-01-01 UTC, has been pushed. */
  caughtUp(committedBefore: bigint): void;
  /** Whatever ends up to here in the sender's WAL, and is for this node, has been pushed. */
  passed(walLsn: Lsn): void;
  /** A row that was asked for, as the sender has it. */
  fetched(row: WantedRow, answer: RowAnswer & { kind: "row" }): Promise<void>;
  /** Nothing more is at hand for the moment: commit what is whole. */
  flush(): void;
  close(): Promise<void>;
  /** Rejects when applying has failed. */
  readonly failed: Promise<never>;
}

/** A row that awaits values of the sender. */
export interface WantedRow {
  readonly schema: string;
  readonly name: string;
  readonly key: readonly { readonly column: string; readonly value: Uint8Array }[];
  /** The hash of its key, a 64-bit integer as text. */
  readonly hash: string;
}

/** The rows that await values of a sender. */
export interface Unsent {
  /** Some of them, each once, those that have waited longest first. */
  readonly wanted: (limit: number) => Promise<readonly WantedRow[]>;
  /** What came up to a time is not awaited any more, microseconds since 2000-01-01 UTC; `isLost` if it cannot be had. */
  readonly forget: (row: WantedRow, until: bigint, isLost: boolean) => Promise<void>;
  /** Calls back when there may be more of them, until the signal aborts. */
  readonly listen: (more: () => void, signal: AbortSignal) => void;
}

/** A sender that was let in. */
export interface Admission {
  /** This node, for the Welcome. */
  readonly identity: NodeIdentity;
  /** End of the sender's last transaction that is applied here. */
  readonly resumeLsn: Lsn;
  /** What came of the sender with its rows, for the Welcome. */
  readonly copied: CopiedFrom | null;
  /** Whether this node dials the sender, for the Welcome. */
  readonly dialsBack: boolean;
  /** How the sender is to compress, for the Welcome; null for not at all. */
  readonly compression: Compression | null;
  /** Stands for this node's policies of conflicts, for the Welcome. */
  readonly policies: string;
  readonly unsent: Unsent;
  /** Opens the apply session at that position; `onDurable` is called as transactions reach the disk. */
  readonly openSink: (onDurable: (endLsn: Lsn) => void, signal: AbortSignal) => Promise<TransactionSink>;
}

/** The rest of the node, as one receiving session sees it. */
export interface InboxPorts {
  /** Decides whether a sender may apply here, changing nothing of its; throws the error that it gets to see. */
  readonly recognise: (hello: Hello, proven: ProvenPeer | null) => Promise<void>;
  /** Begins the session of a sender that was recognised. */
  readonly admit: (hello: Hello) => Promise<Admission>;
  /** A sender asks this node to try its own link to it again. */
  readonly askedAgain: (sender: string) => void;
  /** A sender that cannot dial this node asks it to open a stream on which it answers about its tables. */
  readonly calledBack: (sender: string) => void;
  /** A session has failed; what its sender and status are told, once this node has done what it does by itself. */
  readonly judge: (sender: string, error: MmliteError) => Promise<MmliteError>;
  /** What heartbeats say the time by. */
  readonly clock: SenderClock;
  /** The clock of a sender's PostgreSQL minus ours, as a heartbeat tells. */
  readonly clockOf: (sender: string, offset: OffsetInterval) => void;
  /** What comes from a sender is doing, for status. */
  readonly observe: (sender: string, state: InboundState) => void;
}

/** A receiving session, as the newer one of its sender sees it. */
export interface RunningSession {
  readonly abort: () => void;
  /** Settles when it has let go of the database. */
  readonly ended: Promise<void>;
}

/** What arrives from a sender, at the moment. */
export type InboundState =
  | { readonly name: "streaming" }
  /** The stream that this node opened is there, and the sender does not push. */
  | { readonly name: "waiting" }
  | { readonly name: "disconnected" }
  | { readonly name: "failed"; readonly error: MmliteError };
