/**
 * Opens the PostgreSQL session in which one origin's transactions are applied: its settings and its origin.
 *
 * The session must be a direct one: a pooler would hand the origin on to a client, whose writes would then not
 * be replicated.
 */
import { delay } from "../backoff.ts";
import { MmliteError } from "../errors.ts";
import { type Client, closeClient, openClient, passAnyBytes } from "../pg/client.ts";
import { mapPostgresError, sqlState } from "../pg/errors.ts";
import { type Query, queryWith } from "../pg/query.ts";
import { VALUE_SETTINGS } from "../pg/replication.ts";
import type { PostgresTarget } from "../pg/target.ts";

/** How long another session may hold the origin before this one gives up, milliseconds. */
const ORIGIN_WAIT_MS = 10_000;
/** After this long an old session of ours is ended, milliseconds: the server has not noticed that it is dead. */
const ORIGIN_PATIENCE_MS = 1_000;
/** Between two attempts to take the origin, milliseconds. */
const ORIGIN_RETRY_MS = 100;
const ORIGIN_IN_USE = "55006";
const INVALID_VALUE = "22023";
/** The first `server_version_num` with client_connection_check_interval. */
const CONNECTION_CHECK_SINCE = 140000;

/**
 * Text in and out means the same on both ends of a link with these, whatever the server's own settings. A row
 * hidden by row security fails instead of being missed. Deadlocks end apply, which is tried again, before they
 * end an application's transaction.
 */
const SETTINGS: Readonly<Record<string, string>> = {
  ...VALUE_SETTINGS,
  session_replication_role: "replica",
  row_security: "off",
  statement_timeout: "0",
  lock_timeout: "10s",
  idle_in_transaction_session_timeout: "0",
  deadlock_timeout: "200ms",
  synchronous_commit: "off",
  default_transaction_isolation: "read committed",
  default_transaction_read_only: "off",
  array_nulls: "on",
  client_min_messages: "notice",
  // Rows come as arrays, of which the planner knows no length: each is looked up by its key.
  enable_hashjoin: "off",
  enable_mergejoin: "off",
  enable_seqscan: "off",
  enable_bitmapscan: "off",
};

/** Settings that came later, by the `server_version_num` that has them. Below 14 a generic plan of an UPDATE
 * visits every partition. Compiling a search of a large table would be repeated for every row. */
const LATER_SETTINGS: readonly { since: number; name: string; value: string }[] = [
  { since: 110000, name: "jit", value: "off" },
  { since: 140000, name: "plan_cache_mode", value: "force_generic_plan" },
  { since: 140000, name: "idle_session_timeout", value: "0" },
  { since: 170000, name: "transaction_timeout", value: "0" },
];

/** An open session that has its origin. */
export interface ApplySession {
  readonly client: Client;
  /** `server_version_num`, such as 180004. */
  readonly serverVersion: number;
  readonly trackCommitTimestamp: boolean;
  /** OID of its replication origin. */
  readonly originId: number;
}

/** What {@link openApplySession} needs to know. */
export interface ApplySessionOptions {
  readonly target: PostgresTarget;
  /** The sender's node name. */
  readonly origin: string;
  /** The replication origin, created and committed before. */
  readonly originName: string;
  readonly signal: AbortSignal;
}

/** Opens a session; throws an error of ours that names the origin. */
export async function openApplySession(options: ApplySessionOptions): Promise<ApplySession> {
  const { target, origin, signal } = options;
  const client = await openClient(target, {
    applicationName: `mmlite apply ${origin}`,
    settings: SETTINGS,
    signal,
  });
  try {
    await passAnyBytes(client);
    const query = queryWith(client);
    const serverVersion = await setLaterSettings(query);
    const [setting] = await query("SELECT current_setting('track_commit_timestamp') AS value");
    await takeOrigin(query, options);
    const [taken] = await query("SELECT pg_replication_origin_oid($1)::text AS id", [options.originName]);
    return {
      client,
      serverVersion,
      trackCommitTimestamp: setting?.value === "on",
      originId: Number(taken?.id),
    };
  } catch (thrown) {
    await closeClient(client);
    throw mapPostgresError(thrown, `open the apply session for "${origin}"`);
  }
}

async function setLaterSettings(query: Query): Promise<number> {
  const [row] = await query("SELECT current_setting('server_version_num') AS version");
  const version = Number(row?.version);
  for (const { since, name, value } of LATER_SETTINGS) {
    if (version >= since) await query("SELECT set_config($1, $2, false)", [name, value]);
  }
  if (version >= CONNECTION_CHECK_SINCE) await checkConnection(query);
  return version;
}

/** Lets a statement that waits or works notice that mmlite is gone, so that the origin is free for its successor. */
async function checkConnection(query: Query): Promise<void> {
  try {
    await query("SELECT set_config('client_connection_check_interval', '1s', false)");
  } catch (thrown) {
    if (sqlState(thrown) !== INVALID_VALUE) throw thrown; // The server's platform cannot.
  }
}

/** Waits for an older session of ours to let go of the origin, and ends it if it does not. */
async function takeOrigin(query: Query, { originName, signal }: ApplySessionOptions): Promise<void> {
  const started = performance.now();
  for (;;) {
    try {
      await query("SELECT pg_replication_origin_session_setup($1)", [originName]);
      return;
    } catch (thrown) {
      const waited = performance.now() - started;
      if (sqlState(thrown) !== ORIGIN_IN_USE || waited > ORIGIN_WAIT_MS) throw thrown;
      if (waited > ORIGIN_PATIENCE_MS) await endOldSessions(query, holderOf(thrown));
      await delay(ORIGIN_RETRY_MS, signal);
      if (signal.aborted) throw new MmliteError("aborted", "Cannot take the replication origin: stopped");
    }
  }
}

/** The process that the server says holds the origin; null if its words tell none. */
function holderOf(thrown: unknown): string | null {
  return /PID (\d+)/.exec(thrown instanceof Error ? thrown.message : "")?.[1] ?? null;
}

async function endOldSessions(query: Query, holder: string | null): Promise<void> {
  await query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
      WHERE application_name = current_setting('application_name') AND datname = current_database()
        AND pid <> pg_backend_pid() AND pid = coalesce($1::integer, pid)`,
    [holder],
  );
}
