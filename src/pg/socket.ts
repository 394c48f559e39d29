/**
 * The two ways to a server on this machine, whichever was named: its unix socket, where a statement and its reply
 * are there soonest, and TCP over the loopback, which is better for a walsender. That one sends every message by itself:
 * a unix socket holds some 280 of them and hands them over one by one, TCP puts them together and holds thousands
 * (measured, one million rows read at the reader's ease: 633,000 messages a second for 2.0 µs of both processes
 * each, against 447,000 for 3.7 µs). And it is better for a session that applies: a unix socket takes 208 KiB ahead of
 * the server, a few milliseconds of its work, which a busy machine may keep us from filling up; TCP takes megabytes.
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

/** The loopback's address: what names the same machine as a unix socket. */
const LOOPBACK = "127.0.0.1";

/**
 * The same database over TCP, if the target names it by a unix socket and a connection over the loopback reaches the
 * very same server; otherwise the target as it is. Throws only if the target itself cannot be reached.
 */
export async function preferTcp(target: PostgresTarget, signal?: AbortSignal): Promise<PostgresTarget> {
  if (!target.host.startsWith("/")) return target;
  const server = await probe(target, signal);
  const candidate: PostgresTarget = { ...target, host: LOOPBACK };
  try {
    return (await probe(candidate, signal)).identity === server.identity ? candidate : target;
  } catch {
    // It listens on no address, or wants a password there that it does not want on the socket.
    return target;
  }
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
