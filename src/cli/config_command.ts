/**
 * `mmlite config`: whether the configuration is right, what it says, and its schema; needs no node.
 */
import type { Command } from "commander";
import type { PatternKind, TablePattern } from "../api/pattern_schemas.ts";
import type { NodeStatus } from "../api/schemas.ts";
import { configJsonSchema, type Settings } from "../config/schema.ts";
import { maskPassword } from "../config/secret.ts";
import { getSetting, setSetting } from "../config/settings.ts";
import { completeConfig } from "../config.ts";
import { requestApi } from "./client.ts";
import { addSettingOptions, type Context, type GlobalOptions, setAction } from "./context.ts";
import { findEndpoint } from "./endpoint.ts";
import { loadLocalSettings } from "./local_settings.ts";
import { formatData, formatTable, heading } from "./output.ts";

interface ShowOptions extends GlobalOptions {
  readonly origin?: boolean;
}

/** Adds the commands. */
export function addConfig(program: Command, context: Context, finish: (exitCode: number) => void): void {
  const config = program.command("config").description("check and show the configuration");
  const check = config.command("check").description(
    "whether a node could start with it; opens no connection",
  );
  setAction(addSettingOptions(check), { action: (options) => checkConfig(options, context), finish });
  const show = config.command("show").description("every setting, passwords masked")
    .option("--origin", "and where it came from");
  setAction<ShowOptions>(addSettingOptions(show), {
    action: (options) => showConfig(options, context),
    finish,
  });
  const schema = config.command("schema").description("the JSON Schema of the file, for editors");
  setAction(schema, { action: (options) => showSchema(options, context), finish });
}

async function checkConfig(options: GlobalOptions, context: Context): Promise<number> {
  const settings = await loadLocalSettings("config check", { options, context });
  const config = await completeConfig(settings);
  const { node } = config;
  const { checkDatabase, checkTls } = await import("../node/config_check.ts");
  const database = await checkDatabase(config, context.env);
  const tls = await checkTls(config);
  if (options.output === "table") {
    context.print(
      `The configuration is right: node ${node.name} of cluster ${node.cluster}, database ${database}, ` +
        `peers ${tls === null ? "in cleartext" : "over TLS"}`,
    );
  } else {
    context.print(
      formatData({ node: node.name, cluster: node.cluster, postgres: database, tls }, options.output),
    );
  }
  return 0;
}

async function showConfig(options: ShowOptions, context: Context): Promise<number> {
  const { settings, origins } = await loadLocalSettings("config show", { options, context });
  const patterns = options.origin ? await patternsOfNode(settings, { options, context }) : [];
  const values: ShownValue[] = [...origins].map(([key, origin]) => ({
    key,
    value: masked(key, getSetting(settings, key)),
    origin,
  }));
  for (const [key, kind] of PATTERN_KEYS) overrule(values, key, patterns.filter((one) => one.kind === kind));
  if (options.output === "table") {
    const rows = values.map((
      { key, value, origin },
    ) => [key, inOneLine(value), ...(options.origin ? [origin] : [])]);
    const titles = ["KEY", "VALUE", ...(options.origin ? ["FROM"] : [])];
    context.print(formatTable([heading(...titles), ...rows], context.colour));
  } else if (options.origin) {
    const byKey = values.map(({ key, value, origin }) => [key, { value, origin }]);
    context.print(formatData(Object.fromEntries(byKey), options.output));
  } else {
    const tree = {};
    for (const { key, value } of values) setSetting(tree, key, value);
    context.print(formatData(tree, options.output));
  }
  return 0;
}

/** Those of the node that runs by these settings; none where it does not answer. */
async function patternsOfNode(
  { node, listen }: Settings,
  { options, context }: { readonly options: ShowOptions; readonly context: Context },
): Promise<readonly TablePattern[]> {
  try {
    const api = options.api ??
      (listen?.api?.socket === undefined ? listen?.api?.address : `unix:${listen.api.socket}`);
    const endpoint = await findEndpoint({ ...options, api, tokenFile: listen?.api?.token_file }, context);
    const { body: status } = await requestApi<NodeStatus>({ method: "GET", path: "/v1/status" }, endpoint);
    if (status.node.name !== node?.name) return [];
    const list = { method: "GET", path: "/v1/tables/patterns" } as const;
    return (await requestApi<{ items: TablePattern[] }>(list, endpoint)).body.items;
  } catch {
    return [];
  }
}

interface ShownValue {
  readonly key: string;
  readonly value: unknown;
  readonly origin: string;
}

/** What was set through the API wins. */
function overrule(values: ShownValue[], key: string, patterns: readonly TablePattern[]): void {
  if (patterns.every(({ from, active }) => from === "file" && active)) return;
  const value = patterns.filter(({ active }) => active).map(({ pattern }) => pattern);
  const at = values.findIndex((one) => one.key === key);
  if (at < 0) values.push({ key, value, origin: "API" });
  else values[at] = { key, value, origin: `API, over ${values[at].origin}` };
}

const PATTERN_KEYS: readonly (readonly [key: string, kind: PatternKind])[] = [
  ["tables.include", "include"],
  ["tables.exclude", "exclude"],
];

function showSchema({ output }: GlobalOptions, context: Context): Promise<number> {
  context.print(formatData(configJsonSchema(), output === "yaml" ? "yaml" : "json"));
  return Promise.resolve(0);
}

function masked(key: string, value: unknown): unknown {
  return key === "postgres.url" ? maskPassword(String(value)) : value;
}

function inOneLine(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}
