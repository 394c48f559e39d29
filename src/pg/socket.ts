/**
 * The unix socket of a server that was named by a loopback address: about twice as fast for a walsender, which
 * sends every message by itself.
 */
import type pg from "pg";
import { closeClient, openClient } from "./client.ts";
import { isLoopback, type PostgresTarget, SOCKET_DIRECTORIES } from "./target.ts";

/** How long the look for a socket may hold up the start, milliseconds. */
const PROBE_TIMEOUT_MS = 3_000;

/** Differs between any two servers, and between two runs of one. */
const SERVER_IDENTITY = `SELECT concat_ws(' ', current_setting('port'), pg_postmaster_start_time(),
    (SELECT system_identifier FROM pg_control_system())) AS identity,
    (SELECT setting FROM pg_settings WHERE name = 'unix_socket_directories') AS directories`;

/**
 * The same database over the server's unix socket, if the target names it by a loopback address and a connection
 * over the socket reaches the very same server; otherwise the target as it is. Throws only if the target itself
 * cannot be reached.
 */
export async function preferSocket(target: PostgresTarget, signal?: AbortSignal): Promise<PostgresTarget> {
  if (!isLoopback(target.host)) return target;
  const server = await probe(target, signal);
  for (const host of socketDirectories(server.directories)) {
    const candidate: PostgresTarget = { ...target, host, ssl: false };
    try {
      if ((await probe(candidate, signal)).identity === server.identity) return candidate;
    } catch {
      // No socket there, or pg_hba.conf asks for something else on it: TCP works, so TCP it is.
    }
  }
  return target;
}

interface Probe {
  readonly identity: string;
  /** The setting `unix_socket_directories`; null if only superusers may see it. */
  readonly directories: string | null;
}

async function probe(target: PostgresTarget, signal: AbortSignal | undefined): Promise<Probe> {
  const client = await openClient(target, {
    applicationName: "mmlite",
    connectTimeoutMs: PROBE_TIMEOUT_MS,
    signal,
  });
  try {
    return await readProbe(client);
  } finally {
    await closeClient(client);
  }
}

async function readProbe(client: pg.Client): Promise<Probe> {
  const { rows: [row] } = await client.query<{ identity: string; directories: string | null }>(
    SERVER_IDENTITY,
  );
  return row;
}

/** A list of names by comma, quoted where they hold odd characters; `@` begins an abstract socket, not a file. */
function socketDirectories(setting: string | null): string[] {
  if (setting === null) return [...SOCKET_DIRECTORIES];
  return (setting.match(/"(?:[^"]|"")*"|[^,]+/g) ?? [])
    .map((part) => part.trim().replace(/^"|"$/g, "").replaceAll('""', '"'))
    .filter((part) => part.startsWith("/"));
}
