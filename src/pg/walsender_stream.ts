/**
 * A walsender connection in copy-both mode: pgoutput messages in, our position out.
 *
 * Reading is pulled: while nobody reads, the socket is paused and PostgreSQL keeps the WAL. Status updates run
 * on a timer of their own, so that a paused reader still answers before `wal_sender_timeout`. Bytes:
 * https://www.postgresql.org/docs/current/protocol-replication.html.
 */
import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { TLSSocket } from "node:tls";
import type pg from "pg";
import { MmliteError, toMmliteError } from "../errors.ts";
import { type Lsn, maxLsn, toLsn, ZERO_LSN } from "../lsn.ts";
import { MessageBatch } from "../pgoutput/message_batch.ts";
import { clientConnection, destroyClient } from "./client.ts";
import { BACKEND_MESSAGE, decodeServerReport, MessageChunks, type ServerReport } from "./copy_both.ts";
import type { DrawnSocket } from "./drawn_socket.ts";
import { mapPostgresError } from "./errors.ts";

/** What had arrived when it was read. */
export interface ReplicationBatch {
  /** Whole pgoutput messages in order; servers up to 13 send empty ones too. Their bytes are good until the next read. */
  readonly messages: MessageBatch;
  /** Position of the last keepalive so far: every transaction that ends before it has come. */
  readonly keepaliveLsn: Lsn;
}

/** An open walsender connection. */
export interface ReplicationStream {
  /** The next batch, once there is something. Throws what ended the stream, after all that came before it. */
  read(): Promise<ReplicationBatch>;
  /** Moves the flush position forward, never back; the server hears of it within {@link CONFIRM_INTERVAL_MS}. */
  confirm(flushLsn: Lsn): void;
  /** Tells the server the last position and ends; within a second, whatever state the server is in. */
  close(): Promise<void>;
}

/** Shortest time between two status updates that follow {@link ReplicationStream.confirm}, milliseconds. */
export const CONFIRM_INTERVAL_MS = 50;
/** Bytes that may wait for the reader before the socket is paused; the message that crosses it comes on top. */
const PENDING_LIMIT_BYTES = 1 << 20;
/**
 * The walsender writes every message by itself, and a reader that is faster than it is woken for each. So after a
 * read of at least this many bytes, several transactions, the socket is left alone for a while, unless the read was
 * of as much as fits: then there is more already. Milliseconds; TCP keeps what comes meanwhile, a unix socket could
 * not, and TLS never reads more than 16 KiB.
 */
const REST_MS = 2;
const REST_FROM_BYTES = 2_048;
const FULL_READ_BYTES = 0x1_0000;
/** How long the server may take to end the connection on close, milliseconds. */
const CLOSE_TIMEOUT_MS = 1_000;

/** XLogData: 'w', start of data, end of WAL, send time, then the payload. */
const XLOG_DATA = 0x77;
const XLOG_DATA_HEADER_BYTES = 25;
/** Primary keepalive: 'k', end of WAL, send time, whether a reply is wanted. */
const KEEPALIVE = 0x6b;
const KEEPALIVE_BYTES = 18;
/** Frontend message Terminate: 'X' and its length. */
const TERMINATE = Uint8Array.of(0x58, 0, 0, 0, 4);
/** 2000-01-01 in microseconds of the Unix epoch: PostgreSQL's own epoch. */
const POSTGRES_EPOCH_US = 946_684_800_000_000n;

/** The stream over a client that is connected for replication and idle. */
export class WalsenderStream implements ReplicationStream {
  readonly #client: pg.Client;
  readonly #socket: Duplex;
  readonly #doing: string;
  readonly #signal: AbortSignal | undefined;
  readonly #stop = () => void this.close();
  readonly #chunks = new MessageChunks((type, bytes, start, end) => this.#take(type, bytes, start, end));
  readonly #started = Promise.withResolvers<void>();
  readonly #closed = Promise.withResolvers<void>();
  #messages = new MessageBatch();
  #pendingBytes = 0;
  #fresh = false;
  #wake: (() => void) | undefined;
  #failure: MmliteError | undefined;
  #closing = false;
  readonly #drawn: DrawnSocket | undefined;
  readonly #mayRest: boolean;
  #restTimer: ReturnType<typeof setTimeout> | undefined;
  /** Where the last XLogData begins; its position is read once per chunk, which halves the cost per message. */
  #lastData: Uint8Array | undefined;
  #lastDataAt = 0;
  #receivedLsn: Lsn;
  /** The written position of the last status update. */
  #reportedLsn: Lsn = ZERO_LSN;
  #keepaliveLsn: Lsn = ZERO_LSN;
  #flushLsn: Lsn;
  #statusTimer: ReturnType<typeof setInterval> | undefined;
  #soonTimer: ReturnType<typeof setTimeout> | undefined;
  #statusSentAt = 0;

  /** `doing` goes into errors; `signal` closes the stream. `drawn` is the client's socket, if it is such a one. */
  constructor(
    client: pg.Client,
    options: { doing: string; startLsn: Lsn; flushLsn: Lsn; drawn?: DrawnSocket; signal?: AbortSignal },
  ) {
    this.#client = client;
    this.#drawn = options.drawn;
    this.#signal = options.signal;
    this.#socket = clientConnection(client).stream;
    this.#mayRest = this.#socket instanceof Socket && this.#socket.remotePort !== undefined &&
      !(this.#socket instanceof TLSSocket);
    this.#doing = options.doing;
    this.#receivedLsn = options.startLsn;
    this.#flushLsn = options.flushLsn;
  }

  /** Takes the idle connection's socket over from the driver, sends `command` and awaits copy-both mode. */
  async start(command: string, statusIntervalMs: number): Promise<void> {
    this.#socket.removeAllListeners("data");
    const push = (bytes: Uint8Array) =>
      this.#receive(bytes.length, { isFull: false, take: () => this.#chunks.push(bytes) });
    const took = (length: number, isFull: boolean) =>
      this.#receive(length, { isFull, take: () => this.#chunks.take(length) });
    if (this.#drawn === undefined) this.#socket.on("data", push);
    else this.#drawn.drawInto({ room: () => this.#chunks.room(), took, push });
    this.#socket.on("error", (error: Error) => this.#fail(mapPostgresError(error, this.#doing)));
    this.#signal?.addEventListener("abort", this.#stop, { once: true });
    this.#socket.on("close", () => {
      this.#signal?.removeEventListener("abort", this.#stop);
      this.#fail(this.#lost("the server closed the connection"));
      this.#closed.resolve();
    });
    clientConnection(this.#client).query(command);
    await this.#started.promise;
    if (this.#failure !== undefined) throw this.#failure;
    this.#statusTimer = setInterval(() => this.#sendStatus(), statusIntervalMs);
  }

  async read(): Promise<ReplicationBatch> {
    this.#chunks.reuse();
    while (!this.#fresh) {
      if (this.#failure !== undefined) throw this.#failure;
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
    const messages = this.#messages;
    this.#messages = new MessageBatch();
    this.#chunks.close();
    this.#pendingBytes = 0;
    this.#fresh = false;
    if (this.#socket.isPaused() && this.#restTimer === undefined) this.#socket.resume();
    return { messages, keepaliveLsn: this.#keepaliveLsn };
  }

  confirm(flushLsn: Lsn): void {
    if (flushLsn <= this.#flushLsn) return;
    this.#flushLsn = flushLsn;
    this.#scheduleStatus();
  }

  async close(): Promise<void> {
    if (!this.#closing) {
      this.#sendStatus();
      this.#closing = true;
      this.#fail(new MmliteError("aborted", `Cannot ${this.#doing}: stopped`));
      // The server, which ends itself on Terminate, lets go of the slot before the connection is gone.
      this.#socket.end(TERMINATE);
      this.#socket.resume();
    }
    const timer = setTimeout(() => this.#socket.destroy(), CLOSE_TIMEOUT_MS);
    await this.#closed.promise;
    clearTimeout(timer);
  }

  /** A read has brought so many bytes, which `take` puts into the chunks or cuts there. */
  #receive(length: number, { isFull, take }: { isFull: boolean; take: () => void }): void {
    if (this.#closing || this.#failure !== undefined) return;
    try {
      take();
    } catch (error) {
      this.#fail(toMmliteError(error));
    }
    this.#noteReceived();
    if (this.#pendingBytes >= PENDING_LIMIT_BYTES) this.#socket.pause();
    else if (this.#mayRest && length >= REST_FROM_BYTES && length < FULL_READ_BYTES && !isFull) this.#rest();
    // Up to 12 the server sends no second keepalive before it has heard from us.
    if (this.#receivedLsn > this.#reportedLsn) this.#scheduleStatus();
    if (this.#fresh) this.#notify();
  }

  #rest(): void {
    this.#socket.pause();
    this.#restTimer ??= setTimeout(() => {
      this.#restTimer = undefined;
      if (this.#pendingBytes < PENDING_LIMIT_BYTES) this.#socket.resume();
    }, REST_MS);
  }

  #noteReceived(): void {
    if (this.#lastData === undefined) return;
    this.#receivedLsn = maxLsn(this.#receivedLsn, readLsn(this.#lastData, this.#lastDataAt + 1));
    this.#lastData = undefined;
  }

  #take(type: number, bytes: Uint8Array, start: number, end: number): void {
    switch (type) {
      case BACKEND_MESSAGE.copyData:
        return this.#takeCopyData(bytes, start, end);
      case BACKEND_MESSAGE.copyBothResponse:
        return this.#started.resolve();
      case BACKEND_MESSAGE.errorResponse:
        return this.#fail(mapStreamError(decodeServerReport(bytes.subarray(start, end)), this.#doing));
      case BACKEND_MESSAGE.noticeResponse:
        return this.#takeNotice(bytes.subarray(start, end));
      case BACKEND_MESSAGE.copyDone:
      case BACKEND_MESSAGE.commandComplete:
        return this.#fail(this.#lost("PostgreSQL is shutting down"));
    }
  }

  #takeCopyData(bytes: Uint8Array, start: number, end: number): void {
    if (bytes[start] === XLOG_DATA && end - start >= XLOG_DATA_HEADER_BYTES) {
      this.#lastData = bytes;
      this.#lastDataAt = start;
      this.#messages.add(bytes, start + XLOG_DATA_HEADER_BYTES, end);
      this.#pendingBytes += end - start;
      this.#fresh = true;
    } else if (bytes[start] === KEEPALIVE && end - start === KEEPALIVE_BYTES) {
      this.#keepaliveLsn = maxLsn(this.#keepaliveLsn, readLsn(bytes, start + 1));
      this.#receivedLsn = maxLsn(this.#receivedLsn, this.#keepaliveLsn);
      this.#fresh = true;
      if (bytes[end - 1] === 1) this.#sendStatus();
    } else {
      this.#fail(new MmliteError("protocol", `Cannot ${this.#doing}: unknown copy message`));
    }
  }

  /**
   * From 18 on a missing publication is only a warning, and its changes would be skipped in silence. Text may be
   * translated. The other warnings of this SQLSTATE name the setting by which a failover slot awaits its standbys.
   */
  #takeNotice(body: Uint8Array): void {
    const report = decodeServerReport(body);
    if (report.code !== "55000" || report.message.includes("synchronized_standby_slots")) return;
    this.#fail(new MmliteError("slot_lost", `Cannot ${this.#doing}: ${report.message}`));
  }

  #scheduleStatus(): void {
    if (this.#soonTimer !== undefined || this.#closing || this.#failure !== undefined) return;
    const wait = Math.max(0, this.#statusSentAt + CONFIRM_INTERVAL_MS - Date.now());
    this.#soonTimer = setTimeout(() => this.#sendStatus(), wait);
  }

  #sendStatus(): void {
    clearTimeout(this.#soonTimer);
    this.#soonTimer = undefined;
    if (this.#closing || this.#failure !== undefined || !this.#socket.writable) return;
    this.#statusSentAt = Date.now();
    this.#reportedLsn = maxLsn(this.#receivedLsn, this.#flushLsn);
    this.#socket.write(encodeStatus(this.#reportedLsn, this.#flushLsn));
  }

  #lost(why: string): MmliteError {
    return new MmliteError("unreachable", `Cannot ${this.#doing}: ${why}`);
  }

  /** The first failure ends the stream; the reader sees it after what came before. */
  #fail(failure: MmliteError): void {
    if (this.#failure !== undefined) return;
    this.#failure = failure;
    clearInterval(this.#statusTimer);
    clearTimeout(this.#soonTimer);
    clearTimeout(this.#restTimer);
    this.#started.reject(failure);
    this.#notify();
    if (!this.#closing) destroyClient(this.#client);
  }

  #notify(): void {
    this.#wake?.();
    this.#wake = undefined;
  }
}

/** Once a slot is being read, these mean that it, its publication or its WAL is gone, whatever the language. */
const LOST_SLOT = ["42704", "55000", "58P01"];

function mapStreamError(report: ServerReport, doing: string): MmliteError {
  const error = mapPostgresError(report, doing);
  const lost = error.kind === "internal" && LOST_SLOT.includes(report.code);
  return lost ? new MmliteError("slot_lost", error.message, { cause: report }) : error;
}

function readLsn(bytes: Uint8Array, at: number): Lsn {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, 8);
  return toLsn(view.getBigUint64(0));
}

/** CopyData with a standby status update: written, flushed and applied position, our clock, no reply wanted. */
function encodeStatus(writtenLsn: Lsn, flushLsn: Lsn): Uint8Array {
  const bytes = new Uint8Array(39);
  const view = new DataView(bytes.buffer);
  bytes[0] = BACKEND_MESSAGE.copyData;
  view.setUint32(1, 38);
  bytes[5] = 0x72;
  view.setBigUint64(6, writtenLsn);
  view.setBigUint64(14, flushLsn);
  view.setBigUint64(22, flushLsn);
  view.setBigInt64(30, BigInt(Date.now()) * 1000n - POSTGRES_EPOCH_US);
  return bytes;
}
