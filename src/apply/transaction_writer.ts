/**
 * The sending side of apply: local transactions into the pipeline, and what their replies mean.
 *
 * A local transaction is BEGIN, the compare-and-set of the origin's position, the changes, the tag that keeps it
 * from leaving this node again (which raises if the session has lost its origin), COMMIT. Transactions behind a
 * failed one fail by their compare-and-set, so nothing waits for replies.
 */
import { Buffer } from "node:buffer";
import { MmliteError } from "../errors.ts";
import { type Lsn, parseLsn } from "../lsn.ts";
import { Pipeline, type ReplySink } from "../pg/pipeline.ts";
import { decodeMessage } from "../pgoutput/decode.ts";
import type { Truncate, Tuple } from "../pgoutput/message.ts";
import { SeenVersions } from "../seen_versions.ts";
import type { AppliedLog, OriginBegin } from "./causes.ts";
import { changeKindOf } from "./change_kind.ts";
import { ChangeWriter } from "./change_writer.ts";
import { Durability } from "./durability.ts";
import { applyError, stopsTransaction } from "./failure.ts";
import { type HeldTransactions, isTruncate, type Targets } from "./held.ts";
import { int64 } from "./int64.ts";
import { Report, type ReportListeners } from "./report.ts";
import { decodeChange } from "./row_change.ts";
import type { ApplySession } from "./session.ts";
import { SetWriter } from "./set_writer.ts";
import { StatementCache } from "./statement_cache.ts";
import type { TargetRelation } from "./target_relation.ts";
import {
  BEGIN,
  COMMIT,
  MOVE,
  ROLLBACK,
  SNAPSHOT,
  TAG,
  TRANSACTION_STATEMENTS,
  WAL,
} from "./transaction_statements.ts";
import { VersionNotes } from "./version_notes.ts";
import { Versions } from "./versions.ts";

/** How often the flush position is read while something applied is not on disk, milliseconds. */
const DURABILITY_POLL_MS = 100;

/** What a writer needs besides its session. */
export interface TransactionWriterOptions extends ReportListeners {
  /** The sender's node name. */
  readonly origin: string;
  /** The epoch of this session in `mmlite.progress`: with another one there nothing can be applied. */
  readonly epoch: bigint;
  /** End of the origin's last transaction that is applied here. */
  readonly position: Lsn;
  /** Everything up to here is on disk; each call with a later position, the first with `position` itself. */
  readonly onDurable: (endLsn: Lsn) => void;
  /** What any node committed before this time the origin has had before all that it sends, microseconds since
   * 2000-01-01 UTC. */
  readonly seenBefore: bigint;
  /** See `VersionsOptions`. */
  readonly others: () => readonly string[];
  readonly applied: AppliedLog;
  /** Everything up to here is committed. */
  readonly onCommitted: (endLsn: Lsn) => void;
  /** A failure; nothing may be sent after it, or where it can be mended not before {@link TransactionWriter.recover}. */
  readonly onFailure: (error: MmliteError, canRecover: boolean) => void;
}

/** What a local transaction is made from: one transaction of the origin, or several that are committed together. */
interface Beginning {
  /** Of the only or first one. */
  readonly commitLsn: Lsn;
  /** Of the latest, microseconds since 2000-01-01 UTC. */
  readonly commitTimestamp: bigint;
  readonly transactions: number;
}

/** How changes are written: each by a statement that settles its conflicts, or by statements that settle none. */
export type WriteMode = "rows" | "sets";

/** A transaction that is being written. */
interface OpenTransaction extends Beginning {
  readonly mode: WriteMode;
  /** Its end; of a long one that of its commit record's beginning, of one that is applied again undefined. */
  readonly endLsn: Lsn | undefined;
  readonly timestampBytes: Uint8Array;
  readonly report: Report;
}

/** See the module's head. */
export class TransactionWriter {
  readonly pipeline: Pipeline;
  readonly #options: TransactionWriterOptions;
  readonly #cache: StatementCache;
  readonly #changes: ChangeWriter;
  readonly #sets: SetWriter;
  readonly #durability: Durability;
  readonly #originBytes: Uint8Array;
  readonly #epochBytes: Uint8Array;
  readonly #moveSink: ReplySink;
  readonly #snapshotSink: ReplySink;
  readonly #tagSink: ReplySink;
  readonly #versions: Versions;
  readonly #notes: VersionNotes;
  /** Whether the server keeps commit timestamps; without them rows have no versions. */
  readonly #keepsVersions: boolean;
  readonly #walSink: ReplySink;
  /** The position that the next compare-and-set will find, and its bytes. */
  #position: Lsn;
  #positionBytes: Uint8Array;
  #open: OpenTransaction | undefined;
  /** Of the replies: the transaction whose statements are being answered, and the end of the last one committed. */
  #answering: OpenTransaction | undefined;
  #committedLsn: Lsn;
  #pollTimer: ReturnType<typeof setTimeout> | undefined;
  /** Nothing may be sent: closed, or failed and not recovered. */
  #stopped = false;

  constructor(session: ApplySession, options: TransactionWriterOptions) {
    this.#options = options;
    this.#position = options.position;
    this.#positionBytes = int64(options.position);
    this.#committedLsn = options.position;
    this.#originBytes = Buffer.from(options.origin, "utf8");
    this.#epochBytes = int64(options.epoch);
    this.#durability = new Durability(options.onDurable);
    this.#moveSink = { doing: "move the position", completed: () => {} };
    this.#snapshotSink = { doing: "keep what it sees", completed: () => {} };
    this.#tagSink = { doing: "tag the changes", completed: () => {} };
    this.#versions = new Versions(options);
    this.#keepsVersions = session.trackCommitTimestamp;
    this.#walSink = {
      doing: "read the WAL position",
      row: ([insert, flush]) => this.#noteWal(parseLsn(insert!), parseLsn(flush!)),
      completed: () => this.#poll(),
    };
    this.pipeline = new Pipeline(session.client, {
      failed: (error, sink) => this.#fail(error, sink),
      notice: (notice) => this.#answering?.report.note(notice),
    });
    this.#cache = new StatementCache(this.pipeline);
    const writing = { pipeline: this.pipeline, cache: this.#cache, versions: this.#versions };
    this.#changes = new ChangeWriter(writing);
    this.#sets = new SetWriter({ ...writing, changes: this.#changes });
    this.#notes = new VersionNotes(session, { ...writing, gone: this.#changes.gone });
    for (const statement of TRANSACTION_STATEMENTS) {
      this.pipeline.prepare(statement);
    }
    // What an earlier session applied may not be on disk yet either.
    this.endBatch();
  }

  /** End of the last transaction written. */
  get position(): Lsn {
    return this.#position;
  }

  /** End of the last transaction that is committed here. */
  get committedLsn(): Lsn {
    return this.#committedLsn;
  }

  /** Writes transactions as one local transaction, by sets; the rows' own versions are noted beside it. */
  writeGroup(held: HeldTransactions): void {
    const { transactions } = held;
    const versions = this.#versions;
    versions.begin(transactions.map(({ begin }) => begin));
    const { commitLsn } = transactions[0].begin;
    const { endLsn } = transactions.at(-1)!;
    this.#begin({ commitLsn, commitTimestamp: versions.last, transactions: transactions.length }, {
      endLsn,
      mode: "sets",
    });
    this.#sets.begin(this.#keepsVersions && versions.first !== versions.last);
    transactions.forEach((_, i) => this.#writeTransaction(held, i));
    this.commit(endLsn);
  }

  /** Writes each transaction that is not committed yet as a local transaction of its own. */
  writeEach(held: HeldTransactions): void {
    held.transactions.forEach(({ begin, endLsn }, i) => {
      if (endLsn <= this.#committedLsn) return;
      this.#versions.begin([begin]);
      this.#begin({ ...begin, transactions: 1 }, { endLsn, mode: "rows" });
      try {
        this.#writeTransaction(held, i, 0);
      } catch (thrown) {
        throw stopsTransaction(thrown, this.#options.origin, { commitLsn: begin.commitLsn, endLsn });
      }
      this.commit(endLsn);
    });
  }

  /** Writes a row of the origin's that was fetched, as it was committed there at a time; between transactions. */
  writeFetched(target: TargetRelation, tuple: Tuple, commitTimestamp: bigint): void {
    const endLsn = this.#position;
    this.#versions.begin([{ commitTimestamp, seen: SeenVersions.NOTHING }]);
    // What the origin has sent is still what it was: its time does not move, as its position does not.
    this.#begin({ commitLsn: endLsn, commitTimestamp, transactions: 0 }, { endLsn, mode: "rows" });
    this.#open!.report.counts.update++;
    this.#changes.writeFetched(target, tuple, 0);
    this.commit(endLsn);
  }

  /** Writes the beginning of a transaction whose end is not known: the position is its commit record until then. */
  beginLong(begin: OriginBegin, mode: WriteMode): void {
    this.#versions.begin([begin]);
    this.#begin({ ...begin, transactions: 1 }, { endLsn: begin.commitLsn, mode });
    this.#sets.begin(false);
  }

  /** Writes the beginning of a transaction that the position, which is this writer's, has passed long ago. */
  beginAgain(begin: OriginBegin): void {
    this.#versions.begin([begin]);
    this.#begin({ ...begin, transactions: 1 }, { endLsn: undefined, mode: "rows" });
  }

  /** Writes a change, which lies from `start` to `end` in `bytes`, of the transaction with that number. */
  write(
    targets: Targets,
    bytes: Uint8Array,
    { start, end, transaction = 0 }: { start: number; end: number; transaction?: number },
  ): void {
    const { report, mode } = this.#open!;
    report.counts[changeKindOf(bytes[start])]++;
    if (isTruncate(targets)) {
      const { restartIdentity } = decodeMessage(bytes.subarray(start, end)) as Truncate;
      this.#sets.flush();
      this.#changes.truncate(targets, { restartIdentity, transaction });
    } else if (mode === "sets" && targets.map.bySets) {
      this.#sets.write(targets, bytes, { start, end, transaction });
    } else {
      // A long transaction may have changed rows of the table by sets before.
      if (mode === "sets") this.#sets.flushTable(targets);
      this.#changes.write(targets, decodeChange(targets, bytes.subarray(start, end)), transaction);
    }
    this.#notes.bound();
    this.#changes.gone.bound();
    this.#changes.twins.bound();
  }

  /** Writes the end of the transaction. */
  commit(endLsn: Lsn): void {
    const open = this.#open!;
    this.#sets.flush();
    this.#notes.end({ sinceBegin: open.mode === "rows" });
    this.#changes.twins.settleAll();
    if (this.#position !== endLsn) this.#move(endLsn, open.timestampBytes);
    this.pipeline.execute(TAG.name, this.#tagSink, [this.#positionBytes, open.timestampBytes]);
    this.#options.applied.committing(endLsn, open.commitTimestamp);
    this.pipeline.execute(COMMIT.name, {
      doing: "commit",
      completed: (tag) => this.#committed(open, endLsn, tag),
    });
    this.#open = undefined;
  }

  /** Forgets the statements of a target that is no longer used. */
  forget(target: TargetRelation): void {
    this.#cache.forgetAll(target.statements);
  }

  /** Ends the batch and reads how far the WAL is on disk. */
  endBatch(): void {
    this.pipeline.execute(WAL.name, this.#walSink);
    this.pipeline.sync();
  }

  /** After a failure of a statement: everything behind the last commit is undone and may be written again. */
  async recover(): Promise<void> {
    await this.pipeline.recover();
    this.#open = undefined;
    this.#answering = undefined;
    this.#sets.clear();
    this.#changes.clear();
    this.#position = this.#committedLsn;
    this.#positionBytes = int64(this.#position);
    this.#cache.clear();
    this.pipeline.execute(ROLLBACK.name, { doing: "roll back", completed: () => {} });
    this.#stopped = false;
    this.endBatch();
  }

  /** Stops asking for the WAL position. */
  close(): void {
    this.#stopped = true;
    clearTimeout(this.#pollTimer);
    this.#pollTimer = undefined;
  }

  #begin(beginning: Beginning, { endLsn, mode }: { endLsn: Lsn | undefined; mode: WriteMode }): void {
    const { commitLsn, commitTimestamp, transactions } = beginning;
    const open: OpenTransaction = {
      ...{ commitLsn, commitTimestamp, transactions, mode, endLsn },
      timestampBytes: int64(commitTimestamp),
      report: new Report(),
    };
    this.#open = open;
    this.#notes.begin();
    this.pipeline.execute(BEGIN.name, {
      doing: "begin",
      completed: () => void (this.#answering = open),
    });
    if (endLsn !== undefined) this.#move(endLsn, transactions === 0 ? null : open.timestampBytes);
    else this.pipeline.execute(SNAPSHOT.name, this.#snapshotSink);
  }

  /** Writes one of those held, `number` being which one of those that are written together it is. */
  #writeTransaction(
    { transactions, bytes, starts, ends, targets }: HeldTransactions,
    index: number,
    transaction = index,
  ): void {
    const { from, to } = transactions[index];
    for (let i = from; i < to; i++) {
      this.write(targets[i], bytes[i], { start: starts[i], end: ends[i], transaction });
    }
  }

  #move(to: Lsn, timestampBytes: Uint8Array | null): void {
    const from = this.#positionBytes;
    this.#position = to;
    this.#positionBytes = int64(to);
    this.pipeline.execute(MOVE.name, this.#moveSink, [
      this.#originBytes,
      from,
      this.#positionBytes,
      this.#epochBytes,
      timestampBytes,
    ]);
  }

  #committed(open: OpenTransaction, endLsn: Lsn, tag: string): void {
    this.#answering = undefined;
    if (tag !== "COMMIT") {
      // Only a transaction that has failed answers COMMIT with ROLLBACK, and then the pipeline has failed before.
      this.close();
      const error = new MmliteError("internal", `Cannot commit: PostgreSQL answered ${tag}`);
      return this.#options.onFailure(error, false);
    }
    this.#committedLsn = endLsn;
    open.report.tell(open, this.#options);
    this.#options.applied.committed(endLsn);
    this.#options.onCommitted(endLsn);
  }

  #noteWal(insertLsn: Lsn, flushLsn: Lsn): void {
    this.#options.applied.visible(this.#committedLsn, insertLsn);
    this.#durability.note(this.#committedLsn, { insertLsn, flushLsn });
  }

  /** Asks again in a while if something applied is not on disk: an idle session asks nothing. */
  #poll(): void {
    if (this.#stopped || this.#pollTimer !== undefined || !this.#durability.isWaiting) return;
    this.#pollTimer = setTimeout(() => {
      this.#pollTimer = undefined;
      this.pipeline.execute(WAL.name, this.#walSink);
      if (this.#open === undefined) this.pipeline.sync();
      else this.pipeline.flush();
    }, DURABILITY_POLL_MS);
  }

  #fail(error: unknown, sink?: ReplySink): void {
    this.close();
    const { origin } = this.#options;
    const { commitLsn, endLsn } = this.#answering ?? {};
    this.#options.onFailure(
      applyError(error, { origin, commitLsn, endLsn, doing: sink?.doing }),
      !this.pipeline.isLost,
    );
  }
}
