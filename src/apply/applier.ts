/**
 * Applies one origin's transactions in their order: what has come meanwhile as one local transaction by sets, or
 * each as one of its own, row by row.
 *
 * Nothing waits for company: a transaction that comes while nothing is under way is applied at once. Sets settle no
 * conflict; where they fail, the same transactions are applied again one by one. The first failure of those ends the
 * applier: trying again, in a new session, is the business of who opened it.
 */
import { delay } from "../backoff.ts";
import { MmliteError, toMmliteError } from "../errors.ts";
import { formatLsn, type Lsn } from "../lsn.ts";
import { closeClient, destroyClient } from "../pg/client.ts";
import type { Row } from "../pg/query.ts";
import { decodeMessage } from "../pgoutput/decode.ts";
import type { Begin, Message, Truncate } from "../pgoutput/message.ts";
import { decodeBegin, decodeCommit, MESSAGE_TYPE } from "../pgoutput/peek.ts";
import { type SeenNode, SeenVersions } from "../seen_versions.ts";
import type { OriginBegin } from "./causes.ts";
import type { TargetRelation } from "./change_writer.ts";
import { Gate, type GateOptions } from "./gate.ts";
import { HeldTransactions, isTruncate, type Targets } from "./held.ts";
import { Relations } from "./relations.ts";
import { type ApplySession, type ApplySessionOptions, openApplySession } from "./session.ts";
import { TransactionWriter, type TransactionWriterOptions, type WriteMode } from "./transaction_writer.ts";
import type { Trust } from "./trust.ts";
import { Units } from "./units.ts";

export type { ApplyObserver, ChangeKind } from "./transaction_writer.ts";
export type { ConflictType } from "./statements.ts";

/** A transaction is held until its Commit has come, which tells its end, up to this many bytes of messages. */
const HOLD_BYTES = 0x10_0000;
/** And up to this many changes. */
const HOLD_CHANGES = 4_096;
/** As many as are under way and held at a time. */
const MAX_SPARE = 3;
/** How long closing waits for what has been sent, milliseconds. */
const CLOSE_WAIT_MS = 1_000;

/** What an applier needs. */
export interface ApplierOptions
  extends
    ApplySessionOptions,
    Omit<TransactionWriterOptions, "onCommitted" | "onFailure">,
    Omit<GateOptions, "origin"> {
  /** Whether sets are tried; outlives the applier, because what failed by sets comes again. */
  readonly trust: Trust;
  /** Whether the versions of more groups may be kept; if not, transactions are applied one by one. */
  readonly mayGroup: () => boolean;
}

/** What is under way on the incoming side. */
type Incoming =
  | { readonly state: "between" }
  /** It was applied before. */
  | { readonly state: "skipping"; readonly begin: OriginBegin }
  /** Its changes are the last ones held. */
  | { readonly state: "holding"; readonly begin: OriginBegin; readonly fromBytes: number }
  /** It is too large to hold: its beginning has been written. */
  | { readonly state: "streaming"; readonly begin: OriginBegin };

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
  readonly #gate: Gate;
  readonly #units: Units;
  readonly #relations: Relations;
  readonly #reject: (error: MmliteError) => void;
  readonly #stop: () => void;
  #failure: MmliteError | undefined;
  #recovery: Promise<void> | undefined;
  #incoming: Incoming = BETWEEN;
  #held = new HeldTransactions();
  readonly #spare: HeldTransactions[] = [];
  /** How the whole transactions held are to be written. */
  #mode: WriteMode = "sets";
  /** What the origin had when it committed the transaction that comes. */
  #seen = SeenVersions.NOTHING;
  /** Whether sets can take all changes of the transaction that comes. */
  #bySets = true;
  /** The last transaction that was written before its end had come. */
  #streamed: { readonly begin: Begin; readonly mode: WriteMode; endLsn: Lsn | undefined } | undefined;
  /** End of the last transaction that came whole. */
  #position: Lsn;
  /** Up to when everything has come, and the position that shows that it is committed here. */
  #mark: { readonly committedBefore: bigint; readonly position: Lsn } | undefined;
  /** The relation of the last change: the next is mostly of the same. */
  #relationId = -1;
  #target: TargetRelation | undefined;

  /** Use {@link openApplier}. */
  constructor(session: ApplySession, options: ApplierOptions) {
    this.#options = options;
    this.#session = session;
    this.#position = options.position;
    const { promise, reject } = Promise.withResolvers<never>();
    promise.catch(() => {});
    this.failed = promise;
    this.#reject = reject;
    this.#writer = new TransactionWriter(session, {
      ...options,
      onCommitted: (endLsn) => this.#committed(endLsn),
      onFailure: (error, canRecover) => this.#lose(error, canRecover),
    });
    this.#gate = new Gate(options);
    this.#units = new Units({
      writer: this.#writer,
      mayWrite: (held) => this.#gate.pass(lastOf(held)),
      done: (held) => this.#recycle(held),
      failed: (thrown) => this.#fail(toMmliteError(thrown)),
    });
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
      const waiting = this.#recovery?.then(() => this.#take(bytes, start, end)) ??
        this.#take(bytes, start, end);
      return waiting?.catch((thrown) => this.#failWith(thrown));
    } catch (thrown) {
      this.#failWith(thrown);
    }
  }

  /** Nothing more is at hand for the moment: everything complete is committed as soon as nothing is under way. */
  flush(): void {
    if (this.#failure !== undefined || this.#recovery !== undefined) return;
    if (this.#incoming.state === "streaming") this.#writer.pipeline.flush();
    else if (this.#units.isEmpty) this.#offerWhole();
  }

  /**
   * What the origin had of other nodes when it committed the transactions that follow, where that has changed. Returns a
   * promise only when the caller must wait. Throws, or rejects, with the applier's failure.
   */
  seen(nodes: readonly SeenNode[]): Promise<void> | void {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#incoming.state !== "between") {
      this.#failWith(this.#violation("what it had, inside a transaction"));
    }
    this.#seen = this.#seen.with(nodes);
    if (this.#options.causes.areMet(this.#seen)) return;
    // What waits must not take along what another node's transactions may wait for.
    return this.#recovery?.then(() => this.#cut()) ?? this.#cut();
  }

  /** Whatever the origin committed before this time, microseconds since 2000-01-01 UTC, has been pushed. */
  caughtUp(committedBefore: bigint): void {
    this.#mark = { committedBefore, position: this.#position };
    this.#reachMark();
  }

  /** Resolves once everything complete that was pushed has been executed; rejects with the failure. */
  async idle(): Promise<void> {
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure;
      await this.#recovery;
      this.flush();
      if (this.#units.isEmpty) break;
      await this.#progress();
    }
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
    this.#gate.close();
    this.#writer.close();
    await closeClient(this.#session.client);
  }

  #take(bytes: Uint8Array, start: number, end: number): Promise<void> | undefined {
    switch (end > start ? bytes[start] : 0) {
      case MESSAGE_TYPE.insert:
      case MESSAGE_TYPE.update:
      case MESSAGE_TYPE.delete:
        return this.#change(bytes, start, end);
      case MESSAGE_TYPE.begin:
        return this.#begin(decodeBegin(bytes.subarray(start, end)));
      case MESSAGE_TYPE.commit:
        return this.#commit(bytes.subarray(start, end));
    }
    return this.#takeRare(decodeMessage(bytes.subarray(start, end)), bytes, { start, end });
  }

  #takeRare(
    message: Message,
    bytes: Uint8Array,
    place: { start: number; end: number },
  ): Promise<void> | undefined {
    switch (message.kind) {
      case "relation":
        this.#relationId = -1;
        return void this.#relations.announce(message);
      case "truncate":
        return this.#truncate(message, bytes, place);
      case "origin":
      case "unnamed_origin":
        throw this.#violation("a transaction that the sender had received from another node");
      default:
        return undefined;
    }
  }

  #begin(decoded: Begin): undefined {
    if (this.#incoming.state !== "between") throw this.#violation("a transaction inside another");
    const begin = { ...decoded, seen: this.#seen };
    this.#incoming = begin.commitLsn < this.#position
      ? { state: "skipping", begin }
      : { state: "holding", begin, fromBytes: this.#held.byteLength };
    this.#bySets = true;
  }

  #change(bytes: Uint8Array, start: number, end: number): Promise<void> | undefined {
    if (this.#incoming.state === "skipping") return;
    if (end - start < 5) decodeMessage(bytes.subarray(start, end));
    const relationId =
      ((bytes[start + 1] << 24) | (bytes[start + 2] << 16) | (bytes[start + 3] << 8) | bytes[start + 4]) >>>
      0;
    if (relationId !== this.#relationId || this.#target === undefined) {
      this.#target = this.#relations.target(relationId);
      this.#relationId = relationId;
    }
    const place = { start, end };
    if (this.#target !== undefined) return this.#enter(this.#target, bytes, place);
    return this.#resolve(relationId).then((target) => this.#enter(target, bytes, place));
  }

  async #truncate(
    { relationIds }: Truncate,
    bytes: Uint8Array,
    place: { start: number; end: number },
  ): Promise<void> {
    if (this.#incoming.state === "skipping") return;
    const targets: TargetRelation[] = [];
    for (const id of relationIds) targets.push(this.#relations.target(id) ?? await this.#resolve(id));
    await this.#enter(targets, bytes, place);
  }

  /** Reads a local table on the apply session itself, between two statements. */
  async #resolve(relationId: number): Promise<TargetRelation> {
    const query = async (text: string, params: readonly unknown[] = []): Promise<Row[]> => {
      await this.#recovery;
      const rows = this.#writer.pipeline.query("read the catalog", text, params as string[]);
      if (this.#incoming.state !== "streaming") this.#writer.endBatch();
      return await rows;
    };
    for (;;) {
      try {
        const target = await this.#relations.resolve(relationId, query);
        await this.#recovery;
        return target;
      } catch (thrown) {
        // What was written before it has failed by sets, and takes the reply along.
        if (this.#recovery === undefined) throw thrown;
        await this.#recovery;
      }
    }
  }

  #enter(
    targets: Targets,
    bytes: Uint8Array,
    place: { start: number; end: number },
  ): Promise<void> | undefined {
    const incoming = this.#incoming;
    switch (incoming.state) {
      case "between":
        throw this.#violation("a change outside of a transaction");
      case "skipping":
        return;
      case "streaming":
        this.#writer.write(targets, bytes, place);
        return this.#writer.pipeline.room();
      case "holding": {
        const held = this.#held;
        held.add(targets, bytes, place.start, place.end);
        if (isTruncate(targets) || !targets.map.bySets) this.#bySets = false;
        if (
          held.count - held.wholeCount < HOLD_CHANGES &&
          held.byteLength - incoming.fromBytes < HOLD_BYTES
        ) return;
        return this.#stream(incoming.begin);
      }
    }
  }

  /** Writes a transaction before its end has come. It cannot be written again, so nothing before it may fail. */
  async #stream(begin: OriginBegin): Promise<void> {
    this.#offerWhole();
    while (!this.#units.isEmpty) await this.#progress();
    await Promise.race([this.#gate.pass(begin), this.failed]);
    const held = this.#held;
    this.#held = this.#spare.pop() ?? new HeldTransactions();
    this.#incoming = { state: "streaming", begin };
    const mode = this.#options.trust.modeOf(begin.commitLsn);
    this.#streamed = { begin, mode, endLsn: undefined };
    this.#writer.beginLong(begin, mode);
    for (let i = 0; i < held.count; i++) {
      this.#writer.write(held.targets[i], held.bytes[i], { start: held.starts[i], end: held.ends[i] });
    }
    await this.#writer.pipeline.room();
  }

  #commit(bytes: Uint8Array): Promise<void> | undefined {
    const { commitLsn, endLsn } = decodeCommit(bytes);
    const incoming = this.#incoming;
    if (incoming.state === "between" || incoming.begin.commitLsn !== commitLsn || endLsn <= commitLsn) {
      throw this.#violation(`a commit at ${formatLsn(commitLsn)} that ends no transaction`);
    }
    this.#incoming = BETWEEN;
    if (incoming.state === "skipping") return void this.#options.observer.deduplicated(1);
    this.#position = endLsn;
    if (incoming.state === "streaming") {
      this.#streamed!.endLsn = endLsn;
      this.#writer.commit(endLsn);
      this.#writer.endBatch();
      return this.#writer.pipeline.room();
    }
    return this.#hold(incoming.begin, endLsn);
  }

  /** A transaction is held whole; it goes with those before it if all are to be written alike. */
  #hold(begin: OriginBegin, endLsn: Lsn): Promise<void> | undefined {
    const held = this.#held;
    const isEmpty = held.count === held.wholeCount;
    held.end(begin, endLsn);
    const mode = isEmpty ? this.#mode : this.#modeOf(begin);
    if (mode !== this.#mode && held.transactions.length > 1) {
      const last = this.#spare.pop() ?? new HeldTransactions();
      held.moveLast(last);
      this.#units.offer({ held, mode: this.#mode });
      this.#held = last;
    }
    this.#mode = mode;
    if (!this.#held.isFull) return;
    this.#offerWhole();
    return this.#units.room();
  }

  #modeOf({ commitLsn }: Begin): WriteMode {
    const { trust, mayGroup } = this.#options;
    return this.#bySets && mayGroup() ? trust.modeOf(commitLsn) : "rows";
  }

  /** Hands on the whole transactions held, and keeps the beginning of another. */
  #offerWhole(): void {
    const held = this.#held;
    if (held.transactions.length === 0) return;
    this.#held = this.#spare.pop() ?? new HeldTransactions();
    held.moveRest(this.#held);
    this.#units.offer({ held, mode: this.#mode });
  }

  #cut(): Promise<void> | undefined {
    this.#offerWhole();
    return this.#units.room();
  }

  #recycle(held: HeldTransactions): void {
    held.clear();
    if (this.#spare.length < MAX_SPARE) this.#spare.push(held);
  }

  /** Called from a reply of the server: what it throws would reach nobody. */
  #committed(endLsn: Lsn): void {
    try {
      this.#goOn(endLsn);
    } catch (thrown) {
      this.#fail(toMmliteError(thrown));
    }
  }

  #goOn(endLsn: Lsn): void {
    if (this.#streamed?.endLsn !== undefined && this.#streamed.endLsn <= endLsn) this.#streamed = undefined;
    const { mode } = this.#units;
    if (this.#units.committed(endLsn) > 0 && mode === "sets") this.#options.trust.gain();
    this.#reachMark();
    // What has come meanwhile goes together.
    if (this.#units.isEmpty) this.flush();
  }

  #reachMark(): void {
    if (this.#mark === undefined || this.#writer.committedLsn < this.#mark.position) return;
    this.#options.observer.caughtUp(this.#mark.committedBefore);
    this.#mark = undefined;
    // Where nothing is written, nothing else reads how far the WAL is by now.
    const isIdle = this.#units.isEmpty && this.#incoming.state !== "streaming";
    if (isIdle && this.#recovery === undefined && this.#failure === undefined) this.#writer.endBatch();
  }

  async #progress(): Promise<void> {
    await Promise.race([this.#units.progress(), this.failed]);
    await this.#recovery;
  }

  /** Something that was written has failed, and nothing behind it is committed. */
  #lose(error: MmliteError, canRecover: boolean): void {
    const { trust } = this.#options;
    if (this.#streamed !== undefined) {
      const { begin, mode } = this.#streamed;
      if (mode === "rows" || !canRecover || error.kind === "unreachable") return this.#fail(error);
      trust.loseUntil(begin.commitLsn);
      return this.#fail(againByRows(error));
    }
    const isOfSets = canRecover && this.#units.mode === "sets" && error.kind !== "unreachable";
    if (!isOfSets || this.#failure !== undefined) return this.#fail(error);
    trust.lose();
    // A lock that is not to be had is waited for in a new session; there one by one, which holds fewer.
    if (error.kind === "transient") return this.#fail(error);
    this.#recovery = this.#recover().catch((thrown) => this.#fail(toMmliteError(thrown)))
      .finally(() => void (this.#recovery = undefined));
  }

  /** Writes everything that is not committed again, row by row. */
  async #recover(): Promise<void> {
    const units = this.#units.takeBack();
    await this.#writer.recover();
    for (const { held } of units) this.#units.offer({ held, mode: "rows" });
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
    this.#gate.close();
    this.#writer.close();
    // Breaking the connection off is the rollback, and ends whatever the server is waiting for.
    destroyClient(this.#session.client);
    this.#reject(error);
  }
}

/** What is waited for before transactions are written together: the last has seen the most. */
function lastOf(held: HeldTransactions): OriginBegin {
  return { ...held.transactions.at(-1)!.begin, commitTimestamp: held.latestTimestamp };
}

/** What a transaction that was not held failed of: it comes again, and is written in a way that tells more. */
function againByRows(error: MmliteError): MmliteError {
  return new MmliteError("transient", error.message, {
    hint: "Nothing to do: the transaction comes again, and is applied row by row",
    cause: error,
  });
}
