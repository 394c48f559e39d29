/**
 * What a link needs from the rest of the node, declared by the link.
 */
import type { AppliedHistory } from "../applied_history.ts";
import type { OffsetInterval } from "../clock_offset.ts";
import type { Lsn } from "../lsn.ts";
import type { Source, SourceBatch } from "../pgoutput/source.ts";
import type { Channel, ProvenPeer } from "../wire/channel.ts";
import type { SenderClock } from "../wire/clock_exchange.ts";
import type { Compression } from "../wire/compression.ts";
import type { Hello, WantRow, Welcome } from "../wire/frame.ts";
import type { RowAnswer } from "../wire/row_frames.ts";

/** The rest of the node, as one attempt of a link sees it. */
export interface SessionPorts {
  /** Makes the slot if it never was; fails while it cannot be used. */
  readonly prepare: () => Promise<void>;
  /** A channel to the peer; may take as long as the peer is away. */
  readonly connect: (signal: AbortSignal) => Promise<Channel>;
  /** Our first frame to the node at `remote`, with the positions as they are now. */
  readonly hello: (remote: string) => Promise<Hello>;
  /** Compares who answered with who was met before, and takes note of what it says; throws `fenced`. */
  readonly recognise: (welcome: Welcome, proven: ProvenPeer | null) => Promise<void>;
  /** What the peer has is left out, and what it takes in binary form may come so. */
  readonly openSource: (
    startLsn: Lsn,
    peer: Pick<Welcome, "copied" | "binaryTypes">,
    signal: AbortSignal,
  ) => Promise<Source>;
  /** The time now, microseconds since 2000-01-01 UTC, and where the WAL ends then: what was committed before the one
   * ends before the other. */
  readonly readClock: () => Promise<WalClock>;
  /** Resolves, once for each time, when the peer is to be asked to try its own link to this node again. */
  readonly asksAgain: (signal: AbortSignal) => Promise<void>;
  /** The same, when the peer is to open a stream on which it answers about its tables. */
  readonly callsBack: (signal: AbortSignal) => Promise<void>;
  /** What this node has of other nodes. */
  readonly history: AppliedHistory;
  /** What heartbeats say the time by. */
  readonly clock: SenderClock;
  /** A row that the receiver asks for, as it is here now. */
  readonly readRow: (want: WantRow) => Promise<RowAnswer>;
  /** Puts an ack on disk; the slot is confirmed after it returns. */
  readonly storeAck: (endLsn: Lsn) => Promise<void>;
}

/** A moment by the server's clock and in its WAL. */
export interface WalClock {
  readonly timestamp: bigint;
  readonly walLsn: Lsn;
}

/** How far a session is, for status and metrics. */
export interface SessionObserver {
  /** The handshake is done and the stream begins after `resumeLsn`; `walLsn` is where the WAL ended then. */
  readonly started: (begin: { resumeLsn: Lsn; walLsn: Lsn; compression: Compression | null }) => void;
  /** A batch of messages was sent. */
  readonly sent: (batch: SourceBatch) => void;
  /** So many bytes were put on the channel: frames, compressed if they are. */
  readonly wrote: (bytes: number) => void;
  readonly acked: (endLsn: Lsn) => void;
  /** The clock of the receiver's PostgreSQL minus ours, as a heartbeat tells. */
  readonly clock: (offset: OffsetInterval) => void;
}
