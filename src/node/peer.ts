/**
 * One peer as the running node sees it: its link, and the counts of both directions since the process started.
 */
import type { OffsetInterval } from "../clock_offset.ts";
import type { MmliteError } from "../errors.ts";
import type { InboundState } from "../inbox/ports.ts";
import { type AttemptReport, Link } from "../link/link.ts";
import type { SessionObserver, SessionPorts } from "../link/ports.ts";
import { runSession } from "../link/session.ts";
import type { Lsn } from "../lsn.ts";
import type { Eviction } from "../pg/peers.ts";
import type { MessageBatch } from "../pgoutput/message_batch.ts";
import { decodeCommit, MESSAGE_TYPE, messageType } from "../pgoutput/peek.ts";
import type { SourceBatch } from "../pgoutput/source.ts";
import type { Compression } from "../wire/compression.ts";
import { ageSeconds, unixMs } from "./clock.ts";
import { PeerClock } from "./peer_clock.ts";
import { ReturnLoop, type ReturnPorts } from "./return_loop.ts";

/** Least time between two samples of the un-acked, milliseconds; bounds their number with a slow peer. */
const SAMPLE_INTERVAL_MS = 100;
/** Samples kept; beyond, every other one is dropped, so the oldest stays exact. */
const MAX_SAMPLES = 1_000;

/** After this long without a transaction a receiving session is not behind, milliseconds. */
const QUIET_MS = 5_000;

interface Sample {
  readonly endLsn: Lsn;
  readonly committedAt: number;
}

/** Is told what metrics count. */
export interface PeerObserver {
  /** So many bytes of pgoutput messages. */
  sent(bytes: number): void;
  /** So many bytes on the channel. */
  wrote(bytes: number): void;
  /** An attempt after the first begins. */
  reconnected(): void;
}

/** How far the link to a peer has come in this server's WAL. */
export class OutboundProgress implements SessionObserver {
  /** The attempt that runs is reported to. */
  report: AttemptReport = { entered: () => {}, progressed: () => {} };
  sentLsn: Lsn | null = null;
  ackedLsn: Lsn | null = null;
  sentTransactions = 0;
  /** Bytes of pgoutput messages. */
  sentMessageBytes = 0;
  /** Bytes on the channel: framed, and compressed if the session does. */
  sentBytes = 0;
  /** How the last session compresses. */
  compression: Compression | null = null;
  /** Attempts of the link since the process started. */
  attempts = 0;
  #samples: Sample[] = [];
  #sampledAt = 0;
  /** Where the WAL ended when the session began: beyond it the link streams. */
  #catchupLsn: Lsn | null = null;
  #resumeLsn: Lsn | null = null;
  readonly #observer: PeerObserver;
  readonly #peerClock: PeerClock;

  constructor(observer: PeerObserver, peerClock: PeerClock) {
    this.#observer = observer;
    this.#peerClock = peerClock;
  }

  /** Age of the oldest transaction that was sent and not acked, seconds; 0 if there is none. */
  get lagSeconds(): number {
    const oldest = this.#samples[0];
    return oldest === undefined ? 0 : Math.max(0, (Date.now() - oldest.committedAt) / 1000);
  }

  started(begin: { resumeLsn: Lsn; walLsn: Lsn; compression: Compression | null }): void {
    const { resumeLsn, walLsn, compression } = begin;
    this.compression = compression;
    this.sentLsn = resumeLsn;
    // Applied by the session before, which broke before it could ack.
    if (this.#resumeLsn !== null && resumeLsn > this.#resumeLsn) this.report.progressed();
    this.#resumeLsn = resumeLsn;
    this.#samples = [];
    this.#catchupLsn = resumeLsn < walLsn ? walLsn : null;
    this.report.entered(this.#catchupLsn === null ? "streaming" : "catchup");
  }

  sent(batch: SourceBatch): void {
    const { messages } = batch;
    this.sentMessageBytes += messages.byteLength;
    this.#observer.sent(messages.byteLength);
    this.#count(messages);
    if (batch.endLsn !== null) this.sentLsn = batch.endLsn;
    if (this.#catchupLsn !== null && batch.walEnd >= this.#catchupLsn) {
      this.#catchupLsn = null;
      this.report.entered("streaming");
    }
  }

  wrote(bytes: number): void {
    this.sentBytes += bytes;
    this.#observer.wrote(bytes);
  }

  acked(endLsn: Lsn): void {
    if (this.#resumeLsn !== null && endLsn > this.#resumeLsn) this.report.progressed();
    this.ackedLsn = endLsn;
    const kept = this.#samples.findIndex((sample) => sample.endLsn > endLsn);
    this.#samples = kept < 0 ? [] : this.#samples.slice(kept);
  }

  clock(offset: OffsetInterval): void {
    this.#peerClock.heard(offset);
  }

  #count(messages: MessageBatch): void {
    let first = -1;
    let last = -1;
    for (let index = 0; index < messages.length; index++) {
      const type = messageType(messages.bytes(index), messages.start(index), messages.end(index));
      if (type !== MESSAGE_TYPE.commit) continue;
      this.sentTransactions++;
      if (first < 0) first = index;
      last = index;
    }
    // Those between the two were sent at the same moment: none of them would stay a sample.
    if (first >= 0) this.#sample(messages, first);
    if (last > first) this.#sample(messages, last);
  }

  #sample(messages: MessageBatch, index: number): void {
    const { endLsn, commitTimestamp } = decodeCommit(
      messages.bytes(index),
      messages.start(index),
      messages.end(index),
    );
    const now = performance.now();
    // The last sample is always the last transaction: while any is un-acked, one stands for it.
    if (this.#samples.length > 1 && now - this.#sampledAt < SAMPLE_INTERVAL_MS) this.#samples.pop();
    else this.#sampledAt = now;
    this.#samples.push({ endLsn, committedAt: unixMs(commitTimestamp) });
    if (this.#samples.length > MAX_SAMPLES) {
      this.#samples = this.#samples.filter((_, index) => index % 2 === 0);
    }
  }
}

/** What has arrived from a peer since the process started. */
export class InboundProgress {
  state: InboundState = { name: "disconnected" };
  /** Stays after the session has healed. */
  lastError: { readonly error: MmliteError; readonly at: Date } | undefined;
  transactions = 0;
  changes = 0;
  #lastLagSeconds = 0;
  #appliedAt = 0;

  /**
   * How long after its commit the last transaction became visible here, seconds; 0 once nothing has come for a
   * while, and null while nothing can come.
   */
  get lagSeconds(): number | null {
    if (this.state.name !== "streaming") return null;
    return Date.now() - this.#appliedAt > QUIET_MS ? 0 : this.#lastLagSeconds;
  }

  /** A transaction that committed at `commitTimestamp` (microseconds since 2000-01-01 UTC) is visible here. */
  applied(commitTimestamp: bigint, changes: number): void {
    this.transactions++;
    this.changes += changes;
    this.#appliedAt = Date.now();
    this.#lastLagSeconds = ageSeconds(commitTimestamp);
  }

  enter(state: InboundState): void {
    this.state = state;
    if (state.name === "failed") this.lastError = { error: state.error, at: new Date() };
  }
}

/** A wish that somebody waits for; several before that are one. */
class Wish {
  #isMade = false;
  #wake: () => void = () => {};

  make(): void {
    this.#isMade = true;
    this.#wake();
  }

  /** Resolves when it is made, or has been; at the signal too. */
  async next(signal: AbortSignal): Promise<void> {
    if (this.#isMade || signal.aborted) return void (this.#isMade = false);
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      signal.addEventListener("abort", () => resolve(), { once: true });
    });
    if (!signal.aborted) this.#isMade = false;
  }
}

/** What a peer is made with. */
interface PeerOptions {
  /** Called for each attempt of the link. */
  readonly ports: () => Omit<SessionPorts, "asksAgain" | "callsBack">;
  readonly returnPorts: ReturnPorts;
  readonly observer: PeerObserver;
}

/** A peer of the running node. */
export class Peer {
  readonly name: string;
  /** Where it is dialled; null for a peer that dials this node. */
  url: string | null;
  /** Being removed: goes once everything is delivered. */
  removing = false;
  readonly outbound: OutboundProgress;
  readonly inbound = new InboundProgress();
  readonly clock: PeerClock;
  readonly link: Link;
  /** Keeps a stream open for a peer that does not dial this node. */
  readonly returning: ReturnLoop;
  /** Whether the peer dials this node, as it said last; null before. */
  dialsBack: boolean | null = null;
  /** What stands for its policies of conflicts, as it said last; null before, and where it does not say. */
  policies: string | null = null;
  /** When the certificate expires that it showed when it connected last; null on cleartext and before. */
  certificateExpiresAt: Date | null = null;
  /** Since when nothing goes to it, RFC 3339; null while it does. */
  awaySince: string | null = null;
  /** Why there is no slot for it any more; null while there is. */
  evicted: Eviction | null = null;
  /** Since when its rows may differ from ours, RFC 3339; null if nothing says so. */
  repairDue: string | null = null;
  readonly #asking = new Wish();
  readonly #calling = new Wish();

  constructor(name: string, url: string | null, { ports, returnPorts, observer }: PeerOptions) {
    this.name = name;
    this.url = url;
    this.clock = new PeerClock(name);
    this.outbound = new OutboundProgress(observer, this.clock);
    this.returning = new ReturnLoop(name, returnPorts);
    this.link = new Link({
      peer: name,
      attempt: (signal, report) => {
        if (this.outbound.attempts++ > 0) observer.reconnected();
        this.outbound.report = report;
        return runSession(
          {
            ...ports(),
            asksAgain: (signal) => this.#asking.next(signal),
            callsBack: (signal) => this.#calling.next(signal),
          },
          this.outbound,
          signal,
        );
      },
    });
  }

  /** Stops both directions. The link first: its handshake may start the stream that this node opens. */
  async stop(): Promise<void> {
    await this.link.stop();
    await this.returning.stop();
  }

  /** Tries both directions again at once: the link, if it waits, and what comes from the peer. */
  retry(): void {
    this.link.retry();
    this.askAgain();
  }

  /** Asks the peer to try its link to this node again, as soon as the link to it streams. */
  askAgain(): void {
    this.#asking.make();
  }

  /** Asks the peer, as soon as the link to it streams, to open a stream on which it answers about its tables. */
  callBack(): void {
    this.#calling.make();
  }

  /** Has the stream for the peer to push over kept open, if the peer needs one. */
  startReturning(): void {
    if (this.url !== null && this.dialsBack === false) this.returning.start();
  }

  /** Whether the peer may lack rows' deletes for longer than it is usually behind, or have ones that we lack. */
  get mayLackDeletes(): boolean {
    return this.repairDue !== null || this.link.state.name !== "streaming";
  }

  /** Whether the link waits for the peer to dial this node, which cannot dial it. */
  get awaitsDial(): boolean {
    return this.url === null && this.link.state.name === "connecting";
  }
}
