/**
 * Opens the walsender connection that reads one slot through pgoutput.
 *
 * Protocol: https://www.postgresql.org/docs/current/protocol-replication.html.
 */
// @ts-types="@types/pg"
import pg from "pg";
import { MmliteError } from "../errors.ts";
import { formatLsn, type Lsn } from "../lsn.ts";
import { destroyClient, openClient, passAnyBytes } from "./client.ts";
import { mapPostgresError } from "./errors.ts";
import { makeDrawnSocket } from "./drawn_socket.ts";
import { type Query, queryWith } from "./query.ts";
import type { PostgresTarget } from "./target.ts";
import { type ReplicationStream, WalsenderStream } from "./walsender_stream.ts";

/**
 * Settings under which values are turned into text, the same on every node and those of the stock subscription
 * (libpqwalreceiver) where it sets them: what one node prints, every other one must read as the same value.
 */
export const VALUE_SETTINGS: Readonly<Record<string, string>> = {
  client_encoding: "UTF8",
  datestyle: "ISO",
  intervalstyle: "postgres",
  extra_float_digits: "3",
  bytea_output: "hex",
  timezone: "UTC",
  lc_monetary: "C",
  xmloption: "content",
  // Names in regclass and its kin are printed with their schema.
  search_path: "",
};

/** The first release whose pgoutput sends values in binary form. */
export const BINARY_SINCE = 140_000;

/** What {@link openReplicationStream} needs. */
export interface ReplicationOptions {
  readonly target: PostgresTarget;
  readonly slot: string;
  readonly publications: readonly string[];
  /** Transactions that end after this come; below the slot's own position the server silently takes that. */
  readonly startLsn: Lsn;
  /** What the slot is confirmed to already: reported until {@link ReplicationStream.confirm} moves it. */
  readonly flushLsn: Lsn;
  /** `server_version_num`. */
  readonly serverVersion: number;
  /** How many walsenders of this node decode at once, with whom this one shares memory; PostgreSQL's own default where left out. */
  readonly sharers?: number;
  /** Whether values come in the binary form of their types, not as text; from {@link BINARY_SINCE} on. */
  readonly binary?: boolean;
  readonly signal?: AbortSignal;
}

/** From 17 on transaction_timeout ends a walsender inside a transaction that takes longer to decode or to be read. */
const NO_TIMEOUTS = `SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN
  ('transaction_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout', 'statement_timeout')`;
/**
 * What all walsenders of mmlite may hold of large transactions, kB, before they write them to disk to read them again:
 * twice the server's shared buffers, at most this, and each of them no less than PostgreSQL's own default. One that was
 * opened while there were fewer keeps its larger share until it is opened again.
 */
const MAX_DECODING_MEMORY_KB = 262_144;
const MIN_DECODING_MEMORY_KB = 65_536;
/** Longest time between status updates, milliseconds; the stock subscription's default. */
const STATUS_INTERVAL_MS = 10_000;
/**
 * The same up to 12, milliseconds. There a walsender may fall asleep after the last record without the keepalive that
 * says how far it has read, and any status update wakes it: with the longer interval that came up to 10 s late.
 */
const STATUS_INTERVAL_UP_TO_12_MS = 200;

/**
 * Opens a walsender session and starts the slot. A slot that another session still holds is a `transient`
 * error that names its PID; a slot or publication that is gone is `slot_lost`.
 */
export async function openReplicationStream(options: ReplicationOptions): Promise<ReplicationStream> {
  const { target, slot, signal } = options;
  const drawn = target.ssl === false ? makeDrawnSocket() : undefined;
  const client = await openClient(target, {
    applicationName: `mmlite ${slot}`,
    replication: true,
    socket: drawn?.socket,
    // A publication that is missing is told of by a warning.
    settings: { ...VALUE_SETTINGS, client_min_messages: "warning" },
    signal,
  });
  const doing = `read replication slot "${slot}"`;
  try {
    await passAnyBytes(client);
    await client.query(NO_TIMEOUTS);
    if (options.sharers !== undefined) await allowDecodingMemory(queryWith(client), options.sharers);
    const timeoutMs = await readSenderTimeout(client);
    const stream = new WalsenderStream(client, {
      doing,
      startLsn: options.startLsn,
      flushLsn: options.flushLsn,
      drawn,
      signal,
    });
    await stream.start(startCommand(options), statusInterval(timeoutMs, options.serverVersion));
    if (signal?.aborted) throw new MmliteError("aborted", `Cannot ${doing}: stopped`);
    return stream;
  } catch (error) {
    destroyClient(client);
    throw mapPostgresError(error, doing);
  }
}

/**
 * Lets a walsender decode larger transactions in memory than PostgreSQL does by default. What an operator has set, for the
 * server, the database or the role, stays. The setting is there from 13 on.
 */
export async function allowDecodingMemory(query: Query, sharers: number): Promise<void> {
  await query(
    `SELECT pg_catalog.set_config(name, greatest(${MIN_DECODING_MEMORY_KB}, least(${MAX_DECODING_MEMORY_KB},
       2 * pg_catalog.pg_size_bytes(pg_catalog.current_setting('shared_buffers')) / 1024) / ${
      Math.max(1, sharers)
    })::text, false)
     FROM pg_catalog.pg_settings WHERE name = 'logical_decoding_work_mem' AND source = 'default'`,
  );
}

/** `START_REPLICATION` for pgoutput, protocol 1. */
function startCommand({ slot, publications, startLsn, serverVersion, binary }: ReplicationOptions): string {
  const names = publications.map((name) => pg.escapeIdentifier(name)).join(",");
  const settings = ["proto_version '1'", `publication_names ${pg.escapeLiteral(names)}`];
  if (serverVersion >= 160_000) settings.push("origin 'none'");
  if (binary) settings.push("binary 'true'");
  const from = formatLsn(startLsn);
  return `START_REPLICATION SLOT ${pg.escapeIdentifier(slot)} LOGICAL ${from} (${settings.join(", ")})`;
}

/** `wal_sender_timeout` of this session, milliseconds; 0 means none. */
async function readSenderTimeout(client: pg.Client): Promise<number> {
  const { rows } = await client.query("SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout'");
  return Number(rows[0].setting);
}

function statusInterval(senderTimeoutMs: number, serverVersion: number): number {
  const intervalMs = serverVersion >= 130_000 ? STATUS_INTERVAL_MS : STATUS_INTERVAL_UP_TO_12_MS;
  return senderTimeoutMs > 0 ? Math.min(intervalMs, senderTimeoutMs / 3) : intervalMs;
}
