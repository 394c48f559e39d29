/**
 * The table `mmlite.conflict`: reading what apply sessions noted of conflicts, and forgetting it.
 *
 * What it holds are row values: they go to whoever asks, and into no log and no error.
 */
import type { Query, Row } from "./query.ts";

/** A conflict without its rows. */
export interface ConflictRow {
  /** A 64-bit integer. */
  readonly id: string;
  /** RFC 3339 UTC with microseconds, as the other times. */
  readonly notedAt: string;
  readonly schema: string;
  readonly name: string;
  readonly type: string;
  readonly resolution: string;
  readonly change: string;
  /** JSON, as the rows; null for a row without key. */
  readonly key: string | null;
  readonly localOrigin: string | null;
  readonly localTimestamp: string | null;
  readonly remoteOrigin: string;
  readonly remoteTimestamp: string;
  readonly remoteLsn: string | null;
}

/** A conflict with what was here and what came. */
export interface WholeConflictRow extends ConflictRow {
  readonly localRow: string | null;
  readonly remoteRow: string | null;
}

/** Which conflicts are wanted; what is left out does not matter. */
export interface ConflictFilter {
  /** RFC 3339. */
  readonly since?: string;
  readonly table?: { readonly schema: string; readonly name: string };
  readonly type?: string;
  readonly resolution?: string;
  /** Only those with a lower id. */
  readonly before?: string;
}

/** Up to so many are counted one by one, beyond it is the planner's estimate: status asks every other second. */
const COUNTED = 10_000;

const time = (column: string) => `to_char(${column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`;

const COLUMNS = `c.id::text, ${
  time("c.noted_at")
} AS noted_at, c.table_schema, c.table_name, c.type, c.resolution,
  c.change, c.key::text, c.local_origin, ${time("c.local_timestamp")} AS local_timestamp, c.remote_origin,
  ${time("c.remote_timestamp")} AS remote_timestamp, c.remote_lsn::text`;

/** Conflicts, the newest first, at most `limit`. */
export async function readConflicts(
  query: Query,
  { since, table, type, resolution, before }: ConflictFilter,
  limit: number,
): Promise<ConflictRow[]> {
  const rows = await query(
    `SELECT ${COLUMNS} FROM mmlite.conflict c
      WHERE ($1::timestamptz IS NULL OR c.noted_at >= $1::timestamptz)
        AND ($2::text IS NULL OR (c.table_schema = $2 AND c.table_name = $3))
        AND ($4::text IS NULL OR c.type = $4) AND ($5::text IS NULL OR c.resolution = $5)
        AND ($6::bigint IS NULL OR c.id < $6::bigint)
      ORDER BY c.id DESC LIMIT $7::bigint`,
    [
      since ?? null,
      table?.schema ?? null,
      table?.name ?? null,
      type ?? null,
      resolution ?? null,
      before ?? null,
      String(limit),
    ],
  );
  return rows.map(toConflict);
}

/** One conflict with its rows, or undefined. */
export async function readConflict(query: Query, id: string): Promise<WholeConflictRow | undefined> {
  const [row] = await query(
    `SELECT ${COLUMNS}, c.local_row::text, c.remote_row::text FROM mmlite.conflict c WHERE c.id = $1::bigint`,
    [id],
  );
  if (row === undefined) return undefined;
  return { ...toConflict(row), localRow: row.local_row ?? null, remoteRow: row.remote_row ?? null };
}

/** How many are kept; beyond ten thousand an estimate. */
export async function countConflicts(query: Query): Promise<number> {
  const [row] = await query(
    `SELECT CASE WHEN counted < ${COUNTED} THEN counted ELSE greatest(counted, estimate) END::text AS kept
       FROM (SELECT count(*) AS counted FROM (SELECT FROM mmlite.conflict LIMIT ${COUNTED}) c) few,
            (SELECT reltuples::bigint AS estimate FROM pg_class WHERE oid = 'mmlite.conflict'::regclass) all_rows`,
  );
  return Number(row!.kept);
}

/** Forgets conflicts that were noted so many seconds ago or earlier, at most `limit`; how many. */
export async function forgetConflicts(query: Query, keepSeconds: number, limit: number): Promise<number> {
  const [row] = await query(
    `WITH old AS (SELECT id FROM mmlite.conflict WHERE noted_at <= now() - $1::bigint * interval '1 second'
                   ORDER BY noted_at LIMIT $2::bigint),
          gone AS (DELETE FROM mmlite.conflict c USING old WHERE c.id = old.id RETURNING c.id)
     SELECT count(*)::text AS forgotten FROM gone`,
    [String(keepSeconds), String(limit)],
  );
  return Number(row!.forgotten);
}

/** The last id that was given to a conflict, committed or not; 0 before the first. */
export async function readLastConflictId(query: Query): Promise<bigint> {
  const [row] = await query(
    "SELECT CASE WHEN is_called THEN last_value ELSE 0 END::text AS last FROM mmlite.conflict_id_seq",
  );
  return BigInt(row!.last!);
}

/**
 * The transactions that have written a conflict, or are about to, and are not over: whoever has got an id is among them
 * until its row shows, because a table's lock comes before the first row and goes after the commit is visible.
 */
export async function readConflictWriters(query: Query): Promise<string[]> {
  const rows = await query(
    `SELECT virtualtransaction FROM pg_locks
      WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND relation = 'mmlite.conflict'::regclass
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
  );
  return rows.map(({ virtualtransaction }) => virtualtransaction!);
}

/** Conflicts above an id, the lowest first, but for some ids, at most `limit`. */
export async function readConflictsAbove(
  query: Query,
  { above, except, limit }: { above: bigint; except: readonly bigint[]; limit: number },
): Promise<ConflictRow[]> {
  const rows = await query(
    `SELECT ${COLUMNS} FROM mmlite.conflict c WHERE c.id > $1::bigint
        AND NOT EXISTS (SELECT FROM unnest($2::bigint[]) AS known(id) WHERE known.id = c.id)
      ORDER BY c.id LIMIT $3::bigint`,
    [String(above), `{${except.join(",")}}`, String(limit)],
  );
  return rows.map(toConflict);
}

function toConflict(row: Row): ConflictRow {
  return {
    id: row.id!,
    notedAt: row.noted_at!,
    schema: row.table_schema!,
    name: row.table_name!,
    type: row.type!,
    resolution: row.resolution!,
    change: row.change!,
    key: row.key ?? null,
    localOrigin: row.local_origin ?? null,
    localTimestamp: row.local_timestamp ?? null,
    remoteOrigin: row.remote_origin!,
    remoteTimestamp: row.remote_timestamp!,
    remoteLsn: row.remote_lsn ?? null,
  };
}
