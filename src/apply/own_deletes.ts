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
import { type Query, queryWith } from "../pg/query.ts";
import { formatTimestamp } from "../pg/timestamp.ts";
import { decodeMessage } from "../pgoutput/decode.ts";
import type { Begin, Delete, Tuple, Update } from "../pgoutput/message.ts";
import type { MessageBatch } from "../pgoutput/message_batch.ts";
import { decodeBegin, decodeCommit, MESSAGE_TYPE, messageType } from "../pgoutput/peek.ts";
import { keyValues, type TargetRelation } from "./change_writer.ts";
import { KeyHash } from "./key_hash.ts";
import { removeDeletedStatement, removeTruncatedStatement } from "./own_statements.ts";
import { Relations } from "./relations.ts";
import { RowTimes } from "./row_times.ts";
import type { ApplySession } from "./session.ts";

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
  /**
   * Resolves once everything that is being applied at the moment is committed or undone, with whether rows may have
   * been written since a time, milliseconds since 1970-01-01 UTC.
   */
  readonly appliedSince: (time: number) => Promise<boolean>;
}

/** A row that is gone from where it was. */
interface GoneRow {
  readonly target: TargetRelation;
  readonly key: readonly string[];
  readonly high: number;
  readonly low: number;
  readonly at: bigint;
}

/** A table that was truncated. */
interface TruncatedTable {
  readonly target: TargetRelation;
  readonly at: bigint;
}

/** What was deleted in some messages. */
class Deleted {
  readonly rows: GoneRow[] = [];
  readonly tables: TruncatedTable[] = [];
  endLsn: Lsn = ZERO_LSN;

  get isEmpty(): boolean {
    return this.rows.length === 0 && this.tables.length === 0;
  }
}

/** Of one node, for all its slots; each has a {@link DeletesReader}. */
export class OwnDeletes {
  readonly options: OwnDeletesOptions;
  /** Transactions that end up to here are noted. */
  #notedLsn: Lsn = ZERO_LSN;
  #turn: Promise<unknown> = Promise.resolve();
  #session: ApplySession | undefined;

  constructor(options: OwnDeletesOptions) {
    this.options = options;
  }

  /** Whether another slot's reader has noted that transaction. */
  isNoted({ commitLsn }: Begin): boolean {
    return commitLsn < this.#notedLsn;
  }

  /** Notes what was deleted; resolves once it is on disk and nothing older is left. */
  note(deleted: Deleted): Promise<void> {
    const work = () => this.#note(deleted);
    const turn = this.#turn.then(work, work);
    this.#turn = turn.catch(() => {});
    return turn;
  }

  /** Everything that ends up to here is noted. */
  passed(endLsn: Lsn): void {
    if (endLsn > this.#notedLsn) this.#notedLsn = endLsn;
  }

  /** Lets go of the database. */
  async close(): Promise<void> {
    const session = this.#session;
    this.#session = undefined;
    if (session !== undefined) await closeClient(session.client);
  }

  async #note({ rows, tables, endLsn }: Deleted): Promise<void> {
    const { query, self, appliedSince } = this.options;
    if (rows.length > 0) {
      const [times, timestamps] = [new RowTimes(), [...new Set(rows.map(({ at }) => at))]];
      const numbers = new Map(timestamps.map((at, i) => [at, i]));
      for (const { high, low, at } of rows) times.add(high, low, numbers.get(at)!);
      const last = timestamps.reduce((a, b) => a > b ? a : b);
      await query(
        "INSERT INTO mmlite.tombstone (origin, last_timestamp, entries) VALUES ($1, $2::timestamptz, decode($3, 'hex'))",
        [self, formatTimestamp(last), Buffer.from(times.bytes(timestamps)).toString("hex")],
      );
    }
    for (const { target: { map }, at } of tables) {
      await query(
        `INSERT INTO mmlite.truncation AS t (table_schema, table_name, origin, commit_timestamp)
          VALUES ($1, $2, $3, $4::timestamptz) ON CONFLICT (table_schema, table_name, origin)
          DO UPDATE SET commit_timestamp = greatest(t.commit_timestamp, excluded.commit_timestamp)`,
        [map.schema, map.name, self, formatTimestamp(at)],
      );
    }
    const earliest = [...rows, ...tables].reduce((a, { at }) => at < a ? at : a, rows[0]?.at ?? tables[0].at);
    if (await appliedSince(unixMs(earliest))) await this.#remove(rows, tables, endLsn);
  }

  /** Removes what was written on top of the deletes though it is older. */
  async #remove(
    rows: readonly GoneRow[],
    tables: readonly TruncatedTable[],
    endLsn: Lsn,
  ): Promise<void> {
    const { self, openSession } = this.options;
    this.#session ??= await openSession();
    const query = queryWith(this.#session.client);
    try {
      await query("BEGIN");
      for (const [target, gone] of byTarget(rows)) {
        await query(removeDeletedStatement(target.map), [
          self,
          gone.map(({ high, low }) => String((BigInt(high) << 32n) | BigInt(low >>> 0))),
          gone.map(({ at }) => formatTimestamp(at)),
          ...target.map.key!.columns.map((_, i) => gone.map(({ key }) => key[i])),
        ]);
      }
      for (const { target, at } of tables) {
        await query(removeTruncatedStatement(target.map), [self, formatTimestamp(at)]);
      }
      const at = [...rows, ...tables].reduce((a, { at }) => at > a ? at : a, 0n);
      await query("SELECT pg_replication_origin_xact_setup($1::pg_lsn, $2::timestamptz)", [
        formatLsn(endLsn),
        formatTimestamp(at),
      ]);
      await query("COMMIT");
    } catch (thrown) {
      await this.close();
      throw thrown;
    }
  }
}

/** Reads the messages of one slot, in their order. */
export class DeletesReader {
  readonly #deletes: OwnDeletes;
  readonly #relations: Relations;
  readonly #hash = new KeyHash();
  readonly #logger = log("conflict");
  #begin: Begin | undefined;

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
          this.#begin = decodeBegin(bytes, start, end);
          if (this.#deletes.isNoted(this.#begin)) this.#begin = undefined;
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
          if (bytes[start + 5] !== NEW_TUPLE) await this.#row(bytes.subarray(start, end), deleted);
          break;
        case MESSAGE_TYPE.delete:
          await this.#row(bytes.subarray(start, end), deleted);
          break;
        case MESSAGE_TYPE.truncate:
          await this.#truncate(bytes.subarray(start, end), deleted);
      }
    }
    if (!deleted.isEmpty) {
      deleted.endLsn = passedLsn;
      await this.#deletes.note(deleted);
    }
    this.#deletes.passed(passedLsn);
  }

  async #row(bytes: Uint8Array, deleted: Deleted): Promise<void> {
    if (this.#begin === undefined) return;
    const change = decodeMessage(bytes) as Update | Delete;
    const target = await this.#target(change.relationId);
    const old = change.oldTuple ?? change.oldKey;
    if (target?.map.key == null || old === undefined) return;
    const columns = target.map.key.columns.map(({ index }) => index);
    if (change.kind === "update" && sameKey(old, change.newTuple, columns)) return;
    const key = keyValues(old, columns);
    this.#hash.ofValues(target.hash, key);
    const { high, low } = this.#hash;
    const at = this.#begin.commitTimestamp;
    deleted.rows.push({ target, key: key.map((one) => Buffer.from(one).toString("utf8")), high, low, at });
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
const POSTGRES_EPOCH_MS = 946_684_800_000;

function unixMs(timestamp: bigint): number {
  return POSTGRES_EPOCH_MS + Number(timestamp / 1000n);
}

function sameKey(old: Tuple, tuple: Tuple, columns: readonly number[]): boolean {
  const [before, after] = [keyValues(old, columns), keyValues(tuple, columns, old)];
  return before.every((value, i) => Buffer.compare(value, after[i]) === 0);
}

function byTarget(rows: readonly GoneRow[]): Map<TargetRelation, GoneRow[]> {
  const groups = new Map<TargetRelation, GoneRow[]>();
  for (const row of rows) {
    const group = groups.get(row.target);
    if (group === undefined) groups.set(row.target, [row]);
    else group.push(row);
  }
  return groups;
}
