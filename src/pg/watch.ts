/**
 * An idle connection that notices at once when PostgreSQL goes down.
 *
 * A fast shutdown tells ordinary sessions so, but a walsender waits until its reader has confirmed everything: as
 * long as a replication stream with un-acked transactions stays open, PostgreSQL cannot stop.
 */
import { toMmliteError } from "../errors.ts";
import { closeClient, openClient } from "./client.ts";
import { mapPostgresError } from "./errors.ts";
import { describeTarget, type PostgresTarget } from "./target.ts";

/** A running watch. */
export interface ServerWatch {
  /** Aborted once PostgreSQL shuts down or the connection is lost; its reason is the `unreachable` error. */
  readonly down: AbortSignal;
  /** Ends the watch without aborting `down`. */
  close(): Promise<void>;
}

/** Opens the watch. Throws as `openClient` does. */
export async function watchServer(target: PostgresTarget, signal?: AbortSignal): Promise<ServerWatch> {
  const client = await openClient(target, { applicationName: "mmlite watch", signal });
  const down = new AbortController();
  const doing = `stay connected to ${describeTarget(target)}`;
  client.on("error", (error) => down.abort(mapPostgresError(error, doing)));
  try {
    // Exists from 14 on, and may be set for the role.
    await client.query(
      "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'",
    );
  } catch (error) {
    throw toMmliteError(mapPostgresError(error, doing));
  }
  return { down: down.signal, close: () => closeClient(client) };
}
