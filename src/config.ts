/**
 * The configuration: read once at the edge from flags, environment, file and defaults, checked, and from then
 * on plain values. No part below `node/` sees it whole.
 */
import { existsSync } from "node:fs";
import {
  type Address,
  formatAddress,
  isLoopbackHost,
  NO_ADVERTISE,
  parseAddress,
  peerScheme,
} from "./config/address.ts";
import {
  CONFIG_VARIABLE,
  defaultLayer,
  type Environment,
  flagLayer,
  type Flags,
  libpqLayer,
  standardFiles,
  unknownVariables,
  variableLayer,
} from "./config/environment.ts";
import { readConfigFile } from "./config/file.ts";
import { type Layer, type MergedSettings, mergeLayers } from "./config/layer.ts";
import type { DefaultedSettings } from "./config/schema.ts";
import { readSecretFile } from "./config/secret.ts";
import { requireSafeUrl } from "./config/peer_url.ts";
import { decideTls, type TlsConfig } from "./config/tls.ts";
import type { TablePolicy } from "./conflict_policy.ts";
import { parseByteSize } from "./byte_size.ts";
import { parseDuration } from "./duration.ts";
import { MmliteError } from "./errors.ts";
import { parseTableName, tableKey, type TableName } from "./table_name.ts";
import type { LogFormat, LogLevel } from "./log.ts";

/** How what goes to other nodes is compressed: `auto` as well as both can, and not at all on one machine. */
export type CompressionSetting = "auto" | "off" | "zstd" | "gzip";

/** What is done about a transaction that an operator would have to see to: block its link, or set it aside. */
export type OnError = "block" | "quarantine";
/** Whether transactions wait until what caused them is applied. */
export type Consistency = "causal" | "eventual";

/** A peer that the configuration names; the control API may add others. */
export interface ConfiguredPeer {
  readonly name: string;
  /** `http`, host and port of its peer port; null for a node that nobody can dial, and that dials this one. */
  readonly url: string | null;
}

/** Everything a node needs to know to start. */
export interface Config {
  readonly node: { readonly name: string; readonly cluster: string };
  /** The connection string as it was given, password and all: print it through `maskPassword` only. */
  readonly postgres: { readonly url: string };
  readonly listen: {
    /** `advertise` as it was given, null if not: `advertisedUrl` of the address bound says what it means. */
    readonly peers: {
      readonly address: Address;
      readonly advertise: string | null;
      /** Null is cleartext. */
      readonly tls: TlsConfig | null;
    };
    /** `token` is the secret itself; null lets everybody in who reaches the address. */
    readonly api: {
      readonly address: Address;
      readonly socket: string | null;
      readonly token: string | null;
    };
  };
  readonly peers: readonly ConfiguredPeer[];
  /** Patterns `SCHEMA.TABLE`; at least one to include. */
  readonly tables: { readonly include: readonly string[]; readonly exclude: readonly string[] };
  readonly conflicts: ConflictsConfig;
  readonly limits: SlotLimits;
  /** The directory for what identifies this node on this machine; may not exist yet. */
  readonly state: string;
  /** Cleartext is allowed on a peer port that other machines can reach. */
  readonly insecure: boolean;
  readonly compression: CompressionSetting;
  readonly log: { readonly level: LogLevel; readonly format: LogFormat };
}

/** What may be kept for a peer: bytes of WAL, and seconds in which nothing goes to it; null is without end. */
export interface SlotLimits {
  readonly warnSlotWal: number | null;
  readonly warnSlotAge: number | null;
  /** Beyond these a peer is given up. */
  readonly maxSlotWal: number | null;
  readonly maxSlotAge: number | null;
}

/** How conflicts are settled, as far as the configuration says, and how long they are kept. */
export interface ConflictsConfig {
  readonly default: TablePolicy;
  /** Whether `default` is the program's own. */
  readonly isDefault: boolean;
  readonly tables: readonly (TableName & { readonly policy: TablePolicy })[];
  readonly keepSeconds: number;
  readonly onError: OnError;
  /** How long apply waits until the server's clock has reached the time of an incoming commit. */
  readonly maxClockWaitMs: number;
  readonly consistency: Consistency;
}

/** Where settings are looked for. */
export interface ConfigSources {
  readonly flags: Flags;
  readonly env: Environment;
  /** The file; where absent `MMLITE_CONFIG`, else the first standard place that has one. */
  readonly file?: string;
}

/** Settings of all places, not yet complete. */
export interface LoadedSettings extends MergedSettings {
  /** Sentences about what was given and means nothing. */
  readonly warnings: readonly string[];
}

/** Reads the whole configuration of a node; throws `config` for the first thing wrong or missing. */
export async function loadConfig(sources: ConfigSources): Promise<Config> {
  return await completeConfig(await loadSettings(sources));
}

/** Reads and merges the settings of all places: flags > `MMLITE_*` > file > libpq > defaults. */
export async function loadSettings({ flags, env, file }: ConfigSources): Promise<LoadedSettings> {
  const layers: Layer[] = [flagLayer(flags), variableLayer(env)];
  const path = file ?? (env[CONFIG_VARIABLE] || standardFiles(env).find((place) => existsSync(place)));
  if (path !== undefined) layers.push(await readConfigFile(path));
  layers.push(libpqLayer(env));
  return { ...mergeLayers(layers, defaultLayer(env)), warnings: unknownVariables(env) };
}

/** Makes a node's configuration of settings; throws `config` for what is missing or must not be together. */
export async function completeConfig({ settings, origins }: MergedSettings): Promise<Config> {
  const { node, postgres, listen, tables, ...rest } = settings;
  const url = postgres?.url_file === undefined ? postgres?.url : await readSecretFile(postgres.url_file);
  const { include = [] } = tables;
  if (node.name === undefined || url === undefined || include.length === 0) throw missing(settings);
  const peerAddress = parseKnown(listen.peers.address);
  const apiAddress = parseKnown(listen.api.address);
  const { socket = null, token_file } = listen.api;
  const tls = decideTls({ settings, origins });
  if (token_file === undefined) refuseOpenApi(apiAddress, origins);
  refuseSameNames(node.name, rest.peers);
  for (const { url } of rest.peers) {
    if (url !== undefined) requireSafeUrl(url, { tls: tls !== null, insecure: rest.insecure });
  }
  requireMatchingScheme(listen.peers.advertise, tls);
  const token = token_file === undefined ? null : await readSecretFile(token_file);
  return {
    ...rest,
    node: { name: node.name, cluster: node.cluster },
    postgres: { url },
    listen: {
      peers: { address: peerAddress, advertise: listen.peers.advertise ?? null, tls },
      api: { address: apiAddress, socket, token },
    },
    peers: rest.peers.map(({ name, url }) => ({ name, url: url ?? null })),
    tables: { include, exclude: tables.exclude },
    conflicts: completeConflicts({ settings, origins }),
    limits: {
      warnSlotWal: parseByteSize(rest.limits.warn_slot_wal),
      warnSlotAge: parseDuration(rest.limits.warn_slot_age),
      maxSlotWal: parseByteSize(rest.limits.max_slot_wal),
      maxSlotAge: parseDuration(rest.limits.max_slot_age),
    },
  };
}

function completeConflicts({ settings: { conflicts }, origins }: MergedSettings): ConflictsConfig {
  const tables = Object.entries(conflicts.tables).map(([name, { policy, types = {} }]) => ({
    ...parseTableName(name)!,
    policy: { policy, types },
  }));
  const keys = tables.map(tableKey);
  const twice = Object.keys(conflicts.tables).find((_, index) => keys.indexOf(keys[index]) < index);
  if (twice !== undefined) {
    throw new MmliteError(
      "config",
      `Cannot use two policies for ${twice} (${origins.get("conflicts.tables")})`,
      {
        hint: "Keep one of them",
      },
    );
  }
  return {
    default: { policy: conflicts.default, types: {} },
    isDefault: origins.get("conflicts.default") === "default",
    tables,
    keepSeconds: parseDuration(conflicts.keep)!,
    onError: conflicts.on_error,
    maxClockWaitMs: parseDuration(conflicts.max_clock_wait, 0)! * 1000,
    consistency: conflicts.consistency,
  };
}

/** An address that the schema has already let through. */
function parseKnown(text: string): Address {
  return parseAddress(text)!;
}

function missing({ node, postgres, tables }: DefaultedSettings): MmliteError {
  const names: string[] = [];
  if (node.name === undefined) names.push("node.name (--name)");
  if (postgres?.url === undefined && postgres?.url_file === undefined) {
    names.push("postgres.url (--postgres)");
  }
  if (!tables.include?.length) names.push("tables.include (--tables)");
  const listed = names.join(", ").replace(/, ([^,]+)$/, " and $1");
  return new MmliteError("config", `Cannot run a node without ${listed}`, {
    hint:
      "The least is `mmlite run --name ams --postgres postgres:///app --tables 'public.*'`, or the same in " +
      "/etc/mmlite/mmlite.yaml",
  });
}

/** Peers dial what is advertised: it must be what the peer port speaks. */
function requireMatchingScheme(advertise: string | undefined, tls: TlsConfig | null): void {
  if (advertise === undefined || advertise === NO_ADVERTISE) return;
  const scheme = peerScheme(tls);
  if (new URL(advertise).protocol === `${scheme}:`) return;
  throw new MmliteError(
    "config",
    `Cannot advertise "${advertise}": the peer port speaks ${tls === null ? "cleartext" : "TLS"}`,
    { hint: `Advertise it as ${scheme}://host:port` },
  );
}

function refuseOpenApi(address: Address, origins: MergedSettings["origins"]): void {
  if (isLoopbackHost(address.host)) return;
  const place = `"${formatAddress(address)}" (${origins.get("listen.api.address")})`;
  throw new MmliteError(
    "config",
    `Cannot serve the control API on ${place}: other machines can reach it, and there is no token`,
    { hint: "Name a file with a token by --token-file, or serve it on 127.0.0.1 or a unix socket" },
  );
}

/** Names that differ in `-` and `_` alone count as the same: their slots would have one name. */
function refuseSameNames(node: string, peers: readonly { readonly name: string }[]): void {
  const taken = new Map([[slotPart(node), "this node"]]);
  for (const { name } of peers) {
    const other = taken.get(slotPart(name));
    if (other !== undefined) {
      throw new MmliteError("config", `Cannot use peer "${name}": its name is that of ${other}`, {
        hint: "Give every node of the cluster a name of its own; - and _ count as the same",
      });
    }
    taken.set(slotPart(name), `peer "${name}"`);
  }
}

function slotPart(name: string): string {
  return name.replaceAll("-", "_");
}
