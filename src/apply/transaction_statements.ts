/**
 * The statements around the changes of a local transaction. Parameters go in binary: positions, timestamps
 * (microseconds since 2000-01-01, as pgoutput has them) and the epoch are all 64-bit integers.
 */
import type { StatementText } from "../pg/query_bytes.ts";

const BOOL_OID = 16;
const TEXT_OID = 25;
const INT8_OID = 20;
const INT8_ARRAY_OID = 1016;
const BYTEA_OID = 17;
const PG_LSN_OID = 3220;
const TIMESTAMPTZ_OID = 1184;

/** Begins the local transaction. */
export const BEGIN: StatementText = { name: "begin", sql: "BEGIN", parameterTypes: [] };

/** Ends it. */
export const COMMIT: StatementText = { name: "commit", sql: "COMMIT", parameterTypes: [] };

/** Moves the position by compare-and-set: origin, from, to, epoch, commit timestamp. */
export const MOVE: StatementText = {
  name: "move",
  sql: "SELECT mmlite.begin_apply($1, $2, $3, $4, $5)",
  parameterTypes: [TEXT_OID, PG_LSN_OID, PG_LSN_OID, INT8_OID, TIMESTAMPTZ_OID],
};

/** Keeps what the transaction sees from its first statement on, where {@link MOVE} does not. */
export const SNAPSHOT: StatementText = {
  name: "snapshot",
  sql: "SELECT pg_catalog.set_config('mmlite.snapshot', pg_catalog.txid_current_snapshot()::text, true)",
  parameterTypes: [],
};

/** Tags what is written as of the origin: position, commit timestamp. */
export const TAG: StatementText = {
  name: "tag",
  sql: "SELECT pg_replication_origin_xact_setup($1, $2)",
  parameterTypes: [PG_LSN_OID, TIMESTAMPTZ_OID],
};

/** Notes the versions of a group: origin, first and last commit timestamp, entries. */
export const GROUP: StatementText = {
  name: "group",
  sql: `INSERT INTO mmlite.apply_group (xid, origin, first_timestamp, last_timestamp, entries)
    VALUES (pg_catalog.txid_current(), $1, $2, $3, $4)`,
  parameterTypes: [TEXT_OID, TIMESTAMPTZ_OID, TIMESTAMPTZ_OID, BYTEA_OID],
};

/** Notes a few deleted rows: origin, last commit timestamp, entries. */
export const TOMBSTONES: StatementText = {
  name: "tombstones",
  sql: "INSERT INTO mmlite.tombstone (origin, last_timestamp, entries) VALUES ($1, $2, $3)",
  parameterTypes: [TEXT_OID, TIMESTAMPTZ_OID, BYTEA_OID],
};

/** Notes more of them than {@link MAX_LIST_BYTES}: origin, last commit timestamp, entries. */
export const TOMBSTONE_RUN: StatementText = {
  name: "tombstone_run",
  sql: "SELECT mmlite.note_tombstones($1, $2, $3)",
  parameterTypes: [TEXT_OID, TIMESTAMPTZ_OID, BYTEA_OID],
};

/** Looks whether written rows were deleted later: hashes, first commit timestamp, origin, and whether only what was
 * noted since the transaction began counts. */
export const UNDISTURBED: StatementText = {
  name: "undisturbed",
  sql: "SELECT mmlite.require_undisturbed($1, $2, $3, $4)",
  parameterTypes: [INT8_ARRAY_OID, TIMESTAMPTZ_OID, TEXT_OID, BOOL_OID],
};

/** Keeps hashes of rows that a long transaction has written for {@link UNDISTURBED}. */
export const WRITTEN: StatementText = {
  name: "written",
  sql: "INSERT INTO mmlite.written (xid, hashes) VALUES (pg_catalog.txid_current(), $1)",
  parameterTypes: [INT8_ARRAY_OID],
};

/** Undoes what a failure has left open. */
export const ROLLBACK: StatementText = { name: "rollback", sql: "ROLLBACK", parameterTypes: [] };

/** Reads up to where the WAL is written and flushed. */
export const WAL: StatementText = {
  name: "wal",
  sql: "SELECT pg_current_wal_insert_lsn()::text, pg_current_wal_flush_lsn()::text",
  parameterTypes: [],
};

/** All of them, to be prepared once a session. */
export const TRANSACTION_STATEMENTS: readonly StatementText[] = [
  BEGIN,
  COMMIT,
  ROLLBACK,
  MOVE,
  SNAPSHOT,
  TAG,
  GROUP,
  TOMBSTONES,
  TOMBSTONE_RUN,
  UNDISTURBED,
  WRITTEN,
  WAL,
];
