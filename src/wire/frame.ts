/**
 * The frames that two nodes exchange, as values. Bytes: `docs/PROTOCOL.md`.
 */
import type { Lsn } from "../lsn.ts";
import type { SeenNode } from "../seen_versions.ts";
import type { Compression } from "./compression.ts";

/** Version of the frames and of the handshake; both ends must speak the same. */
export const PROTOCOL_VERSION = 4;

/** Who a node is; both sides say it before any data. */
export interface NodeIdentity {
  /** Name of the cluster; nodes of different clusters never exchange rows. */
  readonly cluster: string;
  readonly node: string;
  /** UUID of this life of the database; a restored or cloned database has one that its host does not know. */
  readonly incarnation: string;
  /** `pg_control_system().system_identifier`, a 64-bit integer as text. */
  readonly systemIdentifier: string;
  readonly timeline: number;
  /** `server_version_num`, such as 180004. */
  readonly serverVersion: number;
  /** mmlite's own version. */
  readonly program: string;
}

/** The pusher's first frame. */
export interface Hello {
  readonly kind: "hello";
  readonly protocol: number;
  readonly identity: NodeIdentity;
  /** The node that the pusher means to reach; anyone else refuses. */
  readonly receiver: string;
  /** Where the receiver can dial the pusher's node; null if nowhere. */
  readonly url: string | null;
  /** Where the pusher's slot for this receiver began: a receiver without progress begins there too. */
  readonly slotLsn: Lsn;
  /** End of the last transaction that this receiver acked, as the pusher stored it; null before the first. */
  readonly ackedLsn: Lsn | null;
  /** How far the pusher's WAL is flushed: a receiver beyond it has seen a future that is gone. */
  readonly walLsn: Lsn;
  /** Names of the algorithms that the pusher could compress what it sends with, best first. */
  readonly compression: readonly string[];
  /** Stands for the pusher's policies of conflicts; null if it did not say. */
  readonly policies: string | null;
}

/** The rows of a node as another one has copied them. */
export interface CopiedFrom {
  /** `txid_current_snapshot()` there: the transactions that the rows have. */
  readonly snapshot: string;
  /** In the WAL there: all of these begin to commit before it. */
  readonly until: Lsn;
}

/** The receiver's answer when it takes the stream. */
export interface Welcome {
  readonly kind: "welcome";
  readonly protocol: number;
  readonly identity: NodeIdentity;
  /** End of the last transaction of the pusher that the receiver holds: where the stream begins. */
  readonly resumeLsn: Lsn;
  /** Whether the receiver's own link to the pusher dials it; if not, the pusher opens a return stream for it. */
  readonly dialsBack: boolean;
  /** How the pusher compresses everything that it sends after its Hello; null if not at all. */
  readonly compression: Compression | null;
  /** Stands for the receiver's policies of conflicts; null if it did not say. */
  readonly policies: string | null;
  /** OIDs of the built-in types whose values may come in binary form, if all that are sent are of them. */
  readonly binaryTypes: readonly number[];
  /** Of what follows, the transactions that came with the pusher's rows; null if none did. */
  readonly copied: CopiedFrom | null;
}

/** Either side's last frame when it cannot go on: the error that the other side's operator sees. */
export interface Refusal {
  readonly kind: "refusal";
  /** An `ErrorKind` of the sender's version. */
  readonly errorKind: string;
  readonly message: string;
  readonly hint: string;
}

/** Whole pgoutput messages, verbatim, in the order of the slot. */
export interface Data {
  readonly kind: "data";
  /** The messages, each behind its length; `MessageCursor` walks over them. */
  readonly payload: Uint8Array;
}

/** The first piece of a message too long for one frame. */
export interface FragmentStart {
  readonly kind: "fragment_start";
  /** Bytes of the whole message. */
  readonly totalLength: number;
  readonly bytes: Uint8Array;
}

/** A further piece of the message that `fragment_start` announced. */
export interface Fragment {
  readonly kind: "fragment";
  readonly bytes: Uint8Array;
}

/** The receiver holds everything up to here on disk. */
export interface Ack {
  readonly kind: "ack";
  readonly endLsn: Lsn;
}

/** Sent by both sides at an interval, so that silence means that the other side is gone. */
export interface Heartbeat {
  readonly kind: "heartbeat";
  /** The clock of the sender's PostgreSQL, microseconds since 1970-01-01 UTC. */
  readonly sentAt: bigint;
  /** What tells the other side how far the clocks are apart; missing before the handshake is done. */
  readonly clock?: HeartbeatClock;
}

/** One half of an exchange of clocks. */
export interface HeartbeatClock {
  /** How far `sentAt` may be from that clock, microseconds. */
  readonly uncertainty: number;
  /** The other side's last heartbeat: when it was sent, and how long ago it came here, microseconds; null before it. */
  readonly echo: { readonly sentAt: bigint; readonly heldFor: bigint } | null;
}

/** Whatever the pusher committed before a time has been pushed before this frame. */
export interface CaughtUp {
  readonly kind: "caught_up";
  /** Microseconds since 2000-01-01 UTC, by the clock of the pusher's PostgreSQL. */
  readonly committedBefore: bigint;
}

/** Whatever ends up to a position in the pusher's WAL, and is for the receiver, has been pushed before this frame. */
export interface Passed {
  readonly kind: "passed";
  readonly walLsn: Lsn;
}

/** What the pusher had of other nodes when it committed the transactions that follow. */
export interface Seen {
  readonly kind: "seen";
  /** The nodes whose values have changed since the last such frame; at least one. */
  readonly nodes: readonly SeenNode[];
}

/** The pusher asks the receiver to try its own link to the pusher again: what stopped it may be over. */
export interface TryAgain {
  readonly kind: "try_again";
}

/** The pusher, which cannot dial the receiver, asks it to open a stream on which it answers about its tables. */
export interface CallBack {
  readonly kind: "call_back";
}

/** The receiver asks for a row that the pusher wrote: what came of it had not all its values. */
export interface WantRow {
  readonly kind: "want_row";
  /** By which the answer is known. */
  readonly id: number;
  readonly schema: string;
  readonly name: string;
  /** The columns that tell which row, and their values as text. */
  readonly key: readonly { readonly column: string; readonly value: Uint8Array }[];
}

/** A piece of the answer to `want_row`. */
export interface RowPiece {
  readonly kind: "row";
  readonly id: number;
  readonly isLast: boolean;
  readonly bytes: Uint8Array;
}

/** A frame. */
export type Frame =
  | Hello
  | Welcome
  | Refusal
  | Data
  | FragmentStart
  | Fragment
  | Ack
  | Heartbeat
  | CaughtUp
  | Passed
  | Seen
  | TryAgain
  | CallBack
  | WantRow
  | RowPiece;
