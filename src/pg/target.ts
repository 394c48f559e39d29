/**
 * Where the local PostgreSQL is: its URL, the libpq environment and the password file, read once.
 *
 * Understood as libpq does (https://www.postgresql.org/docs/current/libpq-connect.html), except that several
 * hosts, service files and `sslmode=prefer` with a fallback are not offered.
 */
import { existsSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { userInfo } from "node:os";
import { parse as parseConnectionUrl } from "pg-connection-string";
import { MmliteError } from "../errors.ts";

/** Everything needed to connect. */
export interface PostgresTarget {
  /** Host name or address; an absolute directory means the unix socket in it. */
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
  readonly password?: string;
  /** False for plain connections, else the options of `tls.connect`. */
  readonly ssl: false | Readonly<Record<string, unknown>>;
}

/** The environment that a target is completed from, such as `process.env`. */
export type Environment = Readonly<Record<string, string | undefined>>;

const DEFAULT_PORT = 5432;
/** Where servers put their socket: Debian's and Red Hat's packages, and PostgreSQL's own default. */
export const SOCKET_DIRECTORIES = ["/var/run/postgresql", "/tmp"];

/** Parameters that take part in the target. */
const USED_PARAMETERS = [
  "host",
  "port",
  "user",
  "password",
  "dbname",
  "passfile",
  "sslmode",
  "sslcert",
  "sslkey",
  "sslrootcert",
];
/** Parameters of libpq that mmlite sets by itself, and so may stand in a URL made for other programs. */
const OWN_PARAMETERS = [
  "application_name",
  "fallback_application_name",
  "client_encoding",
  "connect_timeout",
  "keepalives",
  "keepalives_idle",
  "keepalives_interval",
  "keepalives_count",
  "tcp_user_timeout",
  "channel_binding",
  "gssencmode",
  "target_session_attrs",
];
const SSL_ENVIRONMENT = {
  sslmode: "PGSSLMODE",
  sslcert: "PGSSLCERT",
  sslkey: "PGSSLKEY",
  sslrootcert: "PGSSLROOTCERT",
};
const SSL_MODES = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
const CONNINFO_PAIR = /\s*([a-z_]+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))(?=\s|$)/gy;

/**
 * Reads a PostgreSQL URL or `key=value` text, completed by DATABASE_URL, the libpq environment and the password
 * file. Throws a `config` error that names what is wrong, never the password.
 */
export async function parsePostgresUrl(
  url: string | undefined,
  env: Environment,
): Promise<PostgresTarget> {
  const given = readParameters(url ?? env.DATABASE_URL ?? "");
  checkNames(given);
  const port = parsePort(given.get("port") ?? env.PGPORT);
  const host = given.get("host") ?? env.PGHOST ?? defaultHost(port);
  const user = given.get("user") ?? env.PGUSER ?? userInfo().username;
  const database = given.get("dbname") ?? env.PGDATABASE ?? user;
  if (host.includes(",")) throw malformed("several hosts are not supported");
  const ssl = host.startsWith("/") ? false : readSsl(given, env);
  const place = { host, port, database, user, ssl };
  const password = given.get("password") ?? env.PGPASSWORD ??
    await readPassfile(place, passfilePath(given, env));
  return password === undefined ? place : { ...place, password };
}

/** A target for people, such as `app at /run/postgresql:5432`: never the password. */
export function describeTarget(target: PostgresTarget): string {
  const host = target.host.includes(":") ? `[${target.host}]` : target.host;
  return `${target.database} at ${host}:${target.port}`;
}

/** Whether a host can only be this machine. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}

function malformed(why: string, cause?: unknown): MmliteError {
  return new MmliteError("config", `Cannot read the PostgreSQL URL: ${why}`, {
    hint: "Write postgres://USER:PASSWORD@HOST:PORT/DATABASE with special characters percent-encoded, or " +
      "postgres:///DATABASE?host=/var/run/postgresql for the unix socket",
    cause,
  });
}

/** Either form as libpq's parameter names; empty values count as left out, as they do in libpq. */
function readParameters(text: string): Map<string, string> {
  const trimmed = text.trim();
  if (trimmed === "") return new Map();
  if (/^postgres(ql)?:\/\//.test(trimmed)) return readUrl(trimmed);
  if (/^[a-z_]+\s*=/.test(trimmed)) return readConninfo(trimmed);
  throw malformed('it must begin with "postgres://" or consist of key=value pairs');
}

function readUrl(text: string): Map<string, string> {
  const parameters = new Map<string, string>();
  try {
    // Read apart: the parser opens certificate files that sslcert and its kin name.
    const question = text.indexOf("?");
    const place = parseConnectionUrl(question < 0 ? text : text.slice(0, question));
    const query = new URLSearchParams(question < 0 ? "" : text.slice(question));
    // The parser leaves reserved characters of the database encoded; libpq does not.
    const dbname = decodeURIComponent(/^\w+:\/\/[^/?]*\/([^?]*)/.exec(text)?.[1] ?? "");
    const { host, port, user, password } = place;
    for (const [name, value] of Object.entries({ host, port, user, password, dbname })) {
      if (value) parameters.set(name, value);
    }
    for (const [name, value] of query) if (value !== "") parameters.set(name, value);
  } catch {
    // The cause quotes the URL, password included.
    throw malformed("user, password, host or port is malformed");
  }
  return parameters;
}

function readConninfo(text: string): Map<string, string> {
  const parameters = new Map<string, string>();
  let end = 0;
  for (const match of text.matchAll(CONNINFO_PAIR)) {
    const value = (match[2] ?? match[3]).replace(/\\(.)/g, "$1");
    if (value !== "") parameters.set(match[1], value);
    end = match.index + match[0].length;
  }
  if (text.slice(end).trim() !== "") {
    throw malformed(`the key=value pairs break off at character ${end + 1}`);
  }
  return parameters;
}

function checkNames(parameters: Map<string, string>): void {
  for (const name of parameters.keys()) {
    if (USED_PARAMETERS.includes(name) || OWN_PARAMETERS.includes(name)) continue;
    throw malformed(`unknown parameter ${JSON.stringify(name)}`);
  }
}

function parsePort(text: string | undefined): number {
  if (text === undefined || text === "") return DEFAULT_PORT;
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (port < 1 || port > 65_535) {
    throw malformed(`port ${JSON.stringify(text)} is not a number between 1 and 65535`);
  }
  return port;
}

function defaultHost(port: number): string {
  const socket = `.s.PGSQL.${port}`;
  return SOCKET_DIRECTORIES.find((directory) => existsSync(`${directory}/${socket}`)) ?? "localhost";
}

/** `allow` and `prefer` mean a plain connection here: nothing falls back to another one in silence. */
function readSsl(given: Map<string, string>, env: Environment): PostgresTarget["ssl"] {
  const query = new URLSearchParams();
  for (const [name, variable] of Object.entries(SSL_ENVIRONMENT)) {
    const value = given.get(name) ?? env[variable];
    if (value) query.set(name, value);
  }
  const mode = query.get("sslmode") ?? "prefer";
  if (!SSL_MODES.includes(mode)) {
    throw malformed(`sslmode ${JSON.stringify(mode)} is none of ${SSL_MODES.join(", ")}`);
  }
  if (["disable", "allow", "prefer"].includes(mode)) return false;
  if (mode === "verify-ca" && !query.has("sslrootcert")) {
    throw malformed("sslmode=verify-ca needs sslrootcert");
  }
  try {
    const { ssl } = parseConnectionUrl(`postgres:///?${query}`, { useLibpqCompat: true });
    return typeof ssl === "object" ? { ...ssl } : {};
  } catch (error) {
    throw malformed(`TLS cannot be set up: ${(error as Error).message}`, error);
  }
}

function passfilePath(given: Map<string, string>, env: Environment): string | undefined {
  return given.get("passfile") ?? env.PGPASSFILE ?? (env.HOME ? `${env.HOME}/.pgpass` : undefined);
}

/** The password of the first line that fits (https://www.postgresql.org/docs/current/libpq-pgpass.html). */
async function readPassfile(
  target: PostgresTarget,
  path: string | undefined,
): Promise<string | undefined> {
  if (path === undefined || !existsSync(path)) return undefined;
  const { mode } = await stat(path);
  if ((mode & 0o077) !== 0) {
    throw new MmliteError("config", `Cannot use password file "${path}": others than its owner may read it`, {
      hint: `chmod 0600 ${path}`,
    });
  }
  const host = SOCKET_DIRECTORIES.includes(target.host) ? "localhost" : target.host;
  const wanted = [host, String(target.port), target.database, target.user];
  const lines = (await readFile(path, "utf8")).split("\n").filter((line) => !line.startsWith("#"));
  return lines.map(splitPassfileLine).find((fields) =>
    fields.length === 5 && wanted.every((value, i) => fields[i] === "*" || fields[i] === value)
  )?.[4];
}

/** Five fields by colon; a backslash takes the next character as it is. */
function splitPassfileLine(line: string): string[] {
  const fields = line.match(/(?:[^:\\]|\\.)*(?::|$)/g) ?? [];
  return fields.slice(0, 5).map((field) => field.replace(/:$/, "").replace(/\\(.)/g, "$1"));
}
