/**
 * Layers of settings, the stronger first, and their merge: each value keeps the place it came from.
 */
import { MmliteError } from "../errors.ts";
import { describeIssues } from "./issue.ts";
import { type DefaultedSettings, FileSchema, type Settings } from "./schema.ts";
import { getSetting, MAP_KEYS, setSetting, type Setting, SETTING_KEYS } from "./settings.ts";

/** The settings of one place. */
export interface Layer<Held extends Settings = Settings> {
  readonly settings: Held;
  /** Where exactly the value of a key stands, such as `--name` or `mmlite.yaml:2:11`. */
  readonly originOf: (key: string) => string;
}

/** All layers as one. */
export interface MergedSettings {
  readonly settings: DefaultedSettings;
  /** Where the value of each key that has one came from. */
  readonly origins: ReadonlyMap<string, string>;
}

/** A value given as text for a setting, and the flag or variable that gave it. */
export interface GivenValue {
  readonly setting: Setting;
  readonly value: unknown;
  readonly origin: string;
}

// A connection string anywhere replaces the one of a weaker layer however that was given, and so does a file.
const ALTERNATIVES: readonly (readonly [string, string])[] = [["postgres.url", "postgres.url_file"]];

/** Makes a layer of flags or variables; throws `config` with the name of the first one that is wrong. */
export function layerOf(given: readonly GivenValue[]): Layer {
  const settings: Settings = {};
  const byKey = new Map(given.map((one) => [one.setting.key, one]));
  for (const { setting, value } of given) setSetting(settings, setting.key, value);
  const checked = FileSchema.safeParse(settings);
  if (!checked.success) {
    const [issue] = describeIssues(checked.error);
    const wrong = given.find(({ setting }) =>
      issue.key === setting.key || issue.key.startsWith(`${setting.key}.`)
    );
    throw new MmliteError(
      "config",
      `Cannot use ${wrong?.origin} ${JSON.stringify(getSetting(settings, issue.key))}: ${issue.text}`,
    );
  }
  return { settings, originOf: (key) => byKey.get(key)?.origin ?? key };
}

/** Merges layers over the defaults, the strongest first. Throws `config` when one layer gives the same thing in two ways. */
export function mergeLayers(layers: readonly Layer[], defaults: Layer<DefaultedSettings>): MergedSettings {
  const settings: Settings = {};
  const origins = new Map<string, string>();
  for (const layer of [...layers, defaults]) {
    refuseBoth(layer);
    for (const key of SETTING_KEYS) {
      const value = getSetting(layer.settings, key);
      // A group is merged key by key.
      if (value === undefined || isGroup(key, value) || isGiven(settings, key)) continue;
      setSetting(settings, key, value);
      origins.set(key, layer.originOf(key));
    }
  }
  // The defaults came last, so that none of their keys is missing.
  return { settings: settings as DefaultedSettings, origins };
}

function isGiven(settings: Settings, key: string): boolean {
  const keys = ALTERNATIVES.find((pair) => pair.includes(key)) ?? [key];
  return keys.some((one) => getSetting(settings, one) !== undefined) || hasTextAbove(settings, key);
}

/** Whether a text such as `off` stands in the place of a group that the key is in. */
function hasTextAbove(settings: Settings, key: string): boolean {
  const parts = key.split(".");
  return parts.some((_, depth) =>
    depth > 0 && typeof getSetting(settings, parts.slice(0, depth).join(".")) === "string"
  );
}

function isGroup(key: string, value: unknown): boolean {
  return typeof value === "object" && !Array.isArray(value) && !MAP_KEYS.includes(key);
}

function refuseBoth(layer: Layer): void {
  for (const pair of ALTERNATIVES) {
    if (pair.some((key) => getSetting(layer.settings, key) === undefined)) continue;
    const [first, second] = pair.map((key) => `${key} (${layer.originOf(key)})`);
    throw new MmliteError("config", `Cannot use both ${first} and ${second}`, { hint: "Keep one of them" });
  }
}
