/**
 * One connection to the local PostgreSQL, by the `pg` package, with values left as the text that came.
 *
 * Settings travel in the startup packet, so that no statement ever runs without them.
 */
import type { Buffer } from "node:buffer";
import type { Socket } from "node:net";
// @ts-types="@types/pg"
import pg from "pg";
import { MmliteError } from "../errors.ts";
import { mapPostgresError } from "./errors.ts";
import { describeTarget, type PostgresTarget } from "./target.ts";

/** How long connecting and authenticating may take, milliseconds. */
export const CONNECT_TIMEOUT_MS = 10_000;
/** Idle time before TCP keepalive probes, milliseconds: a silently dead server is noticed in minutes. */
const KEEPALIVE_DELAY_MS = 10_000;
/**
 * By these the server notices within half a minute that the machine of a session is gone, and lets go of what the
 * session holds; seconds, and a count. They mean nothing on a unix socket.
 */
export const KEEPALIVE_SETTINGS = {
  tcp_keepalives_idle: "10",
  tcp_keepalives_interval: "5",
  tcp_keepalives_count: "3",
} as const;
/**
 * Settings of every session. Without a search path no function that a user made is called in place of PostgreSQL's
 * own (CVE-2018-1058): tables of ours are named with their schema.
 */
const SESSION_SETTINGS: Readonly<Record<string, string>> = {
  client_encoding: "UTF8",
  search_path: "",
  ...KEEPALIVE_SETTINGS,
};
/** How long a polite end may take before the socket is destroyed, milliseconds. */
const CLOSE_TIMEOUT_MS = 1_000;

/** What {@link openClient} takes besides the target. */
export interface ClientOptions {
  /** Shown in `pg_stat_activity`. */
  readonly applicationName: string;
  /** Opens a walsender session on the database. */
  readonly replication?: boolean;
  /** Server settings of the session, sent at startup; without them it has UTF-8 and no search path. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Ends connecting; the open connection is no longer bound to it. */
  readonly signal?: AbortSignal;
  /** Milliseconds; {@link CONNECT_TIMEOUT_MS} where left out. */
  readonly connectTimeoutMs?: number;
  /** Is connected in place of one of the driver's own; not for TLS. */
  readonly socket?: Socket;
}

/** A walsender session, which the driver offers without typing it. */
interface Config extends pg.ClientConfig {
  readonly replication?: "database";
}

/** An open connection; other folders hand it on without looking inside. */
export type Client = pg.Client;

/**
 * Opens a connection. Throws an error of ours that names the target. The client never raises an unhandled
 * `error`: a lost connection shows in the next query, and to whoever listens.
 */
export async function openClient(target: PostgresTarget, options: ClientOptions): Promise<pg.Client> {
  const doing = `connect to ${describeTarget(target)}`;
  if (options.signal?.aborted) throw new MmliteError("aborted", `Cannot ${doing}: stopped`);
  const client = new pg.Client(clientConfig(target, options));
  client.on("error", () => {});
  const stop = () => destroyClient(client);
  options.signal?.addEventListener("abort", stop, { once: true });
  try {
    await client.connect();
    return client;
  } catch (error) {
    destroyClient(client);
    if (options.signal?.aborted) throw new MmliteError("aborted", `Cannot ${doing}: stopped`);
    throw mapPostgresError(error, doing);
  } finally {
    options.signal?.removeEventListener("abort", stop);
  }
}

/** Lets text of a SQL_ASCII database pass as the bytes it is: it may be no valid UTF-8, which would be refused. */
export async function passAnyBytes(client: pg.Client): Promise<void> {
  await client.query(
    "SELECT set_config('client_encoding', 'SQL_ASCII', false) WHERE current_setting('server_encoding') = 'SQL_ASCII'",
  );
}

/** Ends a connection politely, or by force after a second; never throws. */
export async function closeClient(client: pg.Client): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const forced = new Promise<void>((resolve) => {
    timer = setTimeout(() => {
      destroyClient(client);
      resolve();
    }, CLOSE_TIMEOUT_MS);
  });
  await Promise.race([client.end().catch(() => {}), forced]);
  clearTimeout(timer);
}

/** Breaks a connection off at once; what runs on it fails. */
export function destroyClient(client: pg.Client): void {
  clientConnection(client).stream.destroy();
}

/** The driver's connection under a client: its socket and its message writers. */
export function clientConnection(client: pg.Client): pg.Connection {
  return (client as unknown as { connection: pg.Connection }).connection;
}

function clientConfig(target: PostgresTarget, options: ClientOptions): Config {
  return {
    host: target.host,
    port: target.port,
    database: target.database,
    user: target.user,
    // A function, because the driver would replace an absent password by its own look-ups.
    password: () => passwordOf(target),
    ssl: target.ssl,
    sslnegotiation: "postgres",
    application_name: options.applicationName,
    options: startupOptions(options.settings ?? {}),
    keepAlive: true,
    keepAliveInitialDelayMillis: KEEPALIVE_DELAY_MS,
    connectionTimeoutMillis: options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS,
    types: { getTypeParser: () => rawText },
    ...(options.replication ? { replication: "database" } : {}),
    ...(options.socket ? { stream: () => options.socket! } : {}),
  };
}

function passwordOf(target: PostgresTarget): string {
  if (target.password !== undefined) return target.password;
  throw new MmliteError(
    "permission",
    `Cannot connect to ${describeTarget(target)}: the server asks user "${target.user}" for a password`,
    { hint: "Give it in the URL, in PGPASSWORD or in the password file, or use peer authentication" },
  );
}

/** Settings as the `options` of a startup packet: `-c name=value`, with blanks and backslashes escaped. */
function startupOptions(settings: Readonly<Record<string, string>>): string {
  return Object.entries({ ...SESSION_SETTINGS, ...settings })
    .map(([name, value]) => `-c ${name}=${value.replace(/[\s\\]/g, "\\$&")}`)
    .join(" ");
}

function rawText(value: string | Buffer): string {
  return typeof value === "string" ? value : value.toString("latin1");
}
