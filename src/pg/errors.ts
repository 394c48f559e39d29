/**
 * The one place where the errors of PostgreSQL and of its sockets become errors of ours.
 *
 * SQLSTATEs: https://www.postgresql.org/docs/current/errcodes-appendix.html. A server's DETAIL, HINT and
 * CONTEXT may hold row values and are never used; neither is a message that may quote values.
 */
import { MmliteError } from "../errors.ts";
import type { ErrorKind } from "../errors.ts";

/** What we read of an error, whether it came from the server, from a socket or from the driver. */
interface ForeignError {
  readonly message?: unknown;
  /** SQLSTATE, or the system's name of a socket error. */
  readonly code?: unknown;
  readonly severity?: unknown;
  readonly schema?: unknown;
  readonly table?: unknown;
  readonly column?: unknown;
  readonly constraint?: unknown;
  /** The function in the server that raised it. */
  readonly routine?: unknown;
  /** Its CONTEXT: of this only the name of a function is read. */
  readonly where?: unknown;
  readonly cause?: unknown;
}

interface Rule {
  readonly kind: ErrorKind;
  /** Replaces the server's message. */
  readonly why?: string;
  readonly hint?: string;
}

const SHUTDOWN: Rule = { kind: "unreachable", why: "PostgreSQL is shutting down or starting up" };

const RULES: Readonly<Record<string, Rule>> = {
  "28P01": {
    kind: "permission",
    hint: "Give the right password in the URL, in PGPASSWORD or in the password file, or correct pg_hba.conf",
  },
  "28000": {
    kind: "permission",
    hint: "Check the user name and its LOGIN right, and add a line for it to pg_hba.conf",
  },
  "3D000": { kind: "config", hint: "Create the database, or name another one in the PostgreSQL URL" },
  "53300": {
    kind: "transient",
    hint: "Raise max_connections, or max_wal_senders for replication, and restart PostgreSQL",
  },
  "53400": {
    kind: "transient",
    hint:
      "Raise max_replication_slots (from 18 on also max_active_replication_origins) and restart PostgreSQL",
  },
  "53100": { kind: "transient", hint: "Free disk space on the PostgreSQL server" },
  "53200": { kind: "transient", hint: "Give the PostgreSQL server more memory" },
  "58030": { kind: "transient", hint: "Check the disks of the PostgreSQL server" },
  "57P01": SHUTDOWN,
  "57P02": SHUTDOWN,
  "57P03": SHUTDOWN,
  "57P05": { kind: "unreachable", hint: "Set idle_session_timeout to 0 for this role" },
  "57014": { kind: "transient" },
  "55006": { kind: "transient" },
  "55P03": { kind: "transient" },
  "40001": { kind: "transient" },
  "40P01": { kind: "transient" },
  "25P03": { kind: "transient" },
  "25P04": { kind: "transient" },
  "25006": {
    kind: "transient",
    hint: "Connect to the primary: this server is a standby or read-only",
  },
};

/** By the class of a SQLSTATE, where it has no rule of its own: a broken connection, resources that are short. */
const CLASS_RULES: Readonly<Record<string, Rule>> = {
  "08": { kind: "unreachable" },
  "53": { kind: "transient", hint: "Give the PostgreSQL server what it lacks; it is tried again meanwhile" },
};

/** Patterns over a server's message where one SQLSTATE means several things; the names in it stay untranslated. */
const MESSAGE_RULES: readonly { code: string; pattern: RegExp; rule: Rule }[] = [
  {
    code: "28000",
    pattern: /no encryption|SSL off/,
    rule: { kind: "permission", hint: "Add sslmode=require to the PostgreSQL URL, or correct pg_hba.conf" },
  },
  {
    code: "55000",
    pattern: /wal_level/,
    rule: { kind: "server_setting", hint: "Set wal_level = logical and restart PostgreSQL" },
  },
  {
    code: "55000",
    pattern: /track_commit_timestamp/,
    rule: { kind: "server_setting", hint: "Set track_commit_timestamp = on and restart PostgreSQL" },
  },
  {
    code: "55000",
    pattern: /max_replication_slots|max_active_replication_origins|max_wal_senders/,
    rule: { kind: "server_setting" },
  },
  { code: "55000", pattern: /replication slot/, rule: { kind: "slot_lost" } },
  { code: "42704", pattern: /replication slot|publication/, rule: { kind: "slot_lost" } },
];

/** SQLSTATE 55000 from the function in the server that looks whether a database may be connected to. */
const CLOSED_DATABASE: Rule = {
  // Not unreachable: connections that are open go on.
  kind: "transient",
  hint: "ALTER DATABASE … ALLOW_CONNECTIONS true; until then it is tried again",
};

/** SQLSTATE 42501 by what was refused. */
const GRANTS: readonly { pattern: RegExp; hint: string }[] = [
  {
    pattern: /pg_replication_origin/,
    hint: "From PostgreSQL 14 on: GRANT EXECUTE on the function to the role; below, connect as a superuser",
  },
  {
    pattern: /session_replication_role/,
    hint:
      "From PostgreSQL 15 on: GRANT SET ON PARAMETER session_replication_role TO the role; below, connect as a superuser",
  },
  {
    pattern: /output plugin/,
    hint: "Add pgoutput to output_plugin_libraries and reload PostgreSQL",
  },
  {
    pattern: /replication|wal ?sender/i,
    hint: "ALTER ROLE … REPLICATION for the role that connects",
  },
  {
    pattern: /for database/,
    hint: "GRANT CREATE ON DATABASE … to the role that connects",
  },
  {
    pattern: /must be owner/,
    hint: "Connect as the owner of the table, or as a member of the role that owns it",
  },
];

/** Socket errors by the system's name, and those of the `postgres` package by its own. */
const SOCKET_REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: "connection refused",
  ENOENT: "no such socket",
  ENOTFOUND: "host name not found",
  EAI_AGAIN: "host name not found",
  ETIMEDOUT: "timed out",
  EHOSTUNREACH: "no route to host",
  ENETUNREACH: "network unreachable",
  ECONNRESET: "connection reset",
  ECONNABORTED: "connection reset",
  EPIPE: "connection broken",
  EACCES: "no access to the socket",
  CONNECT_TIMEOUT: "timed out",
  CONNECTION_CLOSED: "the connection was lost",
  CONNECTION_ENDED: "the connection was lost",
  CONNECTION_DESTROYED: "the connection was lost",
};

/**
 * Classes of PostgreSQL's own whose messages quote no values. Not among them: data exceptions (22), violated
 * constraints (23), errors of functions (2F, 38, 39, P0) and of other servers (HV).
 */
const VALUE_FREE_CLASSES = new Set(
  ("01 02 03 08 09 0A 0B 0F 0L 0P 0Z 20 21 24 25 26 27 28 2B 2D 34 3B 3D 3F 40 42 44 53 54 55 57 58 72 F0 XX")
    .split(" "),
);

/** What a constraint refuses, in words of ours. */
const REFUSED: Readonly<Record<string, string>> = {
  "23502": "a null value",
  "23503": "a row without its counterpart",
  "23505": "a duplicate key",
  "23P01": "an overlapping row",
};

const SQLSTATE = /^[0-9A-Z]{5}$/;
const LOST_CONNECTION =
  /Connection terminated|timeout expired|not queryable|Client was closed|socket|closed/i;

/**
 * Maps whatever a PostgreSQL driver threw to an error of ours: `Cannot <doing>: <why>`.
 *
 * `doing` names the action and its object, such as `connect to app at /run/postgresql:5432`. An error of ours
 * comes back as it is. A SQLSTATE without a rule becomes `internal`, its original the cause: a caller that
 * knows better (apply) decides by {@link sqlState}.
 */
export function mapPostgresError(thrown: unknown, doing: string): MmliteError {
  if (thrown instanceof MmliteError) return thrown;
  const error = asForeign(thrown);
  const state = sqlState(error);
  const rule = state === undefined ? socketRule(error) : serverRule(state, error);
  const why = rule.why ?? describeServerError(error);
  return new MmliteError(rule.kind, `Cannot ${doing}: ${why}`, { hint: rule.hint, cause: thrown });
}

/** The SQLSTATE of an error that the server sent, also when it is the cause of an error of ours. */
export function sqlState(thrown: unknown): string | undefined {
  if (thrown instanceof MmliteError) return thrown.cause === undefined ? undefined : sqlState(thrown.cause);
  const { code, severity } = asForeign(thrown);
  if (typeof code !== "string" || !SQLSTATE.test(code)) return undefined;
  // EPIPE is five capitals too; only the server's errors have a severity.
  return severity === undefined ? undefined : code;
}

/** Whether the server said that it is shutting down, crashing or starting (57P01, 57P02, 57P03). */
export function isShutdown(thrown: unknown): boolean {
  return RULES[sqlState(thrown) ?? ""] === SHUTDOWN;
}

/** What the server said, without row values: its message, or what was refused where the message may quote values. */
export function describeServerError(thrown: unknown): string {
  const error = asForeign(thrown);
  const state = sqlState(error);
  if (state === undefined || isFreeOfValues(state, error)) return lowerFirst(String(error.message ?? thrown));
  const what = REFUSED[state] ?? (/^2[23]/.test(state) ? "a value" : "a change");
  const column = typeof error.column === "string" ? ` in column "${error.column}"` : "";
  const table = typeof error.table === "string" ? ` of "${error.schema}.${error.table}"` : "";
  const constraint = typeof error.constraint === "string" ? ` by "${error.constraint}"` : raisedBy(error);
  return `${what}${column}${table} was refused${constraint} (SQLSTATE ${state})`;
}

/** The PL/pgSQL function that an error came from, where the server names it first. */
function raisedBy({ where }: ForeignError): string {
  const [, name] = /^PL\/pgSQL function ([^"\n]+\)) line \d+ at /.exec(String(where ?? "")) ?? [];
  return name === undefined ? "" : ` by function ${name}`;
}

/** What functions of users raise may say anything, under any SQLSTATE: PL/pgSQL's RAISE is known by its routine. */
function isFreeOfValues(state: string, { routine }: ForeignError): boolean {
  return VALUE_FREE_CLASSES.has(state.slice(0, 2)) && routine !== "exec_stmt_raise";
}

function asForeign(thrown: unknown): ForeignError {
  return typeof thrown === "object" && thrown !== null ? thrown : { message: thrown };
}

function serverRule(state: string, { message: said, routine }: ForeignError): Rule {
  const message = String(said);
  if (state === "42501") {
    return { kind: "permission", hint: GRANTS.find((grant) => grant.pattern.test(message))?.hint };
  }
  if (state === "55000" && routine === "CheckMyDatabase") return CLOSED_DATABASE;
  const special = MESSAGE_RULES.find((entry) => entry.code === state && entry.pattern.test(message));
  if (special !== undefined) return special.rule;
  const rule = RULES[state];
  if (rule !== undefined) return rule;
  return CLASS_RULES[state.slice(0, 2)] ?? { kind: "internal" };
}

function socketRule(error: ForeignError): Rule {
  const reason = SOCKET_REASONS[String(error.code)];
  if (reason !== undefined) return { kind: "unreachable", why: reason };
  const message = String(error.message ?? "");
  if (/SSL connection/.test(message)) {
    return {
      kind: "config",
      why: "the server does not speak TLS",
      hint: "Remove sslmode or set up TLS there",
    };
  }
  if (/certificate|altname/i.test(message)) {
    return { kind: "config", why: lowerFirst(message), hint: "Check sslrootcert, sslcert and sslmode" };
  }
  if (message === "timeout expired") return { kind: "unreachable", why: "timed out" };
  if (LOST_CONNECTION.test(message)) return { kind: "unreachable", why: "the connection was lost" };
  return { kind: "internal" };
}

function lowerFirst(text: string): string {
  return /^[A-Z][a-z]/.test(text) ? text[0].toLowerCase() + text.slice(1) : text;
}

/** Whether a statement met another session's lock, and may be tried again: it waited too long, or for each other. */
export function isLockTrouble(thrown: unknown): boolean {
  return ["55P03", "40P01"].includes(sqlState(thrown) ?? "");
}
