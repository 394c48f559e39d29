/**
 * One mmlite per database: a session-level advisory lock, on a connection that also tells when the server goes down.
 *
 * The connection does nothing else, so whatever ends it is the server's shutdown, a crash, or an operator.
 */
import { delay } from "../backoff.ts";
import { MmliteError } from "../errors.ts";
import { closeClient, openClient } from "./client.ts";
import { mapPostgresError } from "./errors.ts";
import { type Query, queryWith } from "./query.ts";
import { describeTarget, type PostgresTarget } from "./target.ts";

/** The advisory lock's key, in the database's own lock space: "mmlite" in ASCII. */
const LOCK_KEY = "120316737713253";
/** How long the backend of a killed sidecar may keep the lock, milliseconds. */
const LINGER_MS = 10_000;
const LINGER_POLL_MS = 250;

/** The lock, held until closed or lost. */
export interface DatabaseLock {
  /** Aborted when the connection is gone: the server goes down, or an operator ended it. Its reason is the error. */
  readonly lost: AbortSignal;
  /** Lets go of the lock without aborting `lost`. */
  close(): Promise<void>;
}

/** Takes the lock; throws `conflict` while another mmlite holds it. */
export async function openLock(target: PostgresTarget, signal: AbortSignal): Promise<DatabaseLock> {
  const client = await openClient(target, { applicationName: "mmlite lock", signal });
  const lost = new AbortController();
  client.on(
    "error",
    (error) => lost.abort(mapPostgresError(error, `stay connected to ${describeTarget(target)}`)),
  );
  try {
    const query = queryWith(client);
    // From 14 on an idle session may be limited, for the role or the database.
    await query("SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'");
    await takeLock(query, signal);
  } catch (thrown) {
    await closeClient(client);
    throw mapPostgresError(thrown, "lock the database");
  }
  return { lost: lost.signal, close: () => closeClient(client) };
}

async function takeLock(query: Query, signal: AbortSignal): Promise<void> {
  const deadline = performance.now() + LINGER_MS;
  for (;;) {
    const [row] = await query(`SELECT pg_try_advisory_lock(${LOCK_KEY})::text AS taken`);
    if (row?.taken === "true") return;
    if (performance.now() > deadline || signal.aborted) throw await lockedError(query);
    await delay(LINGER_POLL_MS, signal);
  }
}

async function lockedError(query: Query): Promise<MmliteError> {
  const [row] = await query(
    `SELECT l.pid::text AS pid, current_database() AS database FROM pg_locks l
      WHERE l.locktype = 'advisory' AND l.granted AND (l.classid::bigint << 32 | l.objid::bigint) = ${LOCK_KEY}
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
  );
  return new MmliteError(
    "conflict",
    `Cannot run beside database "${row?.database ?? ""}": another mmlite does, over backend ${
      row?.pid ?? "unknown"
    }`,
    { hint: "Stop the other mmlite first; one node is one database" },
  );
}
