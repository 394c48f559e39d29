/**
 * Statements sent ahead of their replies on one `pg` connection.
 *
 * A batch is what lies between two Syncs. After an error the server skips the rest of the batch, so what was
 * committed before it is known from the replies; batches already sent behind it are run, and it is for the caller
 * that they must fail too. The first error stops the pipeline: whatever is sent after it is an `internal` error, until
 * {@link Pipeline.recover} makes it usable again where the connection still is. Nothing is retried here.
 */
import { Buffer } from "node:buffer";
// @ts-types="@types/pg"
import type pg from "pg";
import { MmliteError } from "../errors.ts";
import { clientConnection } from "./client.ts";
import { sqlState } from "./errors.ts";
import type { Row } from "./query.ts";
import {
  BINARY_FORMAT,
  type ParameterFormat,
  type ParameterWriter,
  QueryBytes,
  type StatementText,
  TEXT_FORMAT,
} from "./query_bytes.ts";

/**
 * Statements whose replies may be outstanding before {@link Pipeline.room} asks for a wait. Bounds what we remember of
 * them, but for whole transactions that are written one by one after a failure: up to 32,768 changes without a wait.
 */
const WINDOW_STATEMENTS = 8_192;
/** A Flush at least this often, so that the window moves: the server holds replies back until 8 KiB are full. */
const FLUSH_STATEMENTS = 1_024;
/** Bytes handed to the socket at once: the runtime copies them, so a long value goes in slices as it drains. */
const SLICE_BYTES = 64 * 1024;

/** Takes the reply of one statement. */
export interface ReplySink {
  /** What the statement does, to complete "Cannot …" in an error: `insert into "public.user"`. */
  readonly doing: string;
  /** The columns of its result, where they were asked for. */
  columns?(names: readonly string[]): void;
  /** A row of its result, every value as text. */
  row?(values: readonly (string | null)[]): void;
  /** It is done; `tag` is PostgreSQL's command tag, such as `UPDATE 1`. */
  completed(tag: string): void;
  /** The pipeline has failed, by this statement or one before it, or has lost the reply. */
  abandoned?(error: unknown): void;
}

/** What the owner of a pipeline is told of. */
export interface PipelineEvents {
  /** The first error; `sink` is that of the statement which failed, if one did. */
  failed(error: unknown, sink: ReplySink | undefined): void;
  /** A notice of the statement whose reply is next. */
  notice(notice: { code?: string; message?: string }): void;
}

/** The part of the driver's query interface (a "submittable") that it calls for extended queries. */
interface Submittable {
  submit(connection: pg.Connection): void;
  handleRowDescription(message: { fields: { name: string }[] }): void;
  handleDataRow(message: { fields: (string | null)[] }): void;
  handleCommandComplete(message: { text: string }): void;
  handleCopyInResponse(): void;
  handlePortalSuspended(): void;
  handleEmptyQuery(): void;
  handleError(error: unknown): void;
  handleReadyForQuery(): void;
}

/** Statements in flight on one connection; see the module's head. */
export class Pipeline {
  readonly #client: pg.Client;
  readonly #stream: pg.Connection["stream"];
  readonly #events: PipelineEvents;
  readonly #bytes: QueryBytes;
  readonly #batch: Submittable;
  /** Replies to come, oldest first, from index `#answered` on. */
  #sinks: ReplySink[] = [];
  #answered = 0;
  /** Batches begun whose ReadyForQuery is still to come; the last may be open. */
  #batches = 0;
  #open = false;
  /** Whether the driver holds our query: it knows one at a time, and gives it up at ReadyForQuery or an error. */
  #held = false;
  /** The batch being answered has failed, and its ReadyForQuery is to come. */
  #ending = false;
  #sinceFlush = 0;
  /** Names of the statements that {@link Pipeline.query} has prepared, by their text. */
  readonly #queries = new Map<string, string>();
  /** Waits for the socket to drain; empty while it is not full. */
  #outgoing: Uint8Array[] = [];
  #blocked = false;
  #failed = false;
  /** Why nothing can be sent any more, once that is so. */
  #lost: unknown;
  #recovering: { resolve: () => void; reject: (error: unknown) => void } | undefined;
  #waiting: (() => void)[] = [];
  #settling: { resolve: () => void; reject: (error: unknown) => void }[] = [];

  /** Takes over a connection on which nothing runs. */
  constructor(client: pg.Client, events: PipelineEvents) {
    this.#client = client;
    this.#events = events;
    this.#stream = clientConnection(client).stream;
    this.#bytes = new QueryBytes((chunk) => this.#send(chunk));
    this.#batch = this.#submittable();
    client.on("error", (error) => this.#lose(error));
    client.on("notice", (notice) => this.#failed || events.notice(notice));
    this.#stream.on("drain", () => this.#drained());
  }

  /** Whether the connection is of no further use. */
  get isLost(): boolean {
    return this.#lost !== undefined;
  }

  /** Prepares a statement; an error in it fails the next one sent. */
  prepare(statement: StatementText): void {
    this.#begin();
    this.#bytes.parse(statement);
  }

  /** Forgets a prepared statement. */
  forget(name: string): void {
    this.#begin();
    this.#bytes.close(name);
  }

  /** Sends one run of a prepared statement. */
  execute(
    name: string,
    sink: ReplySink,
    values: readonly (Uint8Array | null)[] = [],
    format: ParameterFormat = BINARY_FORMAT,
  ): void {
    this.#begin();
    this.#bytes.bind(name, format, values);
    this.#run(sink);
  }

  /** Sends one run of a prepared statement whose parameters are written in place, in binary form. */
  executeWith(name: string, sink: ReplySink, parameters: ParameterWriter): void {
    this.#begin();
    this.#bytes.bindWith(name, parameters);
    this.#run(sink);
  }

  /**
   * Sends one run of a prepared COPY FROM STDIN with all that it reads: `write` hands pieces to `send`, which copies
   * them. The server reads on without asking, and passes the pieces over if it never came to the COPY
   * (https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-COPY).
   */
  copyIn(
    name: string,
    sink: ReplySink,
    write: (send: (bytes: Uint8Array, length: number) => void) => void,
  ): void {
    this.#begin();
    this.#bytes.bind(name, BINARY_FORMAT, []);
    this.#run(sink, () => {
      write((bytes, length) => this.#bytes.copyData(bytes, length));
      this.#bytes.copyDone();
    });
  }

  /**
   * After a failure, makes the pipeline usable again: resolves once the server has answered everything that was
   * sent, rejects with the error if the connection is lost. The transaction that failed may still be open.
   */
  async recover(): Promise<void> {
    if (this.#lost !== undefined) throw this.#lost;
    const ready = new Promise<void>((resolve, reject) => void (this.#recovering = { resolve, reject }));
    if (this.#open) this.#endBatch();
    if (this.#batches === 0) this.#recovered();
    await ready;
  }

  /**
   * Runs a statement with text parameters in the open batch and resolves with its rows; it stays prepared, so there
   * should be few of them. Rejects when the pipeline fails, after {@link PipelineEvents.failed}.
   */
  query(doing: string, sql: string, parameters: readonly string[]): Promise<Row[]> {
    const name = this.#queries.get(sql) ?? this.#prepareQuery(sql);
    this.#begin();
    this.#bytes.bind(name, TEXT_FORMAT, parameters.map((text) => Buffer.from(text, "utf8")));
    this.#bytes.describe();
    this.#bytes.execute();
    return new Promise((resolve, reject) => {
      this.#sinks.push(rowsSink(doing, { resolve, reject }));
      this.flush();
    });
  }

  /** Ends the batch, if one is open, and sends it. */
  sync(): void {
    if (this.#open) this.#endBatch();
  }

  /** Sends what there is and asks for the replies so far, in the middle of a batch. */
  flush(): void {
    if (!this.#open) return;
    this.#requestReplies();
    this.#bytes.finish();
  }

  /** Undefined if more may be sent now, else a promise of room: in the window and in the socket. */
  room(): Promise<void> | undefined {
    if (this.#failed || !this.#isFull()) return undefined;
    // Without this the replies that we wait for might be held back, or their statements not sent.
    this.flush();
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Resolves once every statement sent so far has been answered; rejects when the pipeline fails. */
  settled(): Promise<void> {
    if (this.#sinks.length === this.#answered) return Promise.resolve();
    this.flush();
    return new Promise((resolve, reject) => this.#settling.push({ resolve, reject }));
  }

  #prepareQuery(sql: string): string {
    const name = `q${this.#queries.size}`;
    this.#queries.set(sql, name);
    // After a recovery the server may know it: preparing the name again would be an error, closing it never is.
    this.forget(name);
    this.prepare({ name, sql, parameterTypes: [] });
    return name;
  }

  #endBatch(): void {
    this.#bytes.sync();
    this.#open = false;
    this.#sinceFlush = 0;
    this.#bytes.finish();
  }

  /** Executes what was bound; `supply` writes what it reads. */
  #run(sink: ReplySink, supply?: () => void): void {
    this.#bytes.execute();
    supply?.();
    this.#sinks.push(sink);
    if (++this.#sinceFlush >= FLUSH_STATEMENTS) this.#requestReplies();
  }

  #isFull(): boolean {
    return this.#blocked || this.#sinks.length - this.#answered >= WINDOW_STATEMENTS;
  }

  #requestReplies(): void {
    this.#bytes.flush();
    this.#sinceFlush = 0;
  }

  /** What is sent after a failure would be skipped or undone, and its reply would be taken for that of another. */
  #begin(): void {
    if (this.#failed) {
      throw new MmliteError("internal", "Cannot send a statement: one before it has failed");
    }
    if (this.#open) return;
    this.#open = true;
    // That of a later batch is submitted when its turn has come.
    this.#batches++;
    this.#submit();
  }

  #submit(): void {
    if (this.#held) return;
    this.#held = true;
    this.#client.query(this.#batch as unknown as pg.Submittable);
  }

  #send(chunk: Uint8Array): void {
    if (this.#lost !== undefined) return;
    this.#outgoing.push(chunk);
    this.#writeSlices();
  }

  #writeSlices(): void {
    while (!this.#blocked && this.#outgoing.length > 0) {
      const chunk = this.#outgoing[0];
      if (chunk.length > SLICE_BYTES) this.#outgoing[0] = chunk.subarray(SLICE_BYTES);
      else this.#outgoing.shift();
      const slice = chunk.subarray(0, SLICE_BYTES);
      this.#blocked = !this.#stream.write(slice, () => this.#bytes.reclaim(slice));
    }
  }

  #drained(): void {
    this.#blocked = false;
    this.#writeSlices();
    this.#release();
  }

  #release(): void {
    // After a failure there may never be room: the connection is perhaps broken off with the socket full.
    if (this.#waiting.length === 0 || (!this.#failed && this.#isFull())) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }

  #submittable(): Submittable {
    const unexpected = (what: string) => () =>
      this.#lose(new MmliteError("internal", `Cannot read PostgreSQL's replies: unexpected ${what}`));
    return {
      submit: () => this.#submitted(),
      handleRowDescription: (message) =>
        this.#sinks[this.#answered]?.columns?.(message.fields.map((field) => field.name)),
      handleDataRow: (message) => this.#sinks[this.#answered]?.row?.(message.fields),
      handleCommandComplete: (message) => this.#complete(message.text),
      handleCopyInResponse: () => {},
      handlePortalSuspended: unexpected("PortalSuspended"),
      handleEmptyQuery: unexpected("EmptyQueryResponse"),
      handleError: (error) => isOfServer(error) ? this.#failBatch(error) : this.#lose(error),
      handleReadyForQuery: () => this.#ready(),
    };
  }

  #complete(tag: string): void {
    if (this.#failed) return;
    const sink = this.#sinks[this.#answered++];
    if (this.#answered === WINDOW_STATEMENTS || this.#answered === this.#sinks.length) {
      this.#sinks = this.#sinks.slice(this.#answered);
      this.#answered = 0;
    }
    sink.completed(tag);
    if (this.#waiting.length > 0) this.#release();
    if (this.#settling.length > 0 && this.#sinks.length === this.#answered) {
      for (const { resolve } of this.#settling.splice(0)) resolve();
    }
  }

  #ready(): void {
    this.#held = false;
    if (--this.#batches > 0) this.#submit();
    else this.#recovered();
  }

  /** The driver tells nobody of the ReadyForQuery after an error, but submits the next query at it. */
  #failBatch(error: unknown): void {
    this.#ending = true;
    this.#held = false;
    this.#submit();
    this.#fail(error);
  }

  #submitted(): void {
    if (!this.#ending) return;
    this.#ending = false;
    if (--this.#batches === 0) this.#recovered();
  }

  /** Everything sent is answered; a recovery that waits for that is over. */
  #recovered(): void {
    if (this.#recovering === undefined) return;
    // Of those prepared since the failure the server knows none.
    this.#queries.clear();
    this.#failed = false;
    this.#recovering.resolve();
    this.#recovering = undefined;
  }

  /** The connection is of no further use. */
  #lose(error: unknown): void {
    if (this.#lost !== undefined) return;
    this.#lost = error;
    this.#outgoing = [];
    this.#blocked = false;
    this.#recovering?.reject(error);
    this.#recovering = undefined;
    this.#fail(error);
  }

  #fail(error: unknown): void {
    if (this.#failed) return;
    this.#failed = true;
    const abandoned = this.#sinks.slice(this.#answered);
    this.#sinks = [];
    this.#answered = 0;
    this.#release();
    this.#events.failed(error, abandoned.at(0));
    for (const sink of abandoned) sink.abandoned?.(error);
    for (const { reject } of this.#settling.splice(0)) reject(error);
  }
}

/** Whether the server reported it. One that ends the session is followed by the end of the connection. */
function isOfServer(error: unknown): boolean {
  return sqlState(error) !== undefined;
}

/** Collects the rows of one statement. */
function rowsSink(
  doing: string,
  { resolve, reject }: { resolve: (rows: Row[]) => void; reject: (error: unknown) => void },
): ReplySink {
  let names: readonly string[] = [];
  const rows: Row[] = [];
  return {
    doing,
    columns: (columns) => void (names = columns),
    row: (values) => void rows.push(Object.fromEntries(values.map((value, i) => [names[i], value]))),
    completed: () => resolve(rows),
    abandoned: reject,
  };
}
