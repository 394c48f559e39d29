/**
 * The tables of what could not be applied: `mmlite.blocked`, the transaction that stands in the way of each origin,
 * and `mmlite.quarantine` with `mmlite.quarantine_change`, transactions that were set aside.
 */
import { Buffer } from "node:buffer";
import type { ErrorKind, MmliteError, TransactionPlace } from "../errors.ts";
import { formatLsn, type Lsn, parseLsn } from "../lsn.ts";
import type { Query, Row } from "./query.ts";

/** Bytes of messages that are read at a time, the last one on top. */
const PAGE_BYTES = 0x10_0000;
/** A longer message is read in slices of this many bytes: as text it could be longer than a string may be. */
const SLICE_BYTES = 0x200_0000;

/** The transaction of an origin that could not be applied, and is not behind its position yet. */
export interface BlockedTransaction {
  readonly origin: string;
  readonly commitLsn: Lsn;
  /** Null while its end has not come. */
  readonly endLsn: Lsn | null;
  /** Whether it is set aside when it comes again. */
  readonly skip: boolean;
}

/** What went wrong last with a transaction, and when. */
export interface KeptError {
  readonly kind: ErrorKind;
  readonly message: string;
  readonly hint: string;
  /** RFC 3339 UTC with microseconds. */
  readonly at: string;
}

/** A transaction in quarantine, without its changes. */
export interface QuarantinedTransaction {
  /** Digits. */
  readonly id: string;
  /** The node that it was committed on. */
  readonly origin: string;
  /** Positions in the origin's WAL. */
  readonly commitLsn: Lsn;
  readonly endLsn: Lsn;
  /** RFC 3339 UTC with microseconds. */
  readonly commitTimestamp: string;
  /** The same as pgoutput has it, microseconds since 2000-01-01 UTC. */
  readonly commitMicroseconds: bigint;
  readonly changes: number;
  readonly error: KeptError;
  readonly quarantinedAt: string;
}

/** What is kept of a transaction: a change of rows, or what announces the relation of changes behind it. */
export type KeptKind = "relation" | "insert" | "update" | "delete" | "truncate";

/** One message of a transaction. */
export interface KeptMessage {
  /** From 1 on, without a gap. */
  readonly number: number;
  readonly kind: KeptKind;
  /** `schema.name`, or a list of them. */
  readonly tableName: string;
  /** As pgoutput sent it. */
  readonly message: Uint8Array;
}

const BLOCKED_COLUMNS = "b.origin, b.commit_lsn::text, b.end_lsn::text, b.skip::text";
const COLUMNS = `id::text, origin, commit_lsn::text, end_lsn::text, changes::text, error_kind, error_message,
  error_hint, ${utc("commit_timestamp")}, ${utc("failed_at")}, ${utc("quarantined_at")},
  round(extract(epoch FROM commit_timestamp - timestamptz '2000-01-01 00:00:00Z')::numeric * 1000000)::text
    AS commit_microseconds`;

/** Every origin's transaction that stands in the way. */
export async function readBlocked(query: Query): Promise<BlockedTransaction[]> {
  const rows = await query(
    `SELECT ${BLOCKED_COLUMNS} FROM mmlite.blocked b JOIN mmlite.progress p USING (origin)
      WHERE b.commit_lsn >= p.lsn`,
  );
  return rows.map(toBlocked);
}

/** The transaction of an origin that is to be set aside when it comes again. */
export async function readSkip(query: Query, origin: string): Promise<Lsn | undefined> {
  const [row] = await query("SELECT commit_lsn::text FROM mmlite.blocked WHERE origin = $1 AND skip", [
    origin,
  ]);
  return row === undefined ? undefined : parseLsn(row.commit_lsn!);
}

/** Records which transaction stands in the way and why; what was asked about the same one before stays. */
export async function noteBlocked(
  query: Query,
  { origin, transaction, error, skip }: {
    origin: string;
    transaction: TransactionPlace;
    error: MmliteError;
    skip: boolean;
  },
): Promise<{ readonly skip: boolean }> {
  const { commitLsn, endLsn } = transaction;
  const [row] = await query(
    `INSERT INTO mmlite.blocked AS b
         (origin, commit_lsn, end_lsn, error_kind, error_message, error_hint, skip)
       VALUES ($1, $2::pg_lsn, $3::pg_lsn, $4, $5, $6, $7::boolean)
     ON CONFLICT (origin) DO UPDATE SET commit_lsn = excluded.commit_lsn,
       end_lsn = CASE WHEN b.commit_lsn = excluded.commit_lsn THEN coalesce(excluded.end_lsn, b.end_lsn)
         ELSE excluded.end_lsn END,
       error_kind = excluded.error_kind, error_message = excluded.error_message, error_hint = excluded.error_hint,
       blocked_at = excluded.blocked_at,
       skip = excluded.skip OR (b.skip AND b.commit_lsn = excluded.commit_lsn)
     RETURNING skip::text`,
    [
      origin,
      formatLsn(commitLsn),
      endLsn === undefined ? null : formatLsn(endLsn),
      error.kind,
      error.message,
      error.hint,
      String(skip),
    ],
  );
  return { skip: row!.skip === "true" };
}

/** A transaction stands in the way no more for what it did before: what it fails of now passes by itself. */
export async function forgetBlocked(query: Query, origin: string): Promise<void> {
  await query("DELETE FROM mmlite.blocked WHERE origin = $1 AND NOT skip", [origin]);
}

/** Forgets whatever was asked about an origin, when its node was removed. */
export async function forgetSkip(query: Query, origin: string): Promise<void> {
  await query("DELETE FROM mmlite.blocked WHERE origin = $1", [origin]);
}

/** Has the transaction set aside that ends, or whose commit begins, at `lsn`, if it stands in the way. */
export async function requestSkip(query: Query, origin: string, lsn: Lsn): Promise<boolean> {
  const rows = await query(
    `UPDATE mmlite.blocked b SET skip = true FROM mmlite.progress p
      WHERE b.origin = $1 AND (b.commit_lsn = $2::pg_lsn OR b.end_lsn = $2::pg_lsn)
        AND p.origin = b.origin AND b.commit_lsn >= p.lsn
      RETURNING b.origin`,
    [origin, formatLsn(lsn)],
  );
  return rows.length > 0;
}

/** How many transactions are in quarantine. */
export async function countQuarantined(query: Query): Promise<number> {
  const [row] = await query("SELECT count(*)::text AS count FROM mmlite.quarantine");
  return Number(row!.count);
}

/** Transactions in quarantine after the one with id `after`, at most `limit`, by id. */
export async function listQuarantined(
  query: Query,
  { after, limit }: { after: string; limit: number },
): Promise<QuarantinedTransaction[]> {
  const rows = await query(
    `SELECT ${COLUMNS} FROM mmlite.quarantine q WHERE id > $1::bigint ORDER BY q.id LIMIT $2::integer`,
    [after, String(limit)],
  );
  return rows.map(toQuarantined);
}

/** One of them, or undefined if there is none with that id. */
export async function readQuarantined(query: Query, id: string): Promise<QuarantinedTransaction | undefined> {
  const [row] = await query(`SELECT ${COLUMNS} FROM mmlite.quarantine WHERE id = $1::bigint`, [id]);
  return row === undefined ? undefined : toQuarantined(row);
}

/** Messages of a transaction after the one with number `after`: at most `limit`, and about {@link PAGE_BYTES}. */
export async function readKeptMessages(
  query: Query,
  { id, after, limit }: { id: string; after: number; limit: number },
): Promise<KeptMessage[]> {
  const rows = await query(
    `SELECT number::text, kind, table_name, length(message)::text AS size,
            CASE WHEN length(message) <= ${SLICE_BYTES} THEN encode(message, 'hex') END AS message
       FROM (SELECT *, sum(length(message)) OVER (ORDER BY number) - length(message) AS bytes_before
               FROM (SELECT * FROM mmlite.quarantine_change WHERE quarantine_id = $1::bigint AND number > $2::bigint
                      ORDER BY number LIMIT $3::integer) page) c
      WHERE bytes_before < ${PAGE_BYTES} ORDER BY c.number`,
    [id, String(after), String(limit)],
  );
  const messages: KeptMessage[] = [];
  for (const { number, kind, table_name: tableName, size, message } of rows) {
    const bytes = message == null
      ? await readSlices(query, { id, number: number!, size: Number(size) })
      : new Uint8Array(Buffer.from(message, "hex"));
    messages.push({ number: Number(number), kind: kind as KeptKind, tableName: tableName!, message: bytes });
  }
  return messages;
}

async function readSlices(
  query: Query,
  { id, number, size }: { id: string; number: string; size: number },
): Promise<Uint8Array> {
  const message = new Uint8Array(size);
  for (let at = 0; at < size; at += SLICE_BYTES) {
    const [row] = await query(
      `SELECT encode(substring(message FROM $3::integer FOR ${SLICE_BYTES}), 'hex') AS slice
         FROM mmlite.quarantine_change WHERE quarantine_id = $1::bigint AND number = $2::bigint`,
      [id, number, String(at + 1)],
    );
    message.set(Buffer.from(row!.slice!, "hex"), at);
  }
  return message;
}

/** The message that announced a relation before the change with that number. */
export async function readKeptRelation(
  query: Query,
  { id, relationId, before }: { id: string; relationId: number; before: number },
): Promise<Uint8Array | undefined> {
  const hex = relationId.toString(16).padStart(8, "0");
  const [row] = await query(
    `SELECT encode(message, 'hex') AS message FROM mmlite.quarantine_change
      WHERE quarantine_id = $1::bigint AND number < $2::bigint AND kind = 'relation'
        AND substring(message FROM 2 FOR 4) = decode($3, 'hex')
      ORDER BY number DESC LIMIT 1`,
    [id, String(before), hex],
  );
  return row === undefined ? undefined : new Uint8Array(Buffer.from(row.message!, "hex"));
}

/** Locks a transaction until the end of the local one; false if it is not there, or no more. */
export async function lockQuarantined(query: Query, id: string): Promise<boolean> {
  return (await query("SELECT id FROM mmlite.quarantine WHERE id = $1::bigint FOR UPDATE", [id])).length > 0;
}

/** Deletes a transaction, in two statements: in an apply session foreign keys do nothing. */
export async function deleteQuarantined(query: Query, id: string): Promise<void> {
  await query("DELETE FROM mmlite.quarantine_change WHERE quarantine_id = $1::bigint", [id]);
  await query("DELETE FROM mmlite.quarantine WHERE id = $1::bigint", [id]);
}

/** Deletes a transaction at once and whole; false if there is none with that id. */
export async function discardQuarantined(query: Query, id: string): Promise<boolean> {
  const rows = await query(
    `WITH changes AS (DELETE FROM mmlite.quarantine_change WHERE quarantine_id = $1::bigint)
     DELETE FROM mmlite.quarantine WHERE id = $1::bigint RETURNING id`,
    [id],
  );
  return rows.length > 0;
}

/** Replaces the error of a transaction by the one that it has met now. */
export async function setQuarantineError(query: Query, id: string, error: MmliteError): Promise<void> {
  await query(
    `UPDATE mmlite.quarantine SET error_kind = $2, error_message = $3, error_hint = $4, failed_at = now()
      WHERE id = $1::bigint`,
    [id, error.kind, error.message, error.hint],
  );
}

function utc(column: string): string {
  return `to_char(${column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS ${column}`;
}

function toBlocked(row: Row): BlockedTransaction {
  return {
    origin: row.origin!,
    commitLsn: parseLsn(row.commit_lsn!),
    endLsn: row.end_lsn == null ? null : parseLsn(row.end_lsn),
    skip: row.skip === "true",
  };
}

function toQuarantined(row: Row): QuarantinedTransaction {
  return {
    id: row.id!,
    origin: row.origin!,
    commitLsn: parseLsn(row.commit_lsn!),
    endLsn: parseLsn(row.end_lsn!),
    commitTimestamp: row.commit_timestamp!,
    commitMicroseconds: BigInt(row.commit_microseconds!),
    changes: Number(row.changes),
    error: {
      kind: row.error_kind as ErrorKind,
      message: row.error_message!,
      hint: row.error_hint!,
      at: row.failed_at!,
    },
    quarantinedAt: row.quarantined_at!,
  };
}
