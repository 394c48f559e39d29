/**
 * Settings from flags, `MMLITE_*`, the libpq environment, and the defaults.
 */
import { homedir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { DEFAULT_POLICY } from "../conflict_policy.ts";
import { MmliteError } from "../errors.ts";
import { type GivenValue, type Layer, layerOf } from "./layer.ts";
import type { DefaultedSettings } from "./schema.ts";
import { environmentName, type Setting, SETTINGS } from "./settings.ts";
import { nearest } from "./suggest.ts";

/** Environment variables by name. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** Flags by name without the dashes, such as `{ "api-socket": "/run/mmlite.sock", tables: ["public.*"] }`. */
export type Flags = Readonly<Record<string, string | readonly string[] | boolean | undefined>>;

/** The variable that names the configuration file, as `-c` does. */
export const CONFIG_VARIABLE = "MMLITE_CONFIG";

/** Where peers reach a node that says nothing else: this machine only. */
export const DEFAULT_PEER_ADDRESS = "127.0.0.1:7432";
/** Where the control API listens, and where commands look for it. */
export const DEFAULT_API_ADDRESS = "127.0.0.1:7433";
const DEFAULT_CLUSTER = "mmlite";
/** How long conflicts stay on record. */
const DEFAULT_KEEP_CONFLICTS = "30d";
/** Clocks that NTP keeps are milliseconds apart: more than this is not worth waiting for before somebody looks. */
const DEFAULT_MAX_CLOCK_WAIT = "10s";

/** Somebody should know of a peer before a disk is full. */
const DEFAULT_WARN_SLOT_WAL = "10GB";
const DEFAULT_WARN_SLOT_AGE = "6h";

/** A comma outside of double quotes. */
const COMMA = /,(?=(?:[^"]*"[^"]*")*[^"]*$)/;

const STANDARD_FILE = "mmlite/mmlite.yaml";

// Any of these says that the environment describes a database, whose parts the connection string then leaves open.
const LIBPQ_VARIABLES = ["PGHOST", "PGPORT", "PGDATABASE", "PGUSER"] as const;

/** The layer of flags. */
export function flagLayer(flags: Flags): Layer {
  const given: GivenValue[] = [];
  for (const setting of SETTINGS) {
    const value = flags[setting.flag];
    if (value !== undefined) given.push({ setting, value, origin: `--${setting.flag}` });
  }
  return layerOf(given);
}

/** The layer of `MMLITE_*`; an empty variable counts as not set, a list is separated by commas. */
export function variableLayer(env: Environment): Layer {
  const given: GivenValue[] = [];
  for (const setting of SETTINGS) {
    const origin = environmentName(setting.flag);
    const text = env[origin];
    if (text) given.push({ setting, value: parseVariable(setting, text), origin });
  }
  return layerOf(given);
}

function parseVariable(setting: Setting, text: string): unknown {
  if (setting.form === "list") return text.split(COMMA).map((item) => item.trim());
  if (setting.form === "text") return text;
  if (text === "1" || text === "true") return true;
  if (text === "0" || text === "false") return false;
  throw new MmliteError(
    "config",
    `Cannot use ${environmentName(setting.flag)} ${JSON.stringify(text)}: expected true or false`,
  );
}

/** One sentence for each `MMLITE_*` that means nothing; what Kubernetes sets for a service is left out. */
export function unknownVariables(env: Environment): string[] {
  const known = [...SETTINGS.map((setting) => environmentName(setting.flag)), CONFIG_VARIABLE];
  return Object.keys(env)
    .filter((name) => name.startsWith("MMLITE_") && !known.includes(name))
    .filter((name) => !/_(PORT|SERVICE)(_|$)/.test(name))
    .map((name) => {
      const near = nearest(name, known);
      return `${name} means nothing to mmlite${near === null ? "" : `; did you mean ${near}?`}`;
    });
}

/** The layer of libpq's environment: `DATABASE_URL`, else a connection string that leaves all to `PG*`. */
export function libpqLayer(env: Environment): Layer {
  const url = env.DATABASE_URL;
  if (url) return { settings: { postgres: { url } }, originOf: () => "DATABASE_URL" };
  const set = LIBPQ_VARIABLES.filter((name) => env[name]);
  if (set.length === 0) return { settings: {}, originOf: (key) => key };
  return { settings: { postgres: { url: "postgres:///" } }, originOf: () => set.join(", ") };
}

/** The layer of defaults. */
export function defaultLayer(env: Environment): Layer<DefaultedSettings> {
  const settings: DefaultedSettings = {
    node: { cluster: DEFAULT_CLUSTER },
    listen: { peers: { address: DEFAULT_PEER_ADDRESS }, api: { address: DEFAULT_API_ADDRESS } },
    peers: [],
    tables: { exclude: [] },
    conflicts: {
      default: DEFAULT_POLICY.policy,
      keep: DEFAULT_KEEP_CONFLICTS,
      tables: {},
      on_error: "block",
      consistency: "eventual",
      max_clock_wait: DEFAULT_MAX_CLOCK_WAIT,
    },
    limits: {
      warn_slot_wal: DEFAULT_WARN_SLOT_WAL,
      warn_slot_age: DEFAULT_WARN_SLOT_AGE,
      max_slot_wal: "off",
      max_slot_age: "off",
    },
    state: defaultStateDirectory(env),
    insecure: false,
    compression: "auto",
    log: { level: "info", format: "text" },
  };
  return { settings, originOf: () => "default" };
}

function defaultStateDirectory(env: Environment): string {
  // systemd sets STATE_DIRECTORY for a unit with StateDirectory=, a list of which the first is ours.
  if (env.STATE_DIRECTORY) return env.STATE_DIRECTORY.split(":")[0];
  if (process.getuid?.() === 0) return "/var/lib/mmlite";
  return join(env.XDG_STATE_HOME || join(homeOf(env), ".local/state"), "mmlite");
}

/** Where the configuration file is looked for when none is named, the first that exists. */
export function standardFiles(env: Environment): string[] {
  return [
    join("/etc", STANDARD_FILE),
    join(env.XDG_CONFIG_HOME || join(homeOf(env), ".config"), STANDARD_FILE),
  ];
}

function homeOf(env: Environment): string {
  return env.HOME || homedir();
}
