/**
 * `mmlite run` and `mmlite init`: the two commands that open the database themselves.
 */
import type { Command } from "commander";
import { completeConfig, type Config, loadSettings } from "../config.ts";
import { MmliteError } from "../errors.ts";
import { configureLog } from "../log.ts";
import { addSettingOptions, type Context, flagsOf, type GlobalOptions, setAction } from "./context.ts";
import { formatData } from "./output.ts";
import { untilSignal } from "./signals.ts";

interface InitOptions extends GlobalOptions {
  readonly dryRun?: boolean;
}

/** Adds both commands. */
export function addRun(program: Command, context: Context, finish: (exitCode: number) => void): void {
  const run = program.command("run").description("run the sidecar in the foreground");
  setAction(addSettingOptions(run), { action: (options) => runNode(options, context), finish });
  const init = program.command("init").description("create schema, publication and origins in the database")
    .option("--dry-run", "print the SQL and change nothing");
  setAction<InitOptions>(addSettingOptions(init), {
    action: (options) => initDatabase(options, context),
    finish,
  });
}

async function runNode(options: GlobalOptions, context: Context): Promise<number> {
  const config = await prepare("run", options, context);
  await untilSignal(async (signal) => {
    const node = await startUnlessStopped(config, signal);
    if (node === null) return;
    // Its outcome is that of `closed`.
    const close = () => void node.close().catch(() => {});
    if (signal.aborted) close();
    else signal.addEventListener("abort", close);
    await node.closed;
  });
  return 0;
}

/** A start that the signal cuts short is not a failure: null then. */
async function startUnlessStopped(config: Config, signal: AbortSignal): Promise<RunningNode | null> {
  try {
    return await startNode(config, { signal });
  } catch (error) {
    if (signal.aborted) return null;
    throw error;
  }
}

async function initDatabase(options: InitOptions, context: Context): Promise<number> {
  const config = await prepare("init", options, context);
  const statements = await initNode(config, { dryRun: options.dryRun === true });
  if (options.output !== "table") context.print(formatData({ statements }, options.output));
  else if (options.dryRun) context.print(statements.map(terminate).join("\n\n"));
  else if (!options.quiet) {
    context.note(`Schema mmlite and publication are ready for node "${config.node.name}"`);
  }
  return 0;
}

/** The configuration of a command that is no client, its warnings said and the log set up. */
async function prepare(command: string, options: GlobalOptions, context: Context): Promise<Config> {
  if (options.asCurl) {
    throw new MmliteError(
      "usage",
      `Cannot print \`mmlite ${command}\` as curl: it is no call of the control API`,
    );
  }
  const settings = await loadSettings({ flags: flagsOf(options), env: context.env, file: options.config });
  if (!options.quiet) { for (const warning of settings.warnings) context.note(`warning: ${warning}`); }
  const config = await completeConfig(settings);
  await configureLog(config.log);
  return config;
}

function terminate(statement: string): string {
  return /;\s*$/.test(statement) ? statement : `${statement};`;
}

interface RunningNode {
  readonly closed: Promise<void>;
  close(): Promise<void>;
}

async function startNode(config: Config, options: { signal: AbortSignal }): Promise<RunningNode> {
  const module = "../node/node.ts";
  return await (await import(module)).startNode(config, options);
}

async function initNode(config: Config, options: { dryRun: boolean }): Promise<string[]> {
  const module = "../node/init.ts";
  return await (await import(module)).initNode(config, options);
}
