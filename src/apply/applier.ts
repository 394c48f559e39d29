/**
 * Applies one origin's transactions, each in one local transaction, in their order.
 *
 * The first failure ends the applier: trying again, in a new session, is the business of who opened it.
 */
import { delay } from "../backoff.ts";
import { MmliteError, toMmliteError } from "../errors.ts";
import { formatLsn, type Lsn } from "../lsn.ts";
import { closeClient, destroyClient } from "../pg/client.ts";
import type { Row } from "../pg/query.ts";
import { decodeMessage } from "../pgoutput/decode.ts";
import type { Begin, Commit, Message, Truncate } from "../pgoutput/message.ts";
import type { RowChange, TargetRelation } from "./change_writer.ts";
import { Relations } from "./relations.ts";
import { type ApplySession, type ApplySessionOptions, openApplySession } from "./session.ts";
import { type MappedChange, TransactionWriter, type TransactionWriterOptions } from "./transaction_writer.ts";

export type { ApplyObserver, ChangeKind } from "./transaction_writer.ts";
export type { ConflictType } from "./statements.ts";

/** A transaction is held until its Commit has come, which tells its end, up to this many bytes of messages. */
const HOLD_BYTES = 256 * 1024;
/** And up to this many changes. */
const HOLD_CHANGES = 1_000;
/** How long closing waits for what has been sent, milliseconds. */
const CLOSE_WAIT_MS = 1_000;

/** What an applier needs. */
export type ApplierOptions = ApplySessionOptions & Omit<TransactionWriterOptions, "onFailure">;

/** What is under way on the incoming side. */
type Incoming =
  | { readonly state: "between" }
  /** It was applied before. */
  | { readonly state: "skipping"; readonly begin: Begin }
  | { readonly state: "holding"; readonly begin: Begin; readonly changes: MappedChange[]; bytes: number }
  /** It is too large to hold: its beginning has been written. */
  | { readonly state: "streaming"; readonly begin: Begin };

const BETWEEN: Incoming = { state: "between" };

/** Opens the session; throws an error of ours that names the origin. */
export async function openApplier(options: ApplierOptions): Promise<Applier> {
  return new Applier(await openApplySession(options), options);
}

/** See the module's head. */
export class Applier {
  /** Rejects when applying has failed; never resolves. */
  readonly failed: Promise<never>;
  readonly #options: ApplierOptions;
  readonly #session: ApplySession;
  readonly #writer: TransactionWriter;
  readonly #relations: Relations;
  readonly #reject: (error: MmliteError) => void;
  readonly #stop: () => void;
  #failure: MmliteError | undefined;
  #incoming: Incoming = BETWEEN;
  /** The last transaction, if it was empty: its position is stored with the next one, or at a pause. */
  #empty: { readonly begin: Begin; readonly endLsn: Lsn } | undefined;

  /** Use {@link openApplier}. */
  constructor(session: ApplySession, options: ApplierOptions) {
    this.#options = options;
    this.#session = session;
    const { promise, reject } = Promise.withResolvers<never>();
    promise.catch(() => {});
    this.failed = promise;
    this.#reject = reject;
    this.#writer = new TransactionWriter(session, { ...options, onFailure: (error) => this.#fail(error) });
    this.#relations = new Relations(session.serverVersion, (target) => this.#writer.forget(target));
    this.#stop = () => this.#fail(new MmliteError("aborted", `Cannot apply "${options.origin}": stopped`));
    options.signal.addEventListener("abort", this.#stop, { once: true });
    if (options.signal.aborted) this.#stop();
  }

  /**
   * Takes one verbatim pgoutput message, which lies from `start` to `end` in `bytes`; these must not change
   * afterwards. Returns a promise only when the caller must wait before the next one. Throws, or rejects, with the
   * applier's failure.
   */
  push(bytes: Uint8Array, start = 0, end: number = bytes.length): Promise<void> | void {
    if (this.#failure !== undefined) throw this.#failure;
    try {
      const waiting = this.#take(decodeMessage(bytes.subarray(start, end)), end - start);
      return waiting?.catch((thrown) => this.#failWith(thrown));
    } catch (thrown) {
      this.#failWith(thrown);
    }
  }

  /** Nothing more is at hand for the moment: everything complete is committed at once. */
  flush(): void {
    if (this.#failure !== undefined) return;
    if (this.#incoming.state !== "streaming" && this.#empty !== undefined) this.#storeEmpty();
    this.#writer.flush();
  }

  /** Resolves once everything complete that was pushed has been executed; rejects with the failure. */
  async idle(): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    this.flush();
    await this.#writer.pipeline.settled().catch((thrown) => this.#failWith(thrown));
  }

  /** Ends the session; what is complete is still executed if it takes no longer than a second. */
  async close(): Promise<void> {
    this.#options.signal.removeEventListener("abort", this.#stop);
    if (this.#failure === undefined) {
      const enough = new AbortController();
      const idle = this.idle().catch(() => {}).finally(() => enough.abort());
      await Promise.race([idle, delay(CLOSE_WAIT_MS, enough.signal)]);
    }
    this.#writer.close();
    await closeClient(this.#session.client);
  }

  #take(message: Message, length: number): Promise<void> | undefined {
    switch (message.kind) {
      case "insert":
      case "update":
      case "delete":
        return this.#change(message, length);
      case "begin":
        return this.#begin(message);
      case "commit":
        return this.#commit(message);
      case "relation":
        return void this.#relations.announce(message);
      case "truncate":
        return this.#truncate(message, length);
      case "origin":
      case "unnamed_origin":
        throw this.#violation("a transaction that the sender had received from another node");
      case "type":
      case "message":
      case "stream_abort":
        return undefined;
    }
  }

  #begin(begin: Begin): undefined {
    if (this.#incoming.state !== "between") throw this.#violation("a transaction inside another");
    const position = this.#empty?.endLsn ?? this.#writer.position;
    this.#incoming = begin.commitLsn < position
      ? { state: "skipping", begin }
      : { state: "holding", begin, changes: [], bytes: 0 };
  }

  #change(change: RowChange, length: number): Promise<void> | undefined {
    if (this.#incoming.state === "skipping") return;
    const target = this.#relations.target(change.relationId);
    if (target !== undefined) return this.#enter({ target, change }, length);
    return this.#resolve(change.relationId).then((target) => this.#enter({ target, change }, length));
  }

  async #truncate(change: Truncate, length: number): Promise<void> {
    if (this.#incoming.state === "skipping") return;
    const targets: TargetRelation[] = [];
    for (const id of change.relationIds) {
      targets.push(this.#relations.target(id) ?? await this.#resolve(id));
    }
    await this.#enter({ targets, change }, length);
  }

  /** Reads a local table on the apply session itself, between two statements. */
  async #resolve(relationId: number): Promise<TargetRelation> {
    const query = (text: string, params: readonly unknown[] = []): Promise<Row[]> => {
      const rows = this.#writer.pipeline.query("read the catalog", text, params as string[]);
      if (this.#incoming.state !== "streaming") this.#writer.endBatch();
      return rows;
    };
    return await this.#relations.resolve(relationId, query);
  }

  #enter(mapped: MappedChange, length: number): Promise<void> | undefined {
    const incoming = this.#incoming;
    switch (incoming.state) {
      case "between":
        throw this.#violation("a change outside of a transaction");
      case "skipping":
        return;
      case "streaming":
        this.#writer.write(mapped);
        return this.#writer.pipeline.room();
      case "holding":
        incoming.changes.push(mapped);
        incoming.bytes += length;
        if (incoming.bytes < HOLD_BYTES && incoming.changes.length < HOLD_CHANGES) return;
        this.#writer.begin(incoming.begin);
        for (const held of incoming.changes) this.#writer.write(held);
        this.#incoming = { state: "streaming", begin: incoming.begin };
        this.#empty = undefined;
        return this.#writer.pipeline.room();
    }
  }

  #commit({ commitLsn, endLsn }: Commit): Promise<void> | undefined {
    const incoming = this.#incoming;
    if (incoming.state === "between" || incoming.begin.commitLsn !== commitLsn || endLsn <= commitLsn) {
      throw this.#violation(`a commit at ${formatLsn(commitLsn)} that ends no transaction`);
    }
    this.#incoming = BETWEEN;
    switch (incoming.state) {
      case "skipping":
        return void this.#options.observer.deduplicated(1);
      case "streaming":
        this.#writer.commit(endLsn);
        break;
      case "holding":
        if (incoming.changes.length === 0) {
          this.#empty = { begin: incoming.begin, endLsn };
          return;
        }
        this.#empty = undefined;
        this.#writer.begin(incoming.begin, endLsn);
        for (const held of incoming.changes) this.#writer.write(held);
        this.#writer.commit(endLsn);
    }
    return this.#writer.pipeline.room();
  }

  /** Moves the position past empty transactions, by a transaction of its own. */
  #storeEmpty(): void {
    const { begin, endLsn } = this.#empty!;
    this.#empty = undefined;
    this.#writer.begin(begin, endLsn);
    this.#writer.commit(endLsn);
  }

  #violation(what: string): MmliteError {
    return new MmliteError(
      "protocol",
      `Cannot apply transactions of "${this.#options.origin}": it sent ${what}`,
    );
  }

  #failWith(thrown: unknown): never {
    this.#fail(toMmliteError(thrown));
    throw this.#failure!;
  }

  #fail(error: MmliteError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#writer.close();
    // Breaking the connection off is the rollback, and ends whatever the server is waiting for.
    destroyClient(this.#session.client);
    this.#reject(error);
  }
}
