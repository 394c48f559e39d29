/**
 * What a link needs from the rest of the node, declared by the link.
 */
import type { Lsn } from "../lsn.ts";
import type { Channel } from "../wire/channel.ts";
import type { Hello, NodeIdentity } from "../wire/frame.ts";

/** Some whole messages of the slot, in order. */
export interface OutgoingBatch {
  /** Verbatim pgoutput messages of local transactions; none if only `walEnd` moved. */
  readonly messages: readonly Uint8Array[];
  /** End of the last transaction that ends in this batch; null if none does. */
  readonly endLsn: Lsn | null;
  /** Everything of the WAL up to here has been passed on or dropped. */
  readonly walEnd: Lsn;
}

/** Where a link's transactions come from: a replication slot. */
export interface TransactionSource {
  /** Local transactions from the start position on; iterated once, never ends by itself. */
  batches(): AsyncIterable<OutgoingBatch>;
  /** The receiver's ack is on our disk up to here: the slot may move. Only forward. */
  confirm(ackedLsn: Lsn): void;
  close(): Promise<void>;
}

/** The rest of the node, as one attempt of a link sees it. */
export interface SessionPorts {
  /** Our first frame, with the positions as they are now. Fails while the slot cannot be used. */
  readonly hello: () => Promise<Hello>;
  readonly dial: (signal: AbortSignal) => Promise<Channel>;
  /** Compares who answered with who was met before; throws `fenced`. */
  readonly recognise: (identity: NodeIdentity) => Promise<void>;
  readonly openSource: (startLsn: Lsn, signal: AbortSignal) => Promise<TransactionSource>;
  /** Puts an ack on disk; the slot is confirmed after it returns. */
  readonly storeAck: (endLsn: Lsn) => Promise<void>;
}

/** How far a session is, for status and metrics. */
export interface SessionObserver {
  /** The handshake is done and the stream begins after `resumeLsn`; `walLsn` is where the WAL ended then. */
  readonly started: (positions: { resumeLsn: Lsn; walLsn: Lsn }) => void;
  readonly sent: (batch: OutgoingBatch, bytes: number) => void;
  readonly acked: (endLsn: Lsn) => void;
  /** The receiver's clock when it sent a heartbeat, microseconds since 1970-01-01 UTC. */
  readonly heartbeat: (sentAt: bigint) => void;
}
