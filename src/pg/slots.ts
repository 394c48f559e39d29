/**
 * Replication slots of this database: created, dropped, looked at.
 *
 * Columns: https://www.postgresql.org/docs/current/view-pg-replication-slots.html. Those that a major version
 * lacks read as null.
 */
// @ts-types="@types/pg"
import pg from "pg";
import { delay } from "../backoff.ts";
import { MmliteError } from "../errors.ts";
import { formatLsn, type Lsn, parseLsn } from "../lsn.ts";
import { closeClient, destroyClient, openClient } from "./client.ts";
import { mapPostgresError, sqlState } from "./errors.ts";
import { type Query, queryWith, type Row } from "./query.ts";
import type { PostgresTarget } from "./target.ts";

/** SQLSTATE of a command that was cancelled. */
const QUERY_CANCELED = "57014";
/** The output plugin of every slot of ours. */
const PLUGIN = "pgoutput";
/** How long a terminated walsender may take to let go of its slot, milliseconds. */
const RELEASE_TIMEOUT_MS = 10_000;
const RELEASE_POLL_MS = 50;

/** What the names of our slots begin with. */
export const SLOT_PREFIX = "mmlite_";

/** The slot that feeds a peer. Slot names take no `-`, so names of nodes differ in more than `-` and `_`. */
export function slotName(peer: string): string {
  return SLOT_PREFIX + peer.replaceAll("-", "_");
}

/** A slot as the server shows it. */
export interface SlotState {
  readonly name: string;
  /** Process that reads it now, or null. */
  readonly activePid: number | null;
  /** Null while the slot is being created, or once it is lost. */
  readonly confirmedFlushLsn: Lsn | null;
  /** The oldest WAL that it keeps; null once it is lost. */
  readonly restartLsn: Lsn | null;
  /** WAL that it keeps from being removed, bytes. */
  readonly retainedBytes: bigint;
  /** `reserved`, `extended`, `unreserved` or `lost`; null below 13. */
  readonly walStatus: string | null;
  /** Bytes that may still be written before it can be lost; null without a limit, and below 13. */
  readonly safeWalSizeBytes: bigint | null;
  /** Its WAL is gone, for good. */
  readonly lost: boolean;
}

const SLOTS =
  `SELECT slot_name, plugin, database, active_pid::text, confirmed_flush_lsn::text, restart_lsn::text,
    COALESCE(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint::text AS retained,
    to_jsonb(s) ->> 'wal_status' AS wal_status, to_jsonb(s) ->> 'safe_wal_size' AS safe_wal_size,
    (database = current_database())::text AS here
  FROM pg_replication_slots s`;

/** What {@link createSlot} makes, and where. */
export interface NewSlot {
  readonly target: PostgresTarget;
  readonly name: string;
  /** How long it may wait for transactions that run, milliseconds; for ever where left out. */
  readonly timeoutMs?: number;
}

/**
 * Creates the slot and returns its consistent point. Its publication must exist already: up to 17 a change decoded
 * before the publication existed is an error for good. Waits for transactions that are running; `query` is of the same
 * database.
 *
 * A slot of ours that is there and that nobody reads is made anew: it is left from a former life of this node, and
 * what it held back is in the tables already. Throws `transient` if it is in use or being created, or where
 * transactions did not end in time, `conflict` if the name is taken by a slot of another kind.
 */
export async function createSlot(query: Query, { target, name, timeoutMs }: NewSlot): Promise<Lsn> {
  const [row] = await query(`${SLOTS} WHERE slot_name = $1`, [name]);
  if (row !== undefined) requireOurs(row);
  try {
    if (row !== undefined) await query("SELECT pg_drop_replication_slot($1)", [name]);
    return await makeSlot(query, { target, name, timeoutMs });
  } catch (error) {
    if (timeoutMs !== undefined && sqlState(error) === QUERY_CANCELED) throw tooLong(name, timeoutMs);
    throw mapPostgresError(error, `create replication slot "${name}"`);
  }
}

/**
 * By the replication protocol, and with a snapshot, which nobody uses: that alone keeps a slot from beginning with what
 * another slot's reader has found consistent, in the middle of transactions that run. The SQL function did so 12 times
 * of 20 on PostgreSQL 10 and 15 of 20 on 11 beside a slot that was read, and half of a transaction came from it; on 12,
 * 13 and 18 it did not (PostgreSQL's "Fix possibility of logical decoding partial transaction changes", July 2024).
 */
async function makeSlot(query: Query, { target, name, timeoutMs }: NewSlot): Promise<Lsn> {
  const walsender = await openClient(target, { applicationName: "mmlite slot", replication: true });
  let timer: ReturnType<typeof setTimeout> | undefined;
  try {
    const run = queryWith(walsender);
    const [{ pid }] = await run("SELECT pg_backend_pid()::text AS pid");
    // No statement_timeout ends a command of this protocol.
    const cancel = () =>
      void query("SELECT pg_cancel_backend($1::int)", [pid]).catch(() => destroyClient(walsender));
    if (timeoutMs !== undefined) timer = setTimeout(cancel, timeoutMs);
    const [made] = await run(
      `CREATE_REPLICATION_SLOT ${pg.escapeIdentifier(name)} LOGICAL ${PLUGIN} EXPORT_SNAPSHOT`,
    );
    return parseLsn(made!.consistent_point!);
  } finally {
    clearTimeout(timer);
    await closeClient(walsender);
  }
}

function tooLong(name: string, timeoutMs: number): MmliteError {
  return new MmliteError(
    "transient",
    `Cannot create replication slot "${name}": running transactions did not end within ${timeoutMs / 1000} s`,
    { hint: "End the oldest one (pg_stat_activity shows them by xact_start), then try again" },
  );
}

function requireOurs(row: Row): void {
  const slot = toSlotState(row);
  if (row.plugin === PLUGIN && row.here === "true") {
    if (isBeingCreated(slot)) throw beingCreated(slot);
    return;
  }
  const owner = row.plugin === null
    ? "is a physical one"
    : `is of ${row.plugin} on database "${row.database}"`;
  throw new MmliteError(
    "conflict",
    `Cannot create replication slot "${slot.name}": the one that is there ${owner}`,
    { hint: `Drop it with SELECT pg_drop_replication_slot('${slot.name}') if nothing uses it` },
  );
}

/** The slot as it is, or undefined if there is none of that name. */
export async function readSlot(query: Query, name: string): Promise<SlotState | undefined> {
  const [row] = await query(`${SLOTS} WHERE slot_name = $1`, [name]);
  return row === undefined ? undefined : toSlotState(row);
}

/**
 * The slot's confirmed position; throws `slot_lost` if there is no such slot or its WAL is gone, `transient` while
 * it is being created.
 */
export async function requireSlot(query: Query, name: string): Promise<Lsn> {
  const [row] = await query(`${SLOTS} WHERE slot_name = $1`, [name]);
  if (row !== undefined) return usableSlot(toSlotState(row));
  throw new MmliteError("slot_lost", `Cannot read replication slot "${name}": it does not exist`);
}

function usableSlot(slot: SlotState): Lsn {
  if (!slot.lost && slot.confirmedFlushLsn !== null) return slot.confirmedFlushLsn;
  if (isBeingCreated(slot)) throw beingCreated(slot);
  const at = slot.confirmedFlushLsn === null ? "" : ` after ${formatLsn(slot.confirmedFlushLsn)}`;
  throw new MmliteError(
    "slot_lost",
    `Cannot read replication slot "${slot.name}": PostgreSQL removed the WAL${at} that it needs`,
  );
}

function isBeingCreated({ confirmedFlushLsn, activePid }: SlotState): boolean {
  return confirmedFlushLsn === null && activePid !== null;
}

function beingCreated({ name, activePid }: SlotState): MmliteError {
  return new MmliteError(
    "transient",
    `Cannot read replication slot "${name}": process ${activePid} is creating it`,
    { hint: "It waits for running transactions to end; pg_stat_activity shows them by xact_start" },
  );
}

/** The slots of this database whose names begin with `prefix`, by name. */
export async function readSlots(query: Query, prefix: string): Promise<SlotState[]> {
  const rows = await query(
    `${SLOTS} WHERE database = current_database() AND left(slot_name, length($1)) = $1 ORDER BY slot_name`,
    [prefix],
  );
  return rows.map(toSlotState);
}

/**
 * Drops the slot if it is there, after ending a session of ours that still reads it. Throws `transient` if
 * another program holds it.
 */
export async function dropSlot(query: Query, name: string): Promise<void> {
  const deadline = Date.now() + RELEASE_TIMEOUT_MS;
  while (true) {
    try {
      await query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         JOIN pg_replication_slots ON pid = active_pid
         WHERE slot_name = $1 AND application_name LIKE 'mmlite%'`,
        [name],
      );
      await query(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1",
        [
          name,
        ],
      );
      return;
    } catch (error) {
      const state = sqlState(error);
      if (state === "42704") return; // Dropped meanwhile.
      if (state !== "55006" || Date.now() > deadline) {
        throw mapPostgresError(error, `drop replication slot "${name}"`);
      }
    }
    await delay(RELEASE_POLL_MS);
  }
}

function toSlotState(row: Row): SlotState {
  const lsn = (text: string | null) => text === null ? null : parseLsn(text);
  return {
    name: row.slot_name!,
    activePid: row.active_pid === null ? null : Number(row.active_pid),
    confirmedFlushLsn: lsn(row.confirmed_flush_lsn),
    restartLsn: lsn(row.restart_lsn),
    retainedBytes: BigInt(row.retained!),
    walStatus: row.wal_status,
    safeWalSizeBytes: row.safe_wal_size === null ? null : BigInt(row.safe_wal_size),
    lost: row.wal_status === "lost" || row.restart_lsn === null,
  };
}
