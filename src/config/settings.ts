/**
 * The list of settings: each with its key in the file and its flag, from which its environment variable
 * follows (`--api-socket` is `MMLITE_API_SOCKET`).
 */
import { CONFLICT_TYPES } from "../conflict_policy.ts";
import type { Settings } from "./schema.ts";

/** One setting that has a flag. */
export interface Setting {
  /** Its place in the file, such as `listen.peers.address`. */
  readonly key: string;
  /** Its flag without the dashes, such as `listen`. */
  readonly flag: string;
  /** How it is written on the command line: one text, a repeatable text, or no value at all. */
  readonly form: "text" | "list" | "switch";
  /** What stands for the value in help texts. */
  readonly placeholder: string;
  readonly help: string;
}

/** Every setting with a flag, in the order of help texts. */
export const SETTINGS: readonly Setting[] = [
  text("node.name", "name", "NAME", "this node's name: lower-case letters, digits, _ and -"),
  text("node.cluster", "cluster", "NAME", "nodes of different clusters refuse each other"),
  text("postgres.url", "postgres", "URL", "the local database, such as postgres:///app"),
  text("postgres.url_file", "postgres-file", "FILE", "file whose first line is that URL"),
  list("tables.include", "tables", "PATTERN", "tables to replicate, such as 'public.*' (repeatable)"),
  list("tables.exclude", "exclude", "PATTERN", "tables to leave out (repeatable)"),
  text("listen.peers.address", "listen", "ADDR", "where peers reach this node"),
  text("listen.peers.advertise", "advertise", "URL", "the URL that peers dial, or none where they cannot"),
  text(
    "listen.peers.tls.cert",
    "tls-cert",
    "FILE",
    "this node's certificate, STATE/tls/node.pem if not given",
  ),
  text("listen.peers.tls.key", "tls-key", "FILE", "its private key, STATE/tls/node-key.pem if not given"),
  text("listen.peers.tls.ca", "tls-ca", "FILE", "the authorities to trust, STATE/tls/ca.pem if not given"),
  text("listen.peers.tls.ca_key", "tls-ca-key", "FILE", "the CA's key, where this node issues certificates"),
  text("listen.api.address", "api", "ADDR", "where the control API listens"),
  text("listen.api.socket", "api-socket", "PATH", "unix socket where the control API listens too"),
  text("listen.api.token_file", "token-file", "FILE", "file whose first line is the control API's token"),
  text("state", "state", "DIR", "directory of what identifies this node on this machine"),
  text("conflicts.keep", "keep-conflicts", "TIME", "how long conflicts stay on record, such as 12h or 30d"),
  {
    key: "insecure",
    flag: "insecure",
    form: "switch",
    placeholder: "",
    help: "allow cleartext on a peer port that other machines can reach",
  },
  text("conflicts.on_error", "on-error", "WHAT", "with what cannot be applied: block, or quarantine it"),
  text("compression", "compression", "HOW", "to other nodes: auto, off, zstd or gzip"),
  text(
    "conflicts.consistency",
    "consistency",
    "HOW",
    "eventual, or causal: changes wait, for some seconds at most, until what caused them is there",
  ),
  text(
    "conflicts.max_clock_wait",
    "max-clock-wait",
    "DURATION",
    "how long changes wait for this server's clock to reach the time of their commit",
  ),
  text(
    "limits.warn_slot_wal",
    "warn-slot-wal",
    "SIZE",
    "warn of a peer for which more WAL than this is kept, or off",
  ),
  text(
    "limits.warn_slot_age",
    "warn-slot-age",
    "TIME",
    "warn of a peer to which nothing has gone for so long, or off",
  ),
  text(
    "limits.max_slot_wal",
    "max-slot-wal",
    "SIZE",
    "give up a peer for which more WAL than this is kept, or off",
  ),
  text(
    "limits.max_slot_age",
    "max-slot-age",
    "TIME",
    "give up a peer to which nothing has gone for so long, or off",
  ),
  text("log.level", "log-level", "LEVEL", "debug, info, warning or error"),
  text("log.format", "log-format", "FORMAT", "text or json"),
];

/**
 * Every key of the file: those with a flag, the peers, the group of TLS files, which may be `off` instead, and the
 * policies.
 */
export const SETTING_KEYS: readonly string[] = [
  ...SETTINGS.map((setting) => setting.key),
  "listen.peers.tls",
  "peers",
  "conflicts.default",
  "conflicts.allow_divergence",
  "conflicts.tables",
];

/** Keys whose value is a map that the file gives as a whole, no group of keys of ours. */
export const MAP_KEYS: readonly string[] = ["conflicts.tables"];

/** Keys inside of lists and maps, whose indexes and keys are `*` here. */
export const INNER_KEYS: readonly string[] = [
  "peers.*.name",
  "peers.*.url",
  "conflicts.tables.*.policy",
  "conflicts.tables.*.types",
  "conflicts.tables.*.allow_divergence",
  ...CONFLICT_TYPES.map((type) => `conflicts.tables.*.types.${type}`),
];

/** The environment variable of a flag. */
export function environmentName(flag: string): string {
  return `MMLITE_${flag.replaceAll("-", "_").toUpperCase()}`;
}

/** The value at a key such as `node.name`, or undefined. */
export function getSetting(settings: Settings, key: string): unknown {
  let value: unknown = settings;
  for (const part of key.split(".")) {
    if (typeof value !== "object" || value === null) return undefined;
    value = (value as Record<string, unknown>)[part];
  }
  return value;
}

/** Puts a value at a key such as `node.name`, with the groups above it. */
export function setSetting(settings: Settings, key: string, value: unknown): void {
  const parts = key.split(".");
  const last = parts.pop()!;
  let group = settings as Record<string, unknown>;
  for (const part of parts) group = (group[part] ??= {}) as Record<string, unknown>;
  group[last] = value;
}

function text(key: string, flag: string, placeholder: string, help: string): Setting {
  return { key, flag, form: "text", placeholder, help };
}

function list(key: string, flag: string, placeholder: string, help: string): Setting {
  return { key, flag, form: "list", placeholder, help };
}
