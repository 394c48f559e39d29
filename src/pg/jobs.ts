/**
 * The table `mmlite.job`: long work that operators have asked this node for, and what came of it.
 */
import type { Query, Row } from "./query.ts";

/** Whether a job waits, runs, or how it ended. */
export type JobState = "queued" | "running" | "succeeded" | "failed" | "cancelled";

/** A row of `mmlite.job`; times are RFC 3339 UTC. */
export interface JobRow {
  readonly id: string;
  readonly type: string;
  readonly state: JobState;
  readonly input: unknown;
  readonly createdAt: string;
  readonly startedAt: string | null;
  readonly finishedAt: string | null;
  /** Null where it was not asked for, or there is none. */
  readonly result: unknown;
  readonly error: JobError | null;
}

/** Why a job failed. */
export interface JobError {
  readonly kind: string;
  readonly message: string;
  readonly hint: string;
}

/** Jobs that are kept beside those that have not ended. */
const KEPT_JOBS = 20;

const TIME = `'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'`;
const COLUMNS = `id::text, type, state, input::text, error::text,
  to_char(created_at AT TIME ZONE 'UTC', ${TIME}) AS created_at,
  to_char(started_at AT TIME ZONE 'UTC', ${TIME}) AS started_at,
  to_char(finished_at AT TIME ZONE 'UTC', ${TIME}) AS finished_at`;

/** Adds a job that waits, and forgets those that ended long ago. */
export async function createJob(
  query: Query,
  { type, input }: Pick<JobRow, "type" | "input">,
): Promise<JobRow> {
  await query(
    `DELETE FROM mmlite.job WHERE state NOT IN ('queued', 'running') AND id NOT IN (
       SELECT id FROM mmlite.job WHERE state NOT IN ('queued', 'running') ORDER BY id DESC LIMIT ${KEPT_JOBS})`,
  );
  const [row] = await query(
    `INSERT INTO mmlite.job (type, input) VALUES ($1, $2::jsonb) RETURNING ${COLUMNS}`,
    [type, JSON.stringify(input)],
  );
  return toJobRow(row!);
}

/** Every job without its result, the latest first. */
export async function readJobs(query: Query): Promise<JobRow[]> {
  return (await query(`SELECT ${COLUMNS} FROM mmlite.job ORDER BY mmlite.job.id DESC`)).map(toJobRow);
}

/** One job with its result, or undefined if there is none of that id. */
export async function readJob(query: Query, id: string): Promise<JobRow | undefined> {
  if (!/^[0-9]{1,18}$/.test(id)) return undefined;
  const [row] = await query(`SELECT ${COLUMNS}, result::text FROM mmlite.job WHERE id = $1::bigint`, [id]);
  return row === undefined ? undefined : toJobRow(row);
}

/** A job begins; false if it does not wait any more. May be tried again where it is not known whether it did. */
export async function beginJob(query: Query, id: string): Promise<boolean> {
  const begun = await query(
    `UPDATE mmlite.job SET state = 'running', started_at = clock_timestamp()
      WHERE id = $1::bigint AND state IN ('queued', 'running') RETURNING id`,
    [id],
  );
  return begun.length > 0;
}

/** A job has created something; returns all that it has created, across restarts. */
export async function noteCreated(query: Query, id: string, names: readonly string[]): Promise<string[]> {
  const [row] = await query(
    `UPDATE mmlite.job SET created = created || $2::jsonb WHERE id = $1::bigint RETURNING created::text`,
    [id, JSON.stringify(names)],
  );
  return row === undefined ? [...names] : JSON.parse(row.created!);
}

/** A job has ended. */
export async function endJob(
  query: Query,
  id: string,
  { state, result = null, error = null }: {
    readonly state: Exclude<JobState, "queued" | "running">;
    readonly result?: unknown;
    readonly error?: JobError | null;
  },
): Promise<void> {
  await query(
    `UPDATE mmlite.job SET state = $2, result = $3::json, error = $4::json, finished_at = clock_timestamp()
      WHERE id = $1::bigint AND state IN ('queued', 'running')`,
    [id, state, jsonOrNull(result), jsonOrNull(error)],
  );
}

/** Forgets a job that has ended; whether there was one. */
export async function forgetJob(query: Query, id: string): Promise<boolean> {
  const gone = await query(
    "DELETE FROM mmlite.job WHERE id = $1::bigint AND state NOT IN ('queued', 'running') RETURNING id",
    [id],
  );
  return gone.length > 0;
}

/** Jobs of some types that an earlier process left under way wait again; returns all that wait, in their order. */
export async function resumeJobs(query: Query, types: readonly string[]): Promise<JobRow[]> {
  await query(
    `UPDATE mmlite.job SET state = 'queued', started_at = NULL
      WHERE state = 'running' AND type IN (SELECT json_array_elements_text($1::json))`,
    [JSON.stringify(types)],
  );
  const rows = await query(
    `SELECT ${COLUMNS} FROM mmlite.job
      WHERE state = 'queued' AND type IN (SELECT json_array_elements_text($1::json)) ORDER BY mmlite.job.id`,
    [JSON.stringify(types)],
  );
  return rows.map(toJobRow);
}

/** Whatever else an earlier process left under way has ended with it. */
export async function failUnderWay(
  query: Query,
  { except, errorOf }: { readonly except: readonly string[]; readonly errorOf: (type: string) => JobError },
): Promise<string[]> {
  const rows = await query(
    `SELECT id::text, type FROM mmlite.job WHERE state IN ('queued', 'running')
        AND type NOT IN (SELECT json_array_elements_text($1::json)) ORDER BY id`,
    [JSON.stringify(except)],
  );
  for (const { id, type } of rows) await endJob(query, id!, { state: "failed", error: errorOf(type!) });
  return rows.map(({ id }) => id!);
}

function jsonOrNull(value: unknown): string | null {
  return value === null ? null : JSON.stringify(value);
}

function toJobRow(row: Row): JobRow {
  return {
    id: row.id!,
    type: row.type!,
    state: row.state as JobState,
    input: JSON.parse(row.input!),
    createdAt: row.created_at!,
    startedAt: row.started_at,
    finishedAt: row.finished_at,
    result: row.result == null ? null : JSON.parse(row.result),
    error: row.error === null ? null : JSON.parse(row.error),
  };
}
