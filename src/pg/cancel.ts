/**
 * Breaking a session off so that the server knows: below PostgreSQL 14 it would go on with a statement, and hold its
 * snapshot and locks, until that ends by itself, because it only looks whether anybody listens when it answers.
 */
import { type Client, closeClient, destroyClient, openClient } from "./client.ts";
import { queryWith } from "./query.ts";
import type { PostgresTarget } from "./target.ts";

/** How long the server may take to hear of it, milliseconds: it is no matter for whoever stops. */
const CANCEL_TIMEOUT_MS = 2_000;

/** The driver knows its session's process without typing it. */
interface Session {
  readonly processID?: number | null;
}

/**
 * Breaks a connection off at once, and has the server cancel what runs on it, from another connection. Resolves once
 * the server has been told, or could not be; never throws.
 */
export async function cancelClient(
  client: Client,
  { target, applicationName }: { readonly target: PostgresTarget; readonly applicationName: string },
): Promise<void> {
  const pid = (client as Session).processID;
  destroyClient(client);
  if (pid == null) return;
  try {
    const canceller = await openClient(target, {
      applicationName: "mmlite cancel",
      connectTimeoutMs: CANCEL_TIMEOUT_MS,
    });
    const late = setTimeout(() => destroyClient(canceller), CANCEL_TIMEOUT_MS);
    try {
      // By its name too: the process may be over, and its number another one's.
      await queryWith(canceller)(
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND application_name = $2",
        [String(pid), applicationName],
      );
    } finally {
      clearTimeout(late);
      await closeClient(canceller);
    }
  } catch {
    // Without a server nothing runs on.
  }
}
