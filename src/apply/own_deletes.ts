/**
 * What this node's own clients delete, noted for whatever comes later and is older: tombstones and truncations.
 *
 * They are read from the slots as they are sent on, and are on disk before that. A row that came from elsewhere
 * meanwhile, too old for the delete but before the delete was noted, is removed again.
 */
import { Buffer } from "node:buffer";
import { toMmliteError } from "../errors.ts";
import { log } from "../log.ts";
import { formatLsn, type Lsn, ZERO_LSN } from "../lsn.ts";
import type { TablePolicy } from "../conflict_policy.ts";
import { closeClient } from "../pg/client.ts";
import { type Query, queryWith, type Row } from "../pg/query.ts";
import { formatTimestamp } from "../pg/timestamp.ts";
import { decodeMessage } from "../pgoutput/decode.ts";
import type { Begin, Delete, Tuple, Update } from "../pgoutput/message.ts";
import type { MessageBatch } from "../pgoutput/message_batch.ts";
import { decodeBegin, decodeCommit, MESSAGE_TYPE, messageType } from "../pgoutput/peek.ts";
import { TupleScan } from "../pgoutput/tuple_scan.ts";
import { KeyHash } from "./key_hash.ts";
import { removeDeletedStatement, removeTruncatedStatement } from "./own_statements.ts";
import { Relations } from "./relations.ts";
import { Removals } from "./removals.ts";
import { type ApplyObserver, Report } from "./report.ts";
import { decodeChange } from "./row_change.ts";
import { RowTimes } from "./row_times.ts";
import type { ApplySession } from "./session.ts";
import type { TargetRelation } from "./target_relation.ts";
import { keyValues } from "./tuples.ts";

/** What {@link OwnDeletes} needs. */
export interface OwnDeletesOptions {
  /** This node's name. */
  readonly self: string;
  /** Reads the catalog and notes; what it has written is on disk. */
  readonly query: Query;
  readonly serverVersion: number;
  /** Whether this server keeps versions of rows; without them nothing is noted. */
  readonly versioned: boolean;
  readonly policyOf: (schema: string, name: string) => TablePolicy;
  /** Opens a session with this node's own replication origin: what it deletes is not sent on. */
  readonly openSession: () => Promise<ApplySession>;
  /** Whether rows may have been written by applying since a time, milliseconds since 1970-01-01 UTC. */
  readonly mayHaveApplied: (time: number) => boolean;
  /** Is told of the conflicts that are settled here. */
  readonly observer: Pick<ApplyObserver, "conflict">;
}

/** Rows and tables that some messages delete; a row is a place in its message until its key is asked for. */
class Deleted {
  readonly times = new RowTimes();
  /** Of each transaction, when it was committed. */
  readonly timestamps: bigint[] = [];
  readonly targets: TargetRelation[] = [];
  readonly messages: Uint8Array[] = [];
  readonly starts: number[] = [];
  readonly ends: number[] = [];
  readonly highs: number[] = [];
  readonly lows: number[] = [];
  /** Of each row, the number of its transaction. */
  readonly transactions: number[] = [];
  readonly tables: { readonly target: TargetRelation; readonly at: bigint }[] = [];
  endLsn: Lsn = ZERO_LSN;

  get isEmpty(): boolean {
    return this.targets.length === 0 && this.tables.length === 0;
  }

  /** The earliest and the latest time. */
  get span(): { first: bigint; last: bigint } {
    const all = [...this.timestamps, ...this.tables.map(({ at }) => at)];
    return { first: all.reduce((a, b) => a < b ? a : b), last: all.reduce((a, b) => a > b ? a : b) };
  }

  add(target: TargetRelation, { high, low }: KeyHash, at: bigint): number {
    if (this.timestamps.at(-1) !== at) this.timestamps.push(at);
    const transaction = this.timestamps.length - 1;
    this.times.add(high, low, transaction);
    this.highs.push(high);
    this.lows.push(low);
    this.transactions.push(transaction);
    return this.targets.push(target) - 1;
  }

  /** The text of a row's key. */
  key(row: number): string[] {
    const message = this.messages[row].subarray(this.starts[row], this.ends[row]);
    const change = decodeChange(this.targets[row], message) as Delete;
    const columns = this.targets[row].map.key!.columns.map(({ index }) => index);
    return keyValues((change.oldTuple ?? change.oldKey)!, columns).map((one) =>
      Buffer.from(one).toString("utf8")
    );
  }
}

interface Place {
  readonly start: number;
  readonly end: number;
}

/** What one reader has noted: all transactions that begin to commit from `from` on and end up to `to`. */
interface NotedRange {
  readonly from: Lsn;
  to: Lsn;
}

/** How long a second look waits for whoever holds a row: there is another time. */
const LOOK_LOCK_TIMEOUT = "1s";
/** As many readers are remembered. */
const MAX_RANGES = 64;

/** Of one node, for all its slots; each has a {@link DeletesReader}. */
export class OwnDeletes {
  readonly options: OwnDeletesOptions;
  readonly #ranges: NotedRange[] = [];
  #turn: Promise<unknown> = Promise.resolve();
  readonly #watches = new Set<Removals>();
  #session: ApplySession | undefined;

  constructor(options: OwnDeletesOptions) {
    this.options = options;
  }

  /** Whether another slot's reader has noted that transaction. */
  isNoted({ commitLsn }: Begin): boolean {
    return this.#ranges.some(({ from, to }) => from <= commitLsn && commitLsn < to);
  }

  /** What a reader notes that begins with this transaction. */
  beginRange({ commitLsn }: Begin): NotedRange {
    const range = { from: commitLsn, to: commitLsn };
    this.#ranges.push(range);
    if (this.#ranges.length > MAX_RANGES) this.#ranges.shift();
    return range;
  }

  /** Notes what was deleted; resolves once it is on disk and nothing older is left. */
  note(deleted: Deleted): Promise<void> {
    return this.#inTurn(() => this.#note(deleted));
  }

  /** Settles what could not be seen when it was applied; how much is to be looked at once more. */
  lookAgain(): Promise<number> {
    return this.#inTurn(async () => {
      let left = 0;
      await this.#transact(async (query) => {
        await query(`SELECT pg_catalog.set_config('lock_timeout', '${LOOK_LOCK_TIMEOUT}', true)`);
        const [row] = await query("SELECT mmlite.look_again()::text AS left");
        left = Number(row.left);
        await query(
          "SELECT pg_catalog.pg_replication_origin_xact_setup(pg_current_wal_insert_lsn(), clock_timestamp())",
        );
      });
      return left;
    });
  }

  /** Watches what is removed from the moment on in which this resolves, until it is stopped. */
  async watchRemovals(): Promise<Removals> {
    const removals = new Removals(this.options.self, (ended) => void this.#watches.delete(ended));
    // What is under way may be told to nobody any more.
    await this.#inTurn(() => Promise.resolve(this.#watches.add(removals)));
    return removals;
  }

  /** Lets go of the database. */
  async close(): Promise<void> {
    const session = this.#session;
    this.#session = undefined;
    if (session !== undefined) await closeClient(session.client);
  }

  async #note(deleted: Deleted): Promise<void> {
    const { query, self, mayHaveApplied } = this.options;
    const { times, timestamps, tables } = deleted;
    const { first, last } = deleted.span;
    await query("SELECT mmlite.note_deleted($1, $2::timestamptz, decode($3, 'hex'), $4, $5, $6)", [
      ...[self, formatTimestamp(last), Buffer.from(times.bytes(timestamps)).toString("hex")],
      arrayText(tables.map(({ target }) => target.map.schema)),
      arrayText(tables.map(({ target }) => target.map.name)),
      arrayText(tables.map(({ at }) => formatTimestamp(at))),
    ]);
    if (mayHaveApplied(unixMs(first))) await this.#remove(deleted);
  }

  /** Removes what was written on top of the deletes though it is older. */
  async #remove(deleted: Deleted): Promise<void> {
    const { self } = this.options;
    const { highs, lows, timestamps, transactions } = deleted;
    // Before the commit, whose answer may be lost: what is told and was not removed does no harm.
    const tell = (target: TargetRelation, rows: readonly Row[]) =>
      this.#watches.forEach((watch) => watch.add(target, rows));
    await this.#transact(async (query) => {
      for (const [target, rows] of byTarget(deleted)) {
        const keys = rows.map((row) => deleted.key(row));
        const removed = await query(removeDeletedStatement(target.map), [
          self,
          rows.map((row) => String((BigInt(highs[row]) << 32n) | BigInt(lows[row] >>> 0))),
          rows.map((row) => formatTimestamp(timestamps[transactions[row]])),
          ...target.map.key!.columns.map((_, i) => keys.map((key) => key[i])),
        ]);
        tell(target, removed);
      }
      for (const { target, at } of deleted.tables) {
        tell(target, await query(removeTruncatedStatement(target.map), [self, formatTimestamp(at)]));
      }
      await query("SELECT pg_replication_origin_xact_setup($1::pg_lsn, $2::timestamptz)", [
        formatLsn(deleted.endLsn),
        formatTimestamp(deleted.span.last),
      ]);
    });
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work, work);
    this.#turn = turn.catch(() => {});
    return turn;
  }

  /** One transaction of which nothing is sent on. */
  async #transact(work: (query: Query) => Promise<void>): Promise<void> {
    this.#session ??= await this.options.openSession();
    const { client } = this.#session;
    const report = new Report();
    client.on("notice", (notice) => report.note(notice));
    const query = queryWith(client);
    try {
      await query("BEGIN");
      await work(query);
      await query("COMMIT");
      report.tellConflicts(this.options.observer);
    } finally {
      await this.close();
    }
  }
}

/** Reads the messages of one slot, in their order. */
export class DeletesReader {
  readonly #deletes: OwnDeletes;
  readonly #relations: Relations;
  readonly #hash = new KeyHash();
  readonly #scan = new TupleScan();
  readonly #logger = log("conflict");
  #begin: Begin | undefined;
  #range: NotedRange | undefined;

  constructor(deletes: OwnDeletes) {
    this.#deletes = deletes;
    const { serverVersion, versioned, policyOf } = deletes.options;
    this.#relations = new Relations({
      serverVersion,
      settlementOf: (schema, name) => ({ policy: policyOf(schema, name), versioned, isOwn: "false" }),
      forget: () => {},
    });
  }

  /** Resolves once what the messages delete is noted on disk. */
  async take(messages: MessageBatch): Promise<void> {
    if (!this.#deletes.options.versioned) return;
    const deleted = new Deleted();
    let passedLsn = ZERO_LSN;
    for (let i = 0; i < messages.length; i++) {
      const [bytes, start, end] = [messages.bytes(i), messages.start(i), messages.end(i)];
      switch (messageType(bytes, start, end)) {
        case MESSAGE_TYPE.begin:
          this.#begin = this.#beginning(decodeBegin(bytes, start, end));
          break;
        case MESSAGE_TYPE.commit:
          passedLsn = decodeCommit(bytes, start, end).endLsn;
          break;
        case MESSAGE_TYPE.relation: {
          const message = decodeMessage(bytes.subarray(start, end));
          if (message.kind === "relation") this.#relations.announce(message);
          break;
        }
        case MESSAGE_TYPE.update:
          // Without an old key or row the key is as it was.
          if (bytes[start + 5] !== NEW_TUPLE) await this.#update(deleted, bytes, { start, end });
          break;
        case MESSAGE_TYPE.delete: {
          const reading = this.#delete(deleted, bytes, { start, end });
          if (reading !== undefined) await reading;
          break;
        }
        case MESSAGE_TYPE.truncate:
          await this.#truncate(bytes.subarray(start, end), deleted);
      }
    }
    if (!deleted.isEmpty) {
      deleted.endLsn = passedLsn;
      await this.#deletes.note(deleted);
    }
    if (this.#range !== undefined && passedLsn > this.#range.to) this.#range.to = passedLsn;
  }

  /** Undefined for a transaction that another reader has noted. */
  #beginning(begin: Begin): Begin | undefined {
    const isNoted = this.#deletes.isNoted(begin);
    this.#range ??= this.#deletes.beginRange(begin);
    return isNoted ? undefined : begin;
  }

  /** Returns a promise only where the table has to be read. */
  #delete(deleted: Deleted, bytes: Uint8Array, place: Place): Promise<void> | undefined {
    if (this.#begin === undefined) return;
    const known = this.#relations.target(relationIdOf(bytes, place.start));
    if (known !== undefined) return this.#add(deleted, known, { bytes, ...place });
    return this.#target(relationIdOf(bytes, place.start)).then((target) => {
      if (target !== undefined) this.#add(deleted, target, { bytes, ...place });
    });
  }

  /** An update that may have moved a row to another key. */
  async #update(deleted: Deleted, bytes: Uint8Array, place: Place): Promise<void> {
    if (this.#begin === undefined) return;
    const target = await this.#target(relationIdOf(bytes, place.start));
    if (target?.map.key == null) return;
    const { oldTuple, oldKey, newTuple } = decodeChange(
      target,
      bytes.subarray(place.start, place.end),
    ) as Update;
    const columns = target.map.key.columns.map(({ index }) => index);
    if (!sameKey((oldTuple ?? oldKey)!, newTuple, columns)) this.#add(deleted, target, { bytes, ...place });
  }

  /** Takes the old row of a message, which comes first in it. */
  #add(
    deleted: Deleted,
    target: TargetRelation,
    { bytes, start, end }: Place & { bytes: Uint8Array },
  ): undefined {
    if (target.map.key === null) return;
    const scan = this.#scan;
    scan.scan(bytes, start + TUPLE_OFFSET, { start, end });
    const key = target.map.key.columns.map(({ index }) => index);
    if (key.some((index) => !(scan.lengths[index] >= 0))) return;
    this.#hash.ofRow(target, { bytes, scan, key });
    const row = deleted.add(target, this.#hash, this.#begin!.commitTimestamp);
    deleted.messages[row] = bytes;
    deleted.starts[row] = start;
    deleted.ends[row] = end;
  }

  async #truncate(bytes: Uint8Array, deleted: Deleted): Promise<void> {
    const message = decodeMessage(bytes);
    if (this.#begin === undefined || message.kind !== "truncate") return;
    for (const id of message.relationIds) {
      const target = await this.#target(id);
      if (target !== undefined) deleted.tables.push({ target, at: this.#begin.commitTimestamp });
    }
  }

  /** Undefined for a table that has changed so much that its rows cannot be told any more, or is gone. */
  async #target(relationId: number): Promise<TargetRelation | undefined> {
    try {
      return this.#relations.target(relationId) ??
        await this.#relations.resolve(relationId, this.#deletes.options.query);
    } catch (thrown) {
      const error = toMmliteError(thrown);
      if (error.kind !== "schema_mismatch") throw error;
      this.#logger.debug("Deletes are not noted: {error}", { error: error.message });
      return undefined;
    }
  }
}

const NEW_TUPLE = 0x4e; // N
/** Type, relation and marker of a row change. */
const TUPLE_OFFSET = 6;
const POSTGRES_EPOCH_MS = 946_684_800_000;

function unixMs(timestamp: bigint): number {
  return POSTGRES_EPOCH_MS + Number(timestamp / 1000n);
}

function sameKey(old: Tuple, tuple: Tuple, columns: readonly number[]): boolean {
  const [before, after] = [keyValues(old, columns), keyValues(tuple, columns, old)];
  return before.every((value, i) => Buffer.compare(value, after[i]) === 0);
}

/** An array of text as PostgreSQL reads it. */
function arrayText(values: readonly string[]): string {
  return `{${values.map((value) => `"${value.replaceAll(/["\\]/g, "\\$&")}"`).join(",")}}`;
}

function relationIdOf(bytes: Uint8Array, start: number): number {
  return ((bytes[start + 1] << 24) | (bytes[start + 2] << 16) | (bytes[start + 3] << 8) |
    bytes[start + 4]) >>> 0;
}

/** Rows (their number) by their table. */
function byTarget({ targets }: Deleted): Map<TargetRelation, number[]> {
  const groups = new Map<TargetRelation, number[]>();
  for (const [row, target] of targets.entries()) {
    const group = groups.get(target);
    if (group === undefined) groups.set(target, [row]);
    else group.push(row);
  }
  return groups;
}
