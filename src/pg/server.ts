/**
 * What a node needs to know of its own PostgreSQL: version, identity, settings, rights.
 */
import { MmliteError } from "../errors.ts";
import { type Lsn, parseLsn } from "../lsn.ts";
import type { Query } from "./query.ts";

/** The oldest major version with logical replication, and the oldest that mmlite is tested with. */
export const OLDEST_MAJOR = 10;
/** The first `server_version_num` that tells the origin of a row's version. */
export const ORIGINS_SINCE = 140000;

/** A server's identity and the settings that replication depends on. */
export interface ServerFacts {
  /** `server_version_num`, such as 180004. */
  readonly versionNumber: number;
  /** `server_version`, such as `18.4`. */
  readonly version: string;
  /** `pg_control_system().system_identifier`, a 64-bit integer as text. */
  readonly systemIdentifier: string;
  readonly timeline: number;
  readonly database: string;
  readonly user: string;
  readonly walLevel: string;
  readonly inRecovery: boolean;
  readonly trackCommitTimestamp: boolean;
  readonly canReplicate: boolean;
  readonly superuser: boolean;
  /** What the role lacks to apply changes, as GRANT statements without the role; empty where no GRANT can help. */
  readonly missingGrants: readonly string[];
}

/** The first major version in which setting session_replication_role can be granted. */
const GRANTABLE_MAJOR = 15;

/** Settings of an apply session that only superusers may set without a grant. */
const APPLY_PARAMETERS = ["session_replication_role", "deadlock_timeout"];
/** Functions that are nobody's but the superusers' without a grant. */
const ORIGIN_FUNCTIONS = [
  "pg_replication_origin_create",
  "pg_replication_origin_oid",
  "pg_replication_origin_session_reset",
  "pg_replication_origin_session_setup",
  "pg_replication_origin_xact_setup",
];

/** Reads the facts; works for a role without any right. */
export async function readServerFacts(query: Query): Promise<ServerFacts> {
  const [row] = await query(`SELECT
    current_setting('server_version_num') AS version_number, current_setting('server_version') AS version,
    (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier,
    (SELECT timeline_id::text FROM pg_control_checkpoint()) AS timeline,
    current_database()::text AS database, current_user::text AS "user",
    current_setting('wal_level') AS wal_level, pg_is_in_recovery()::text AS in_recovery,
    current_setting('track_commit_timestamp') AS track_commit_timestamp,
    rolreplication::text AS replication, rolsuper::text AS superuser
    FROM pg_roles WHERE rolname = current_user`);
  const text = (column: string) => row?.[column] ?? "";
  const versionNumber = Number(text("version_number"));
  const superuser = text("superuser") === "true";
  const grantable = !superuser && majorOf(versionNumber) >= GRANTABLE_MAJOR;
  return {
    versionNumber,
    version: text("version"),
    systemIdentifier: text("system_identifier"),
    timeline: Number(text("timeline")),
    database: text("database"),
    user: text("user"),
    walLevel: text("wal_level"),
    inRecovery: text("in_recovery") === "true",
    trackCommitTimestamp: text("track_commit_timestamp") === "on",
    canReplicate: text("replication") === "true" || superuser,
    superuser,
    missingGrants: grantable ? await readMissingGrants(query) : [],
  };
}

/** From 15 on; see {@link ServerFacts.missingGrants}. */
async function readMissingGrants(query: Query): Promise<string[]> {
  const rows = await query(
    `SELECT 'SET ON PARAMETER ' || name AS missing
       FROM unnest('{${APPLY_PARAMETERS.join()}}'::text[]) name WHERE NOT has_parameter_privilege(name, 'SET')
     UNION ALL
     SELECT 'EXECUTE ON FUNCTION pg_catalog.' || oid::regprocedure FROM pg_proc
      WHERE pronamespace = 'pg_catalog'::regnamespace AND proname IN ('${ORIGIN_FUNCTIONS.join("', '")}')
        AND NOT has_function_privilege(oid, 'EXECUTE')
     UNION ALL
     SELECT 'CREATE ON DATABASE ' || quote_ident(current_database())
      WHERE NOT has_database_privilege(current_database(), 'CREATE')`,
  );
  return rows.map(({ missing }) => `GRANT ${missing}`);
}

function majorOf(versionNumber: number): number {
  return Math.floor(versionNumber / 10_000);
}

/** Throws the first thing that makes replication impossible, with its remedy. */
export function requireUsable(facts: ServerFacts): void {
  const major = majorOf(facts.versionNumber);
  if (major < OLDEST_MAJOR) {
    throw new MmliteError(
      "server_setting",
      `Cannot use PostgreSQL ${facts.version}: logical replication needs 10`,
      {
        hint: "Upgrade the server",
      },
    );
  }
  if (facts.walLevel !== "logical") {
    throw new MmliteError(
      "server_setting",
      `Cannot read changes of database "${facts.database}": wal_level is ${facts.walLevel}, and logical is needed`,
      { hint: "Run ALTER SYSTEM SET wal_level = logical, then restart PostgreSQL" },
    );
  }
  if (facts.inRecovery) {
    throw new MmliteError(
      "server_setting",
      `Cannot use database "${facts.database}": the server is a standby`,
      {
        hint: "Point mmlite at the primary",
      },
    );
  }
  if (!facts.canReplicate) {
    throw new MmliteError(
      "permission",
      `Cannot read changes of database "${facts.database}": role "${facts.user}" has no REPLICATION right`,
      { hint: `Run ALTER ROLE "${facts.user}" REPLICATION, or connect as a superuser` },
    );
  }
  requireApplyRights(facts, major);
}

function requireApplyRights(facts: ServerFacts, major: number): void {
  if (facts.superuser) return;
  const lacking = `Cannot apply changes to database "${facts.database}": role "${facts.user}"`;
  if (major < GRANTABLE_MAJOR) {
    throw new MmliteError(
      "permission",
      `${lacking} is not a superuser, and PostgreSQL ${major} lets only superusers set session_replication_role`,
      { hint: `Run ALTER ROLE "${facts.user}" SUPERUSER, or connect as a superuser` },
    );
  }
  if (facts.missingGrants.length === 0) return;
  const statements = facts.missingGrants.map((grant) => `${grant} TO "${facts.user}"`);
  throw new MmliteError("permission", `${lacking} lacks rights that only a superuser can grant`, {
    hint: `As a superuser run, in that database: ${statements.join("; ")}`,
  });
}

/** A moment of a server. */
export interface WalClock {
  /** Microseconds since 2000-01-01 UTC. */
  readonly timestamp: bigint;
  /** Ids of the transactions that clients had begun to write; those that may not be seen are one of no number. */
  readonly writing: ReadonlySet<string>;
  readonly walLsn: Lsn;
}

/**
 * The server's clock, who is writing, and where its WAL is written to, in this order: `now()` was there before the
 * others are read. Sessions of mmlite do not count, which write nothing that is sent on. At the end of a page the
 * position counts the header of a page that is not begun, so that it may be reached with the next record only.
 */
export async function readWalClock(query: Query): Promise<WalClock> {
  const [row] = await query(
    `SELECT (extract(epoch FROM now() - timestamptz '2000-01-01 00:00:00Z') * 1000000)::bigint::text AS timestamp,
       (SELECT string_agg(w.xid, ' ') FROM (
          SELECT coalesce(a.backend_xid::text, '?') AS xid FROM pg_stat_activity a
           WHERE (a.backend_xid IS NOT NULL OR a.query = '<insufficient privilege>')
             AND (a.application_name = 'mmlite' OR a.application_name LIKE 'mmlite apply %') IS NOT TRUE
          UNION ALL SELECT p.transaction::text FROM pg_prepared_xacts p) w) AS writing,
       pg_current_wal_insert_lsn()::text AS lsn`,
  );
  return {
    timestamp: BigInt(row!.timestamp!),
    writing: new Set(row!.writing?.split(" ")),
    walLsn: parseLsn(row!.lsn!),
  };
}

/** The server's clock, microseconds since 2000-01-01 UTC. */
export async function readServerTime(query: Query): Promise<bigint> {
  const [row] = await query(
    "SELECT (extract(epoch FROM clock_timestamp() - timestamptz '2000-01-01 00:00:00Z') * 1000000)::bigint::text AS now",
  );
  return BigInt(row!.now!);
}

/** Where the server's WAL stands. */
export async function readWalLsn(query: Query): Promise<Lsn> {
  const [row] = await query("SELECT pg_current_wal_flush_lsn()::text AS lsn");
  return parseLsn(row!.lsn!);
}
