/**
 * Applies one origin's transactions in their order: what has come meanwhile as one local transaction by sets, or
 * each as one of its own, row by row.
 *
 * Nothing waits for company: a transaction that comes while nothing is under way is applied at once. Sets settle no
 * conflict; where they fail, the same transactions are applied again one by one. The first failure of those ends the
 * applier: trying again, in a new session, is the business of who opened it.
 */
import { delay } from "../backoff.ts";
import type { TablePolicy } from "../conflict_policy.ts";
import { MmliteError, toMmliteError } from "../errors.ts";
import { formatLsn, type Lsn } from "../lsn.ts";
import { closeClient, destroyClient } from "../pg/client.ts";
import type { Row } from "../pg/query.ts";
import { decodeMessage } from "../pgoutput/decode.ts";
import type { Begin, Message, Truncate } from "../pgoutput/message.ts";
import { decodeBegin, decodeCommit, MESSAGE_TYPE } from "../pgoutput/peek.ts";
import { type SeenNode, SeenVersions } from "../seen_versions.ts";
import type { OriginBegin } from "./causes.ts";
import { isDisturbed, stopsTransaction } from "./failure.ts";
import { type FetchedRow, FetchedRows } from "./fetched_rows.ts";
import { Gate, type GateOptions } from "./gate.ts";
import { Gathering, type GatheringOptions } from "./gathering.ts";
import type { HeldTransactions, Targets } from "./held.ts";
import { ProgressMarks } from "./progress_marks.ts";
import { QuarantineWriter } from "./quarantine_writer.ts";
import { Relations } from "./relations.ts";
import { type ApplySession, type ApplySessionOptions, openApplySession } from "./session.ts";
import { settlementOf } from "./settlement.ts";
import type { TargetRelation } from "./target_relation.ts";
import { TransactionWriter, type TransactionWriterOptions, type WriteMode } from "./transaction_writer.ts";
import type { Trust } from "./trust.ts";
import { Units } from "./units.ts";

export type { ChangeKind } from "./change_kind.ts";
export type { ApplyObserver } from "./report.ts";

/** How long closing waits for what has been sent, milliseconds. */
const CLOSE_WAIT_MS = 1_000;

/** What an applier needs. */
export interface ApplierOptions
  extends
    ApplySessionOptions,
    Omit<TransactionWriterOptions, "onCommitted" | "onFailure">,
    Omit<GatheringOptions, "offer">,
    Omit<GateOptions, "origin"> {
  /** Whether sets are tried; outlives the applier, because what failed by sets comes again. */
  readonly trust: Trust;
  readonly policyOf: (schema: string, name: string) => TablePolicy;
  /** The transaction that is kept in quarantine instead of being applied, by its commit LSN. */
  readonly skipLsn?: Lsn;
  /** See `RelationsOptions.awaitTable`. */
  readonly awaitTable?: (oid: number) => Promise<void>;
  /** What the origin is known to have had of other nodes before all that comes; nothing where left out. */
  readonly seen?: SeenVersions;
}

/** What is under way on the incoming side. */
type Incoming =
  | { readonly state: "between" }
  /** It was applied before. */
  | { readonly state: "skipping"; readonly begin: OriginBegin }
  /** It is kept in quarantine instead of being applied. */
  | { readonly state: "keeping"; readonly begin: OriginBegin }
  /** Its changes are the last ones held. */
  | { readonly state: "holding"; readonly begin: OriginBegin }
  /** It is too large to hold: its beginning has been written. */
  | { readonly state: "streaming"; readonly begin: OriginBegin };

const BETWEEN: Incoming = { state: "between" };

/** Opens the session; throws an error of ours that names the origin. */
export async function openApplier(options: ApplierOptions): Promise<Applier> {
  return new Applier(await openApplySession(options), options);
}

/** See the module's head. */
export class Applier {
  /** Rejects when applying has failed or was ended; never resolves. */
  readonly failed: Promise<never>;
  readonly #options: ApplierOptions;
  readonly #session: ApplySession;
  readonly #writer: TransactionWriter;
  readonly #gate: Gate;
  readonly #units: Units;
  readonly #gathering: Gathering;
  readonly #relations: Relations;
  readonly #fetched: FetchedRows;
  /** Where a transaction is to be kept in quarantine. */
  readonly #keeper: QuarantineWriter | undefined;
  readonly #reject: (error: MmliteError) => void;
  readonly #stop: () => void;
  #failure: MmliteError | undefined;
  #recovery: Promise<void> | undefined;
  #incoming: Incoming = BETWEEN;
  /** What the origin had when it committed the transaction that comes. */
  #seen: SeenVersions;
  /** The last transaction that was written before its end had come. */
  #streamed: { readonly begin: Begin; readonly mode: WriteMode; endLsn: Lsn | undefined } | undefined;
  /** End of the last transaction that came whole. */
  #position: Lsn;
  readonly #marks: ProgressMarks;
  /** The relation of the last change: the next is mostly of the same. */
  #relationId = -1;
  #target: TargetRelation | undefined;

  /** Use {@link openApplier}. */
  constructor(session: ApplySession, options: ApplierOptions) {
    this.#options = options;
    this.#session = session;
    this.#seen = options.seen ?? SeenVersions.NOTHING;
    this.#marks = new ProgressMarks(options);
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
      done: (held) => this.#gathering.recycle(held),
      failed: (thrown) => this.#fail(toMmliteError(thrown)),
    });
    this.#gathering = new Gathering({ ...options, offer: (unit) => this.#units.offer(unit) });
    this.#relations = new Relations({
      serverVersion: session.serverVersion,
      settlementOf: settlementOf(session, options),
      awaitTable: options.awaitTable,
      forget: (target) => this.#writer.forget(target),
    });
    this.#fetched = new FetchedRows({
      ...options,
      relations: this.#relations,
      resolve: (relationId) => this.#resolve(relationId),
    });
    this.#keeper = options.skipLsn === undefined
      ? undefined
      : new QuarantineWriter(this.#writer.pipeline, options.origin);
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

  /** Nothing more is at hand for the moment: everything complete is committed as soon as nothing is under way. Throws
   * nothing: what goes wrong is the applier's failure. */
  flush(): void {
    if (this.#failure !== undefined || this.#recovery !== undefined) return;
    try {
      const { state } = this.#incoming;
      if (state === "streaming" || state === "keeping") this.#writer.pipeline.flush();
      else if (this.#units.isEmpty) {
        this.#writeFetched();
        this.#gathering.offerWhole();
      }
    } catch (thrown) {
      this.#fail(toMmliteError(thrown));
    }
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

  /** Takes a row that was fetched from the origin, to be written in its version as soon as nothing is under way. One
   * that does not fit the table here waits until it is fetched again. */
  async fetched(row: FetchedRow): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    await this.#fetched.take(row).catch((thrown) => this.#failWith(thrown));
  }

  /** Whatever the origin committed before this time, microseconds since 2000-01-01 UTC, has been pushed. */
  caughtUp(committedBefore: bigint): void {
    this.#marks.caughtUp(committedBefore, { seen: this.#seen, position: this.#position });
    this.#reachMarks();
  }

  /** Whatever ends up to here in the origin's WAL, and is for this node, has been pushed. */
  passed(walLsn: Lsn): void {
    this.#marks.passed(walLsn, this.#position);
    this.#reachMarks();
  }

  /** Resolves once everything complete that was pushed has been executed; rejects with the failure. */
  async idle(): Promise<void> {
    for (;;) {
      await this.#recovery;
      this.flush();
      if (this.#failure !== undefined) throw this.#failure;
      // While a recovery begins, nothing is offered.
      if (this.#recovery === undefined && this.#units.isEmpty) break;
      await this.#progress();
    }
    await this.#writer.pipeline.settled().catch((thrown) => this.#failWith(thrown));
  }

  /** Whether anything is written that is not committed yet, or about to be. */
  get isBusy(): boolean {
    return !this.#units.isEmpty || this.#streamed !== undefined || this.#recovery !== undefined;
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
    this.#reject(new MmliteError("aborted", `Cannot apply "${this.#options.origin}": closed`));
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
        this.#keeper?.announce(message, bytes.subarray(place.start, place.end));
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

  #begin(decoded: Begin): Promise<void> | undefined {
    if (this.#incoming.state !== "between") throw this.#violation("a transaction inside another");
    const begin = { ...decoded, seen: this.#seen };
    if (begin.commitLsn === this.#options.skipLsn && begin.commitLsn >= this.#position) {
      return this.#keep(begin);
    }
    this.#incoming = begin.commitLsn < this.#position
      ? { state: "skipping", begin }
      : { state: "holding", begin };
    this.#gathering.begin();
  }

  /** Puts a transaction into quarantine; what came before it is applied first. */
  async #keep(begin: OriginBegin): Promise<void> {
    this.#incoming = { state: "keeping", begin };
    await this.#commitWhole();
    this.#streamed = { begin, mode: "rows", endLsn: undefined };
    this.#writer.beginLong(begin, "rows");
    this.#keeper!.begin(begin);
  }

  #keepChange(message: Uint8Array): Promise<void> | undefined {
    this.#keeper!.keep(message);
    return this.#writer.pipeline.room();
  }

  #change(bytes: Uint8Array, start: number, end: number): Promise<void> | undefined {
    if (this.#incoming.state === "skipping") return;
    if (this.#incoming.state === "keeping") return this.#keepChange(bytes.subarray(start, end));
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
    if (this.#incoming.state === "keeping") return this.#keepChange(bytes.subarray(place.start, place.end));
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
        if (this.#recovery === undefined) return await this.#refuse(toMmliteError(thrown));
        await this.#recovery;
      }
    }
  }

  /** The transaction that comes cannot be applied; what came before it is, so that it alone stands in the way. */
  async #refuse(error: MmliteError): Promise<never> {
    const incoming = this.#incoming;
    if (error.disposition !== "block" || incoming.state === "between") throw error;
    await this.#commitWhole();
    const { commitLsn } = incoming.begin;
    throw stopsTransaction(error, this.#options.origin, { commitLsn });
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
      case "keeping":
        return;
      case "streaming":
        this.#writeLong(incoming.begin, targets, { bytes, ...place });
        return this.#writer.pipeline.room();
      case "holding":
        if (this.#gathering.add(targets, bytes, place)) return;
        return this.#stream(incoming.begin);
    }
  }

  /** Writes a transaction before its end has come. It cannot be written again, so nothing before it may fail. */
  async #stream(begin: OriginBegin): Promise<void> {
    await this.#commitWhole();
    await Promise.race([this.#gate.pass(begin), this.failed]);
    const held = this.#gathering.takeOpen();
    this.#incoming = { state: "streaming", begin };
    const mode = this.#options.trust.nextMode(begin.commitLsn);
    this.#streamed = { begin, mode, endLsn: undefined };
    this.#writer.beginLong(begin, mode);
    for (let i = 0; i < held.count; i++) {
      this.#writeLong(begin, held.targets[i], {
        bytes: held.bytes[i],
        start: held.starts[i],
        end: held.ends[i],
      });
    }
    await this.#writer.pipeline.room();
  }

  #writeLong(
    { commitLsn }: Begin,
    targets: Targets,
    { bytes, ...place }: { bytes: Uint8Array; start: number; end: number },
  ): void {
    try {
      this.#writer.write(targets, bytes, place);
    } catch (thrown) {
      throw stopsTransaction(thrown, this.#options.origin, { commitLsn });
    }
  }

  /** Resolves once everything whole that has come is committed. */
  async #commitWhole(): Promise<void> {
    this.#gathering.offerWhole();
    while (!this.#units.isEmpty) await this.#progress();
    // What a long one fails of must not be taken for a failure of the next.
    if (this.#streamed !== undefined) await this.#writer.pipeline.settled();
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
    if (incoming.state === "streaming" || incoming.state === "keeping") {
      this.#streamed!.endLsn = endLsn;
      if (incoming.state === "keeping") this.#keeper!.end(endLsn);
      this.#writer.commit(endLsn);
      this.#writer.endBatch();
      return this.#writer.pipeline.room();
    }
    if (!this.#gathering.end(incoming.begin, endLsn)) return;
    return this.#cut();
  }

  /** Hands on the whole transactions held. */
  #cut(): Promise<void> | undefined {
    this.#gathering.offerWhole();
    return this.#units.room();
  }

  /** Called from a reply of the server: what it throws would reach nobody. */
  #committed(endLsn: Lsn): void {
    if (this.#failure !== undefined) return;
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
    this.#reachMarks();
    // What has come meanwhile goes together.
    if (this.#units.isEmpty) this.flush();
  }

  #writeFetched(): void {
    if (this.#fetched.isEmpty || this.#streamed !== undefined) return;
    this.#fetched.write(this.#writer);
    this.#writer.endBatch();
  }

  #reachMarks(): void {
    if (!this.#marks.reach(this.#writer.committedLsn)) return;
    // Where nothing is written, nothing else reads how far the WAL is by now.
    const { state } = this.#incoming;
    const isIdle = this.#units.isEmpty && state !== "streaming" && state !== "keeping";
    if (isIdle && this.#recovery === undefined && this.#failure === undefined) this.#writer.endBatch();
  }

  async #progress(): Promise<void> {
    await this.#units.progress();
    await this.#recovery;
  }

  /** Something that was written has failed, and nothing behind it is committed. */
  #lose(error: MmliteError, canRecover: boolean): void {
    const { trust } = this.#options;
    const canMend = canRecover && error.kind !== "unreachable";
    if (this.#streamed !== undefined) {
      const { begin, mode, endLsn } = this.#streamed;
      const isRace = isDisturbed(error) && trust.mayRaceAgain(begin.commitLsn);
      if (!canMend || (mode === "rows" && !isRace)) {
        const { transaction } = error;
        return this.#fail(transaction === undefined ? error : error.in({ ...transaction, endLsn }));
      }
      if (mode === "sets") trust.loseUntil(begin.commitLsn);
      return this.#fail(againByRows(error));
    }
    const bySets = this.#units.mode === "sets";
    const isRace = isDisturbed(error) && (bySets || trust.mayRaceAgain(this.#writer.committedLsn));
    if (!canMend || !(bySets || isRace) || this.#failure !== undefined) return this.#fail(error);
    if (bySets) trust.lose();
    // A lock that is not to be had is waited for in a new session; there one by one, which holds fewer.
    if (error.kind === "transient" && !isRace) return this.#fail(error);
    if (error.kind === "schema_mismatch") this.#readTablesAgain();
    this.#recovery = this.#recover().catch((thrown) => this.#fail(toMmliteError(thrown)))
      .finally(() => void (this.#recovery = undefined));
  }

  /** Sets may have failed of what a table was when it was read. */
  #readTablesAgain(): void {
    this.#relations.readAgain();
    this.#relationId = -1;
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
    this.#units.fail(error);
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
