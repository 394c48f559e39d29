/**
 * The table `mmlite.progress` and the replication origins beside it: how far each other node is applied here.
 *
 * The table is the truth. An origin only tags WAL, so that applied transactions do not leave the node again;
 * its own position is never read (it advances on ABORT from PostgreSQL 16 on, and before the data is visible).
 */
import { type Lsn, parseLsn } from "../lsn.ts";
import { sqlState } from "./errors.ts";
import type { Query, Row } from "./query.ts";

/** A row of `mmlite.progress`. */
export interface Progress {
  readonly origin: string;
  /** End of the last transaction of that origin that is applied here: a position in the origin's WAL. */
  readonly lsn: Lsn;
  /** When that transaction committed at its origin, RFC 3339 UTC with microseconds; null before the first. */
  readonly commitTimestamp: string | null;
  /** Counts receiving sessions; only the latest may apply. */
  readonly epoch: string;
  /** Where the origin's slot began that feeds this node; null until it has said so. */
  readonly slotLsn: Lsn | null;
}

/** SQLSTATEs of an origin that another session has created meanwhile: the unique index says so, or a check. */
const EXISTS_NOW = ["23505", "42710"];

const COLUMNS = `origin, lsn::text, epoch::text, slot_lsn::text,
  to_char(commit_timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS commit_timestamp`;

/** The name of the replication origin that tags what came from a node. */
export function originName(node: string): string {
  return `mmlite_${node}`;
}

/** Every origin's progress. */
export async function readProgress(query: Query): Promise<Progress[]> {
  return (await query(`SELECT ${COLUMNS} FROM mmlite.progress ORDER BY origin`)).map(toProgress);
}

/** One origin's progress, or undefined before its first session. */
export async function readProgressOf(query: Query, origin: string): Promise<Progress | undefined> {
  const [row] = await query(`SELECT ${COLUMNS} FROM mmlite.progress WHERE origin = $1`, [origin]);
  return row === undefined ? undefined : toProgress(row);
}

/** Sets where an origin's first transaction will follow; keeps what is there. */
export async function startProgress(query: Query, origin: string, lsn: string): Promise<void> {
  await query(
    "INSERT INTO mmlite.progress (origin, lsn, epoch) VALUES ($1, $2::pg_lsn, 0) ON CONFLICT (origin) DO NOTHING",
    [origin, lsn],
  );
}

/** Notes where the slot of an origin began that feeds this node. */
export async function setProgressSlot(query: Query, origin: string, slotLsn: string): Promise<void> {
  await query("UPDATE mmlite.progress SET slot_lsn = $2::pg_lsn WHERE origin = $1", [origin, slotLsn]);
}

/** Begins a receiving session: every earlier one can apply nothing from here on. */
export async function nextEpoch(query: Query, origin: string): Promise<Progress> {
  const [row] = await query(
    `UPDATE mmlite.progress SET epoch = epoch + 1 WHERE origin = $1 RETURNING ${COLUMNS}`,
    [origin],
  );
  return toProgress(row!);
}

/** Forgets an origin's position, when its node was removed. */
export async function forgetProgress(query: Query, origin: string): Promise<void> {
  await query("DELETE FROM mmlite.progress WHERE origin = $1", [origin]);
}

/**
 * Creates the replication origin of a node if there is none; idempotent.
 *
 * A statement of its own, committed before any apply session exists: a transaction that wrote before its origin
 * was visible is decoded as a local one and would bounce.
 */
export async function ensureOrigin(query: Query, node: string): Promise<void> {
  await ensureNamedOrigin(query, originName(node));
}

/** The same for an origin of any name. */
export async function ensureNamedOrigin(query: Query, name: string): Promise<void> {
  try {
    await query(
      `SELECT pg_replication_origin_create($1)
        WHERE NOT EXISTS (SELECT 1 FROM pg_replication_origin WHERE roname = $1)`,
      [name],
    );
  } catch (error) {
    if (!EXISTS_NOW.includes(sqlState(error) ?? "")) throw error;
  }
}

function toProgress(row: Row): Progress {
  return {
    origin: row.origin!,
    lsn: parseLsn(row.lsn!),
    commitTimestamp: row.commit_timestamp ?? null,
    epoch: row.epoch!,
    slotLsn: row.slot_lsn == null ? null : parseLsn(row.slot_lsn),
  };
}
