/**
 * The sending side of apply: local transactions into the pipeline, and what their replies mean.
 *
 * A transaction is BEGIN, the compare-and-set of the origin's position, the changes, the tag that keeps it from
 * leaving this node again (which raises if the session has lost its origin), COMMIT. Transactions behind a failed
 * one fail by their compare-and-set, so nothing waits for replies.
 */
import { Buffer } from "node:buffer";
import { MmliteError } from "../errors.ts";
import { type Lsn, parseLsn } from "../lsn.ts";
import { Pipeline, type ReplySink } from "../pg/pipeline.ts";
import type { StatementText } from "../pg/query_bytes.ts";
import { CONFLICT_SQLSTATE } from "../pg/schema.ts";
import type { Begin, Truncate } from "../pgoutput/message.ts";
import { ChangeWriter, type RowChange, type TargetRelation } from "./change_writer.ts";
import { Durability } from "./durability.ts";
import { applyError } from "./failure.ts";
import type { ApplySession } from "./session.ts";
import { StatementCache } from "./statement_cache.ts";
import type { ConflictType, StatementShape } from "./statements.ts";

/** A batch ends after this many transactions: what is sent behind an error in it is sent in vain. */
const BATCH_TRANSACTIONS = 100;
/** How often the flush position is read while something applied is not on disk, milliseconds. */
const DURABILITY_POLL_MS = 100;

const TEXT_OID = 25;
const INT8_OID = 20;
const PG_LSN_OID = 3220;
const TIMESTAMPTZ_OID = 1184;

/** The statements around the changes. Parameters go in binary: positions, timestamps (microseconds since
 * 2000-01-01, as pgoutput has them) and the epoch are all 64-bit integers. */
const BEGIN: StatementText = { name: "begin", sql: "BEGIN", parameterTypes: [] };
const COMMIT: StatementText = { name: "commit", sql: "COMMIT", parameterTypes: [] };
const MOVE: StatementText = {
  name: "move",
  sql: "SELECT mmlite.begin_apply($1, $2, $3, $4, $5)",
  parameterTypes: [TEXT_OID, PG_LSN_OID, PG_LSN_OID, INT8_OID, TIMESTAMPTZ_OID],
};
const TAG: StatementText = {
  name: "tag",
  sql: "SELECT pg_replication_origin_xact_setup($1, $2)",
  parameterTypes: [PG_LSN_OID, TIMESTAMPTZ_OID],
};
const WAL: StatementText = {
  name: "wal",
  sql: "SELECT pg_current_wal_insert_lsn()::text, pg_current_wal_flush_lsn()::text",
  parameterTypes: [],
};

/** Kinds of changes, as they are counted. */
export type ChangeKind = "insert" | "update" | "delete" | "truncate";

/** Is told what was committed. */
export interface ApplyObserver {
  /** `commitTimestamp`: microseconds since 2000-01-01 UTC, at the origin. `durationMs`: from the first statement
   * written to the reply to COMMIT. */
  transaction(of: { commitTimestamp: bigint; durationMs: number; changes: number }): void;
  change(kind: ChangeKind, count: number): void;
  conflict(type: ConflictType): void;
  /** Transactions that came again and were skipped. */
  deduplicated(count: number): void;
}

/** A change with the mapping that was valid when it came. */
export type MappedChange =
  | { readonly target: TargetRelation; readonly change: RowChange }
  | { readonly targets: readonly TargetRelation[]; readonly change: Truncate };

/** What a writer needs besides its session. */
export interface TransactionWriterOptions {
  /** The sender's node name. */
  readonly origin: string;
  /** The epoch of this session in `mmlite.progress`: with another one there nothing can be applied. */
  readonly epoch: bigint;
  /** End of the origin's last transaction that is applied here. */
  readonly position: Lsn;
  /** Everything up to here is on disk; each call with a later position, the first with `position` itself. */
  readonly onDurable: (endLsn: Lsn) => void;
  readonly observer: ApplyObserver;
  /** The first failure; nothing is sent after it. */
  readonly onFailure: (error: MmliteError) => void;
}

/** A transaction that is being written, and what is told of it once it is committed. */
interface OpenTransaction {
  readonly begin: Begin;
  readonly timestampBytes: Uint8Array;
  readonly startedAt: number;
  readonly counts: Record<ChangeKind, number>;
  readonly conflicts: ConflictType[];
}

/** See the module's head. */
export class TransactionWriter {
  readonly pipeline: Pipeline;
  readonly #options: TransactionWriterOptions;
  readonly #cache: StatementCache;
  readonly #changes: ChangeWriter;
  readonly #durability: Durability;
  readonly #originBytes: Uint8Array;
  readonly #epochBytes: Uint8Array;
  readonly #moveSink: ReplySink;
  readonly #tagSink: ReplySink;
  readonly #walSink: ReplySink;
  /** The position that the next compare-and-set will find, and its bytes. */
  #position: Lsn;
  #positionBytes: Uint8Array;
  #open: OpenTransaction | undefined;
  #batchTransactions = 0;
  /** Of the replies: the transaction whose statements are being answered, and the end of the last one committed. */
  #answering: OpenTransaction | undefined;
  #committedLsn: Lsn;
  #pollTimer: ReturnType<typeof setTimeout> | undefined;
  #closed = false;

  constructor(session: ApplySession, options: TransactionWriterOptions) {
    this.#options = options;
    this.#position = options.position;
    this.#positionBytes = int64(options.position);
    this.#committedLsn = options.position;
    this.#originBytes = Buffer.from(options.origin, "utf8");
    this.#epochBytes = int64(options.epoch);
    this.#durability = new Durability(options.onDurable);
    this.#moveSink = { doing: "move the position", completed: () => {} };
    this.#tagSink = { doing: "tag the changes", completed: () => {} };
    this.#walSink = {
      doing: "read the WAL position",
      row: ([insert, flush]) => this.#noteWal(parseLsn(insert!), parseLsn(flush!)),
      completed: () => this.#poll(),
    };
    this.pipeline = new Pipeline(session.client, {
      failed: (error, sink) => this.#fail(error, sink),
      notice: (notice) => this.#note(notice),
    });
    const toSink = (shape: StatementShape) => this.#changeSink(shape);
    this.#cache = new StatementCache(this.pipeline, toSink);
    this.#changes = new ChangeWriter(this.pipeline, this.#cache, toSink);
    for (const statement of [BEGIN, COMMIT, MOVE, TAG, WAL]) this.pipeline.prepare(statement);
    // What an earlier session applied may not be on disk yet either.
    this.endBatch();
  }

  /** End of the last transaction written. */
  get position(): Lsn {
    return this.#position;
  }

  /** Writes the beginning of a transaction, up to its end or, while that is not known, its commit record. */
  begin(begin: Begin, endLsn: Lsn = begin.commitLsn): void {
    const open: OpenTransaction = {
      begin,
      timestampBytes: int64(begin.commitTimestamp),
      startedAt: performance.now(),
      counts: { insert: 0, update: 0, delete: 0, truncate: 0 },
      conflicts: [],
    };
    this.#open = open;
    this.pipeline.execute(BEGIN.name, {
      doing: "begin",
      completed: () => void (this.#answering = open),
    });
    this.#move(endLsn, open.timestampBytes);
  }

  /** Writes a change. */
  write(mapped: MappedChange): void {
    this.#open!.counts[mapped.change.kind]++;
    if ("target" in mapped) this.#changes.write(mapped.target, mapped.change);
    else this.#changes.truncate(mapped.targets, mapped.change.restartIdentity);
  }

  /** Writes the end of the transaction. */
  commit(endLsn: Lsn): void {
    const open = this.#open!;
    this.#changes.flush();
    if (this.#position !== endLsn) this.#move(endLsn, open.timestampBytes);
    this.pipeline.execute(TAG.name, this.#tagSink, [this.#positionBytes, open.timestampBytes]);
    this.pipeline.execute(COMMIT.name, {
      doing: "commit",
      completed: (tag) => this.#committed(open, endLsn, tag),
    });
    this.#open = undefined;
    if (++this.#batchTransactions >= BATCH_TRANSACTIONS) this.endBatch();
  }

  /** Forgets the statements of a target that is no longer used. */
  forget(target: TargetRelation): void {
    this.#changes.flush();
    this.#cache.forgetAll(target.statements);
  }

  /** Sends everything written; ends the batch unless a transaction is open. */
  flush(): void {
    if (this.#open !== undefined) this.pipeline.flush();
    else if (this.#batchTransactions > 0) this.endBatch();
  }

  /** Ends the batch and reads how far the WAL is on disk. */
  endBatch(): void {
    this.#batchTransactions = 0;
    this.pipeline.execute(WAL.name, this.#walSink);
    this.pipeline.sync();
  }

  /** Stops asking for the WAL position. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#pollTimer);
  }

  #move(to: Lsn, timestampBytes: Uint8Array): void {
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
      this.#fail(new MmliteError("internal", `Cannot commit: PostgreSQL answered ${tag}`));
      return;
    }
    this.#committedLsn = endLsn;
    this.#report(open);
  }

  #report({ begin, startedAt, counts, conflicts }: OpenTransaction): void {
    const { observer } = this.#options;
    const { commitTimestamp } = begin;
    const changes = counts.insert + counts.update + counts.delete + counts.truncate;
    observer.transaction({ commitTimestamp, durationMs: performance.now() - startedAt, changes });
    if (counts.insert > 0) observer.change("insert", counts.insert);
    if (counts.update > 0) observer.change("update", counts.update);
    if (counts.delete > 0) observer.change("delete", counts.delete);
    if (counts.truncate > 0) observer.change("truncate", counts.truncate);
    for (const type of conflicts) observer.conflict(type);
  }

  #changeSink({ doing, conflict }: StatementShape): ReplySink {
    if (conflict === undefined) return { doing, completed: () => {} };
    const { type, tag: told, unless = false } = conflict;
    return {
      doing,
      completed: (tag) => {
        if ((tag === told) !== unless) this.#answering?.conflicts.push(type);
      },
    };
  }

  #note({ code, message }: { code?: string; message?: string }): void {
    if (code === CONFLICT_SQLSTATE) this.#answering?.conflicts.push(message as ConflictType);
  }

  #noteWal(insertLsn: Lsn, flushLsn: Lsn): void {
    this.#durability.note(this.#committedLsn, { insertLsn, flushLsn });
  }

  /** Asks again in a while if something applied is not on disk: an idle session asks nothing. */
  #poll(): void {
    if (this.#closed || this.#pollTimer !== undefined || !this.#durability.isWaiting) return;
    this.#pollTimer = setTimeout(() => {
      this.#pollTimer = undefined;
      if (this.#closed) return;
      this.pipeline.execute(WAL.name, this.#walSink);
      if (this.#open === undefined) this.pipeline.sync();
      else this.pipeline.flush();
    }, DURABILITY_POLL_MS);
  }

  #fail(error: unknown, sink?: ReplySink): void {
    this.close();
    const { origin } = this.#options;
    const commitLsn = this.#answering?.begin.commitLsn;
    this.#options.onFailure(applyError(error, { origin, commitLsn, doing: sink?.doing }));
  }
}

function int64(value: bigint): Uint8Array {
  const bytes = Buffer.allocUnsafe(8);
  bytes.writeBigUInt64BE(BigInt.asUintN(64, value));
  return bytes;
}
