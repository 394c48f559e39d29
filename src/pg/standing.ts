/**
 * Where this server's WAL ends, and how far other nodes are applied here, at one moment.
 */
import { type Lsn, parseLsn } from "../lsn.ts";
import type { Query } from "./query.ts";

/** How far a node is applied here, visibly. */
export interface AppliedOrigin {
  readonly node: string;
  /** Of the life of its database that the position is of. */
  readonly incarnation: string;
  /** In its WAL. */
  readonly lsn: Lsn;
}

/** A moment of this server. */
export interface ServerStanding {
  /** Whatever is visible now was committed before this, and it is on disk. */
  readonly lsn: Lsn;
  readonly applied: readonly AppliedOrigin[];
}

/** Of nodes that were met, and not removed. */
const APPLIED = `mmlite.progress JOIN mmlite.peer
  ON name = origin AND incarnation IS NOT NULL AND state <> 'removed'`;

/**
 * The present moment. Where something is not on disk, such as what was committed with `synchronous_commit=off`, it
 * writes a record of 80 bytes behind it and commits that: no walsender sends what is not, and nothing else might put
 * it there for long. `query` must commit synchronously, as the control connections do.
 *
 * The end of WAL that PostgreSQL tells counts the header of a page that is not begun, and is where its flushed WAL ends
 * only where no record is in between.
 */
export async function readServerStanding(query: Query): Promise<ServerStanding> {
  const rows = await query(
    `SELECT pg_current_wal_insert_lsn()::text AS insert_lsn, pg_current_wal_flush_lsn()::text AS flush_lsn,
            origin, incarnation::text, lsn::text
       FROM (SELECT 1) one LEFT JOIN (${APPLIED}) ON true ORDER BY origin`,
  );
  const { insert_lsn: insertLsn, flush_lsn: flushLsn } = rows[0];
  const lsn = insertLsn === flushLsn ? parseLsn(insertLsn!) : await flushAll(query);
  return { lsn, applied: rows.filter(({ origin }) => origin !== null).map(toApplied) };
}

/** How far other nodes are applied here. */
export async function readApplied(query: Query): Promise<AppliedOrigin[]> {
  return (await query(`SELECT origin, incarnation::text, lsn::text FROM ${APPLIED}`)).map(toApplied);
}

/** Puts everything on disk that is in the WAL now; where that ends. */
async function flushAll(query: Query): Promise<Lsn> {
  const [row] = await query("SELECT pg_logical_emit_message(true, 'mmlite', '')::text AS lsn");
  return parseLsn(row.lsn!);
}

function toApplied(row: Awaited<ReturnType<Query>>[number]): AppliedOrigin {
  return { node: row.origin!, incarnation: row.incarnation!, lsn: parseLsn(row.lsn!) };
}
