/**
 * `mmlite run` and `mmlite init`: the two commands that open the database themselves.
 *
 * What a node is made of is loaded by them alone, so that the other commands start in half the time.
 */
import type { Command } from "commander";
import { completeConfig, type Config } from "../config.ts";
import { toMmliteError } from "../errors.ts";
import { configureLog } from "../log.ts";
import { requireNoPendingJoin } from "../node/pending_join.ts";
import { addSettingOptions, type Context, type GlobalOptions, setAction } from "./context.ts";
import { loadLocalSettings } from "./local_settings.ts";
import { serviceManager } from "./notify.ts";
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
  return await serveUntilSignal(context, () => Promise.resolve(config));
}

/** Runs the node that `configure` says in the foreground until SIGINT or SIGTERM; its exit code. */
export async function serveUntilSignal(
  { env }: Context,
  configure: (signal: AbortSignal) => Promise<Config>,
): Promise<number> {
  await untilSignal(async (signal) => {
    const config = await configure(signal);
    const { serveNode } = await import("./serve.ts");
    try {
      await serveNode(config, { signal, service: serviceManager(env) });
    } catch (error) {
      // A start that the signal cut short is not a failure.
      if (!signal.aborted || toMmliteError(error).kind !== "aborted") throw error;
    }
  });
  return 0;
}

async function initDatabase(options: InitOptions, context: Context): Promise<number> {
  const config = await prepare("init", options, context);
  const { initNode } = await import("../node/init.ts");
  const statements = await initNode(config, { dryRun: options.dryRun === true });
  if (options.output !== "table") context.print(formatData({ statements }, options.output));
  else if (options.dryRun && statements.length > 0) context.print(statements.map(terminate).join("\n\n"));
  else if (!options.quiet) {
    context.note(`Schema mmlite and publication are ready for node "${config.node.name}"`);
  }
  return 0;
}

/** The configuration of a command that is no client, its warnings said and the log set up. */
async function prepare(command: string, options: GlobalOptions, context: Context): Promise<Config> {
  const settings = await loadLocalSettings(command, { options, context });
  if (command === "run") await requireNoPendingJoin(settings.settings.state);
  const config = await completeConfig(settings);
  await configureLog(config.log);
  return config;
}

function terminate(statement: string): string {
  return /;\s*$/.test(statement) ? statement : `${statement};`;
}
