/**
 * The control plane's connections: a small pool of the `postgres` package for catalog, status and bookkeeping.
 *
 * Never for the replication stream, COPY or apply: those need one session each under our own control.
 */
import { connect, type Socket } from "node:net";
import postgres from "postgres";
import { KEEPALIVE_SETTINGS } from "./client.ts";
import { mapPostgresError } from "./errors.ts";
import type { Query, Row } from "./query.ts";
import { VALUE_SETTINGS } from "./replication.ts";
import type { PostgresTarget } from "./target.ts";

/** Most control connections at a time; the rest of a node's SQL waits its turn. */
const POOL_SIZE = 3;
/** Seconds after which an unused control connection is closed. */
const IDLE_TIMEOUT_S = 30;
/** Seconds that a control connection may take to come up. */
const CONNECT_TIMEOUT_S = 10;
/** How long a statement may wait for a lock, milliseconds: one that is held for long must not hold every other. */
const LOCK_TIMEOUT_MS = 5_000;
/** Seconds that running statements may take when connections are let go of. */
const CLOSE_TIMEOUT_S = 1;

/** A pool that runs one statement at a time per connection and returns text. */
export interface Control {
  /** Runs a statement; `doing` completes "Cannot …" in the error. */
  run(doing: string, text: string, params?: readonly (string | null)[]): Promise<readonly Row[]>;
  /** The same as a `Query`, for functions that take one. */
  query(doing: string): Query;
  /** Lets go of every connection, so that the server can stop; the next statement opens new ones. */
  release(): Promise<void>;
  /** Closes every connection for good, waiting at most a second for running statements. */
  close(): Promise<void>;
}

// bool, bytea, int8, int2, int4, oid, json, float4, float8, date, timestamp, timestamptz, jsonb, pg_lsn:
// the package would parse and re-print these; as text they pass unchanged.
const TEXT_TYPES = [16, 17, 20, 21, 23, 26, 114, 700, 701, 1082, 1114, 1184, 3802, 3220];

/** Opens the pool; connects on first use. */
export function openControl(target: PostgresTarget, applicationName: string): Control {
  let sql = openPool(target, applicationName);
  const run: Control["run"] = async (doing, text, params) => {
    try {
      const query = params === undefined
        ? sql.unsafe(text).simple()
        : sql.unsafe(text, params as string[], { prepare: true });
      const result = await query;
      return lastResult(result as unknown as Row[] | Row[][]);
    } catch (thrown) {
      throw mapPostgresError(thrown, doing);
    }
  };
  return {
    run,
    query: (doing) => (text, params) => run(doing, text, params as (string | null)[] | undefined),
    release: () => {
      const held = sql;
      sql = openPool(target, applicationName);
      return held.end({ timeout: CLOSE_TIMEOUT_S });
    },
    close: () => sql.end({ timeout: CLOSE_TIMEOUT_S }),
  };
}

function openPool(target: PostgresTarget, applicationName: string): postgres.Sql {
  return postgres({
    host: target.host,
    port: target.port,
    database: target.database,
    username: target.user,
    ...(target.password === undefined ? {} : { password: target.password }),
    ssl: target.ssl,
    ...{ socket: () => openSocket(target) },
    max: POOL_SIZE,
    idle_timeout: IDLE_TIMEOUT_S,
    connect_timeout: CONNECT_TIMEOUT_S,
    fetch_types: false,
    onnotice: () => {},
    connection: {
      ...KEEPALIVE_SETTINGS,
      // Rows that other nodes ask for are read here, too.
      ...VALUE_SETTINGS,
      application_name: applicationName,
      search_path: "pg_catalog",
      statement_timeout: 0,
      lock_timeout: LOCK_TIMEOUT_MS,
      // What is recorded is on this server's disk when it is acted upon; no standby is waited for.
      synchronous_commit: "local",
      default_transaction_read_only: false,
      // Two nodes may add each other at once: an update that meets another waits, and does not fail.
      default_transaction_isolation: "read committed",
      standard_conforming_strings: "on",
    },
    types: {
      text: { to: 25, from: TEXT_TYPES, serialize: String, parse: (text: string) => text },
    },
  });
}

/**
 * A socket that fails when the other end closes it. The package takes a close before the first answer for a reason
 * to connect again, at once and for ever: a proxy whose server is away would be dialled in a tight loop.
 */
function openSocket({ host, port }: PostgresTarget): Socket {
  const socket = host.startsWith("/") ? connect(`${host}/.s.PGSQL.${port}`) : connect(port, host);
  socket.once("end", () => socket.destroy(new Error("The server closed the connection")));
  return socket;
}

/** Rows of the last of several statements; of the only one otherwise. */
function lastResult(result: Row[] | Row[][]): readonly Row[] {
  const last = result[result.length - 1];
  return Array.isArray(last) ? last : result as Row[];
}
