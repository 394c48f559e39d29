/**
 * What every command is given: the options that all of them share, the environment, and where to write.
 */
import type { Command } from "commander";
import { Option } from "commander";
import process from "node:process";
import type { Environment, Flags } from "../config/environment.ts";
import { type Setting, SETTINGS } from "../config/settings.ts";

/** How data is printed. */
export const OUTPUT_FORMATS = ["table", "json", "yaml"] as const;
/** One of {@link OUTPUT_FORMATS}. */
export type OutputFormat = (typeof OUTPUT_FORMATS)[number];

/** The options that stand before or after any command. */
export interface GlobalOptions {
  readonly config?: string;
  readonly api?: string;
  readonly tokenFile?: string;
  readonly output: OutputFormat;
  readonly quiet?: boolean;
  readonly verbose?: boolean;
  readonly logLevel?: string;
  readonly logFormat?: string;
  readonly asCurl?: boolean;
}

/** One call of the program. */
export interface Context {
  readonly env: Environment;
  /** Data, for standard output. */
  readonly print: (text: string) => void;
  /** Everything else, for standard error. */
  readonly note: (text: string) => void;
  /** Whether standard output is a terminal that shows colour. */
  readonly colour: boolean;
  /** Whether standard output is a terminal. */
  readonly terminal: boolean;
}

/** A command's work; returns its exit code. */
export type Action<Options> = (options: Options, args: readonly string[]) => Promise<number>;

// Settings of `run` which the other commands understand as well.
const GLOBAL_FLAGS = ["api", "token-file", "log-level", "log-format"];

/** The context of this process. */
export function processContext(env: Environment): Context {
  // Whoever reads our output, such as `head`, may have read enough; log lines that nobody reads stop nothing.
  process.stdout.on("error", () => process.exit(0));
  process.stderr.on("error", () => {});
  const terminal = process.stdout.isTTY === true;
  return {
    env,
    print: (text) => void process.stdout.write(`${text}\n`),
    note: (text) => void process.stderr.write(`${text}\n`),
    terminal,
    // https://no-color.org: set and not empty.
    colour: terminal && !env.NO_COLOR && env.TERM !== "dumb",
  };
}

/** Adds the options of {@link GlobalOptions}. */
export function addGlobalOptions(program: Command): void {
  program
    .option("-c, --config <FILE>", "configuration file")
    .option(
      "--api <ADDR>",
      "control API: where `run` serves it, and where other commands reach it (or unix:PATH)",
    )
    .option("--token-file <FILE>", "file whose first line is the control API's token")
    .addOption(new Option("-o, --output <FORMAT>", "print data as").choices(OUTPUT_FORMATS).default("table"))
    .addOption(new Option("-q, --quiet", "say less").conflicts("verbose"))
    .option("-v, --verbose", "say more: causes of errors, debug lines of the log")
    .option("--log-level <LEVEL>", "debug, info, warning or error")
    .option("--log-format <FORMAT>", "text or json")
    .option("--as-curl", "print the curl line that does the same, and do nothing");
}

/** Adds a flag for every setting that is not a global option. */
export function addSettingOptions(command: Command): Command {
  for (const setting of SETTINGS) {
    if (GLOBAL_FLAGS.includes(setting.flag)) continue;
    const option = new Option(optionText(setting), setting.help);
    if (setting.form === "list") option.argParser((item: string, items: string[] = []) => [...items, item]);
    command.addOption(option);
  }
  return command;
}

/** What the options say about settings; `-q` and `-v` stand for a log level where none is given. */
export function flagsOf(options: GlobalOptions): Flags {
  const given = options as unknown as Flags;
  const flags = Object.fromEntries(SETTINGS.map(({ flag }) => [flag, given[attributeOf(flag)]]));
  const level = options.verbose ? "debug" : options.quiet ? "warning" : undefined;
  return { ...flags, "log-level": options.logLevel ?? level };
}

/** Gives a command its work; the exit code goes to `finish`. */
export function setAction<Options extends GlobalOptions>(
  command: Command,
  { action, finish }: { action: Action<Options>; finish: (exitCode: number) => void },
): Command {
  return command.action(async () => {
    finish(await action(command.optsWithGlobals<Options>(), command.args));
  });
}

function optionText({ flag, form, placeholder }: Setting): string {
  return form === "switch" ? `--${flag}` : `--${flag} <${placeholder}>`;
}

/** The property under which commander keeps an option: `apiSocket` for `api-socket`. */
function attributeOf(flag: string): string {
  return flag.replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
}
