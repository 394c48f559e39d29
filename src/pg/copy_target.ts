/**
 * This database as rows of another node are copied into it: the note that they are, and the trigger that keeps
 * applications out; then the session that writes them.
 */
import { Buffer } from "node:buffer";
// @ts-types="@types/pg"
import pg from "pg";
import { MmliteError } from "../errors.ts";
import { formatLsn, type Lsn } from "../lsn.ts";
import { formatTableName, type TableName } from "../table_name.ts";
import type { Client } from "./client.ts";
import { CopyIn } from "./copy_in.ts";
import { COPYING_TRIGGER } from "./copy_schema.ts";
import { mapPostgresError, sqlState } from "./errors.ts";
import type { Query } from "./query.ts";
import { rowsOf } from "./row_hash.ts";
import type { LocalTable } from "./tables.ts";

/** SQLSTATE of a TRUNCATE of tables that others refer to. */
const FEATURE_NOT_SUPPORTED = "0A000";

/** A copy that has not ended. */
export interface UnendedCopy {
  /** From whom the rows of this node are copied, or were. */
  readonly source: string;
  /** What was copied, once all rows have come; until then nothing is applied here. */
  readonly report: unknown;
}

/** The copy that has not ended; undefined where there is none. */
export async function readCopy(query: Query): Promise<UnendedCopy | undefined> {
  const [row] = await query("SELECT source, report::text AS report FROM mmlite.copy");
  if (row === undefined) return undefined;
  return { source: row.source!, report: row.report === null ? undefined : JSON.parse(row.report) };
}

/** Notes that the rows of this node are to be copied from another one. */
export async function noteCopy(query: Query, source: string): Promise<void> {
  await query(
    `INSERT INTO mmlite.copy (source) VALUES ($1)
       ON CONFLICT (only_row) DO UPDATE SET source = excluded.source, whole_at = NULL, report = NULL`,
    [source],
  );
}

/** Keeps applications from writing to tables; each may be a partition. Waits for those that write. */
export async function shutTables(query: Query, tables: readonly TableName[]): Promise<void> {
  const shut = new Set((await readShut(query)).map(formatTableName));
  for (const table of tables.filter((one) => !shut.has(formatTableName(one)))) {
    await query(
      `CREATE TRIGGER ${COPYING_TRIGGER} BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON ${quoted(table)}
         FOR EACH STATEMENT EXECUTE PROCEDURE mmlite.refuse_write()`,
    );
  }
}

/** Lets applications write again to what was shut, one table after the other, each locked for a moment only. */
export async function openTables(query: Query): Promise<void> {
  for (const table of await readShut(query)) {
    await query(`DROP TRIGGER IF EXISTS ${COPYING_TRIGGER} ON ${quoted(table)}`);
  }
}

/**
 * The copy from a node has ended, and all that this had committed by its end is applied: the position in its WAL that what
 * was copied reaches to is said to others, and resumed from, like any other.
 */
export async function forgetCopy(query: Query, source: string): Promise<void> {
  await query(
    `UPDATE mmlite.progress p SET lsn = e.copied_until, epoch = epoch + 1,
         commit_timestamp = coalesce(p.commit_timestamp, c.whole_at)
       FROM mmlite.peer e, mmlite.copy c WHERE p.origin = $1 AND e.name = $1 AND e.copied_until > p.lsn`,
    [source],
  );
  await query("DELETE FROM mmlite.copy");
}

async function readShut(query: Query): Promise<TableName[]> {
  const rows = await query(
    `SELECT n.nspname AS schema, c.relname AS name FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid
       JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE g.tgname = '${COPYING_TRIGGER}' AND NOT g.tgisinternal ORDER BY 1, 2`,
  );
  return rows.map(({ schema, name }) => ({ schema: schema!, name: name! }));
}

/** Whether a table has rows that did not come from other nodes. */
export async function hasOwnRows(
  query: Query,
  table: LocalTable,
  { isVersioned, self }: { readonly isVersioned: boolean; readonly self: string },
): Promise<boolean> {
  const isOwn = isVersioned
    ? "coalesce((SELECT v.node FROM mmlite.row_version(t.xmin, 0) v), $1) = $1"
    : "$1::text IS NOT NULL";
  const [row] = await query(
    `SELECT EXISTS (SELECT FROM ${rowsOf(table)} AS t WHERE ${isOwn})::text AS own`,
    [self],
  );
  return row.own === "true";
}

/** Which rows come, and in which form. */
export interface CopyInto {
  readonly table: TableName;
  readonly columns: readonly string[];
  readonly binary: boolean;
}

/** The version of rows that are written in one transaction. */
export interface CopyVersion {
  readonly node: string;
  /** When the last of them was committed, as PostgreSQL reads it; of the first the same, unless said. */
  readonly at: string;
  readonly first?: string;
  /** As `mmlite.apply_group` has them: rows that are older than `at`. */
  readonly entries?: Uint8Array;
}

/** One local transaction that takes rows as COPY prints them; nothing of it leaves this node. */
export class CopyWriter {
  readonly #query: Query;
  readonly #client: Client;
  readonly #isVersioned: boolean;
  #copy: CopyIn | undefined;

  constructor(client: Client, query: Query, { isVersioned }: { readonly isVersioned: boolean }) {
    this.#client = client;
    this.#query = query;
    this.#isVersioned = isVersioned;
  }

  /** Begins a transaction for rows of a table. */
  async begin({ table, columns, binary }: CopyInto): Promise<void> {
    await this.#query("BEGIN");
    const list = columns.map((name) => pg.escapeIdentifier(name)).join(", ");
    const form = binary ? " (FORMAT binary)" : "";
    this.#copy = await CopyIn.begin(
      this.#client,
      `COPY ${quoted(table)}${list === "" ? "" : ` (${list})`} FROM STDIN${form}`,
    );
  }

  /** Takes the next bytes; resolves once there is room for more. */
  async write(pieces: readonly Uint8Array[]): Promise<void> {
    await this.#copy!.write(pieces);
  }

  /** Commits what was taken; returns how many rows. */
  async end({ node, at, first = at, entries = new Uint8Array() }: CopyVersion): Promise<number> {
    const rows = await this.#copy!.end();
    if (this.#isVersioned) {
      await this.#query(
        `INSERT INTO mmlite.apply_group (xid, origin, first_timestamp, last_timestamp, entries)
           VALUES (txid_current(), $1, $2::timestamptz, $3::timestamptz, decode($4, 'hex'))`,
        [node, first, at, Buffer.from(entries).toString("hex")],
      );
    }
    await this.#query(
      "SELECT pg_replication_origin_xact_setup(pg_current_wal_insert_lsn(), $1::timestamptz)",
      [at],
    );
    await this.#query("COMMIT");
    return rows;
  }
}

/**
 * Empties tables for the copy; a transaction of a session with an origin. Throws `transient` where all rows have come:
 * a session whose connection was lost may have gone on.
 */
export async function truncateTables(query: Query, tables: readonly LocalTable[]): Promise<void> {
  await query("BEGIN");
  // Whoever notes that all have come holds this line until then.
  const [copy] = await query("SELECT (whole_at IS NULL)::text AS wanted FROM mmlite.copy FOR UPDATE");
  if (copy?.wanted !== "true") {
    throw new MmliteError("transient", "Cannot empty the tables: their rows have come already");
  }
  // A table that inherits is one of them, or not replicated. What was noted of the rows comes with them again.
  if (tables.length > 0) await query(`TRUNCATE TABLE ${tables.map(rowsOf).join(", ")}`).catch(referred);
  await query(
    `DELETE FROM mmlite.tombstone; DELETE FROM mmlite.tombstone_piece; DELETE FROM mmlite.truncation;
     DELETE FROM mmlite.unsent; DELETE FROM mmlite.second_look`,
  );
  await query(
    "SELECT pg_replication_origin_xact_setup(pg_current_wal_insert_lsn(), clock_timestamp())",
  );
  await query("COMMIT");
}

/** Makes a session write under another replication origin from now on. */
export async function changeOrigin(query: Query, origin: string): Promise<void> {
  await query("SELECT pg_replication_origin_session_reset()");
  await query("SELECT pg_replication_origin_session_setup($1)", [origin]);
}

/** What the copied rows have of the nodes, as it is noted when all have come. */
export interface CopiedPositions {
  readonly source: string;
  /** See `SnapshotFacts`. */
  readonly snapshot: string;
  readonly untilLsn: Lsn;
  readonly applied: readonly { readonly node: string; readonly lsn: Lsn; readonly at: string | null }[];
  /** How far nodes were applied here when the snapshot was asked for: it holds what they committed before. */
  readonly asked: readonly { readonly node: string; readonly lsn: Lsn }[];
}

/**
 * Notes that all rows have come: what is received from now on follows what was copied. One transaction, on disk when
 * this returns; `report` is kept with it.
 */
export async function noteWhole(
  query: Query,
  { source, snapshot, untilLsn, applied, asked }: CopiedPositions,
  report: unknown,
): Promise<void> {
  await query("BEGIN");
  try {
    await query("SET LOCAL synchronous_commit = local");
    await requireSamePeers(query, asked);
    for (const { node, lsn, at } of applied) {
      await query(
        `UPDATE mmlite.progress SET lsn = greatest(lsn, $2::pg_lsn), epoch = epoch + 1,
           commit_timestamp = greatest(commit_timestamp, $3::timestamptz) WHERE origin = $1`,
        [node, formatLsn(lsn), at],
      );
    }
    // What came with an earlier copy is gone, and as much of its source has come with this one.
    await query("UPDATE mmlite.peer SET copied_snapshot = NULL, copied_until = NULL WHERE name <> $1", [
      source,
    ]);
    const peers = await query(
      `UPDATE mmlite.peer SET copied_snapshot = $2, copied_until = $3::pg_lsn
        WHERE name = $1 AND state IN ('active', 'paused') RETURNING name`,
      [source, snapshot, formatLsn(untilLsn)],
    );
    if (peers.length === 0) throw removed(source);
    // What was copied need not have come to a peer by the time when it became one.
    await query("UPDATE mmlite.peer SET created_at = timestamptz '2000-01-01 00:00:00Z'");
    await query("UPDATE mmlite.copy SET whole_at = clock_timestamp(), report = $1::json", [
      JSON.stringify(report),
    ]);
    await query("COMMIT");
  } catch (thrown) {
    await query("ROLLBACK").catch(() => {});
    throw mapPostgresError(thrown, "note that all rows have come");
  }
}

/** Nothing but a foreign key of a table that is not replicated stands in the way. */
function referred(thrown: unknown): never {
  if (sqlState(thrown) !== FEATURE_NOT_SUPPORTED) throw thrown;
  throw new MmliteError(
    "conflict",
    "Cannot empty the tables for the copy: one that is not replicated refers to them by a foreign key",
    {
      hint: "Replicate that table as well, or drop its foreign key on this node; then begin the copy again",
      cause: thrown,
    },
  );
}

function removed(source: string): MmliteError {
  return new MmliteError("conflict", `Cannot end the copy: peer "${source}" was removed meanwhile`, {
    hint: "Copy from a node that is a peer",
  });
}

/** Throws `transient` for a peer whose stream begins, or may begin, behind what the snapshot has of it. */
async function requireSamePeers(query: Query, asked: CopiedPositions["asked"]): Promise<void> {
  const [late] = await query(
    `SELECT e.name FROM mmlite.peer e LEFT JOIN mmlite.progress p ON p.origin = e.name
      WHERE e.state IN ('active', 'paused') AND NOT EXISTS (
        SELECT FROM json_to_recordset($1::json) AS a (node text, lsn text)
         WHERE a.node = e.name AND a.lsn::pg_lsn = p.lsn) LIMIT 1`,
    [JSON.stringify(asked.map(({ node, lsn }) => ({ node, lsn: formatLsn(lsn) })))],
  );
  if (late === undefined) return;
  throw new MmliteError("transient", `Cannot end the copy: node "${late.name}" became a peer meanwhile`);
}

function quoted({ schema, name }: TableName): string {
  return `${pg.escapeIdentifier(schema)}.${pg.escapeIdentifier(name)}`;
}
