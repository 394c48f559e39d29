/**
 * `mmlite join`: a new node by a token from a member; then it goes on as `mmlite run` does.
 */
import type { Command } from "commander";
import { Buffer } from "node:buffer";
import { read } from "node:fs";
import { promisify } from "node:util";
import { delay } from "../backoff.ts";
import { completeConfig, type LoadedSettings } from "../config.ts";
import { readSecretFile } from "../config/secret.ts";
import { MmliteError } from "../errors.ts";
import { configureLog } from "../log.ts";
import { decodeToken, type InviteToken, MAX_TOKEN_LENGTH } from "../node/invite_token.ts";
import type { JoinMode, TablePatterns } from "../node/join.ts";
import { readPendingJoin, removePendingJoin } from "../node/pending_join.ts";
import { addSettingOptions, type Context, flagsOf, type GlobalOptions, setAction } from "./context.ts";
import { loadLocalSettings } from "./local_settings.ts";
import { formatRunLine } from "./run_line.ts";
import { serveUntilSignal } from "./run.ts";

interface JoinOptions extends GlobalOptions {
  readonly inviteFile?: string;
  readonly without: readonly string[];
  readonly mode?: string;
  readonly createSchema?: boolean;
}

/** How often standard input that does not block is looked at, milliseconds. */
const INPUT_POLL_MS = 20;
/** Stands for the tables until the member has told its own. */
const NO_TABLES_YET = ["*.*"];

const ABOUT = `
TOKEN is what \`mmlite invite\` printed on a member. A command line is visible to every user of this machine: give -
to read the token from standard input, or --invite-file. The key is made here and never leaves this host.

The same tables must exist here as on the member, or be created by --create-schema (no functions, triggers, rights):
what is here and differs is named, and ends it. Where they are empty, the member's rows are copied, while everybody
goes on writing on the other nodes; where they are not, they must be equal, or --mode says what is to become of them,
as of \`mmlite copy\`. Without --tables those of the member are taken. When all is well this goes on in the foreground
as \`mmlite run\`, and prints the command line for the next start. One that was cut short goes on if it is run again;
once it has its certificate, without TOKEN too.

Exit codes: 0 stopped after it had joined; 1 rows or schemas differ, a member is to be asked and was not, or the token is
of no use; 64 the token or an option cannot be read; 69 the member or PostgreSQL cannot be reached; 75 stopped before,
or try again; 77 permission; 78 configuration.`;

/** Adds the command. */
export function addJoin(program: Command, context: Context, finish: (exitCode: number) => void): void {
  const join = program.command("join [TOKEN]").description("join a cluster by a token, then run")
    .option("--invite-file <FILE>", "file whose first line is the token")
    .option(
      "--without <NAME>",
      "go on although this member cannot be asked: what it has not sent by now never comes (repeatable)",
      (name: string, names: string[]) => [...names, name],
      [],
    )
    .option(
      "--mode <MODE>",
      "of rows that are here: replace gives them up, merge takes the newer one of each",
    )
    .option("--create-schema", "create the member's tables here first, as far as they are missing")
    .addHelpText("after", ABOUT);
  setAction<JoinOptions>(addSettingOptions(join), {
    action: (options, [token]) => joinAndRun(options, { context, given: token }),
    finish,
  });
}

async function joinAndRun(
  options: JoinOptions,
  { context, given }: { readonly context: Context; readonly given: string | undefined },
): Promise<number> {
  const mode = requireMode(options.mode);
  const loaded = await loadLocalSettings("join", { options, context });
  const text = await readToken(given, options.inviteFile);
  const token = text === null ? null : decodeToken(text);
  const settings = await settingsToJoin(loaded, token);
  const say = (sentence: string) => options.quiet || context.note(sentence);
  const { include = [], exclude } = settings.settings.tables;
  const own = include.length === 0 ? { exclude } : { include, exclude };
  const config = await completeConfig(withTables(settings, { include: NO_TABLES_YET, ...own }));
  await configureLog(config.log);
  return await serveUntilSignal(context, async (signal) => {
    const { joinCluster } = await import("../node/join.ts");
    const tables = await joinCluster({
      config,
      tables: own,
      token,
      without: options.without,
      mode,
      createSchema: options.createSchema === true,
      say,
      signal,
    });
    const isDefault = loaded.settings.node.cluster === config.node.cluster;
    const line = {
      cluster: isDefault ? null : config.node.cluster,
      tables: include.length === 0 ? tables : null,
    };
    say("This node has joined. From now on it is started by:");
    context.print(formatRunLine({ flags: flagsOf(options), file: options.config }, line));
    await removePendingJoin(config.state);
    return await completeConfig(withTables(settings, tables));
  });
}

/** Without one there must be no rows, or equal ones. */
function requireMode(mode: string | undefined): JoinMode | undefined {
  if (mode === undefined || mode === "replace" || mode === "merge") return mode;
  throw new MmliteError(
    "usage",
    `Cannot join with --mode ${JSON.stringify(mode)}: there is none of that name`,
    {
      hint: "Use replace or merge; without it rows that are here must be equal to those of the members",
    },
  );
}

/** The token as it was given; null if it was not. Throws `usage`, never with the token in it. */
async function readToken(given: string | undefined, file: string | undefined): Promise<string | null> {
  if (given !== undefined && file !== undefined) {
    throw new MmliteError("usage", "Cannot use both TOKEN and --invite-file", { hint: "Keep one of them" });
  }
  if (file !== undefined) return await readSecretFile(file);
  return given === "-" ? await readStandardInput() : given?.trim() ?? null;
}

/** Up to the end of the first line. Not by `process.stdin`, which on Deno would keep the process from ending. */
async function readStandardInput(): Promise<string> {
  const chunk = Buffer.alloc(MAX_TOKEN_LENGTH);
  let text = "";
  while (!text.includes("\n") && text.length < MAX_TOKEN_LENGTH) {
    const bytesRead = await readSome(chunk);
    if (bytesRead === 0) break;
    text += chunk.toString("latin1", 0, bytesRead);
  }
  return text.split("\n", 1)[0].trim();
}

/** Bytes read from standard input into `chunk`; 0 at its end. */
async function readSome(chunk: Buffer): Promise<number> {
  for (;;) {
    try {
      return (await promisify(read)(0, chunk, 0, chunk.length, null)).bytesRead;
    } catch (error) {
      // A pipe need not block: it may have nothing to read yet.
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
      await delay(INPUT_POLL_MS);
    }
  }
}

/** The settings with what a join decides: the cluster is the token's, and the peer port speaks TLS. */
async function settingsToJoin(loaded: LoadedSettings, token: InviteToken | null): Promise<LoadedSettings> {
  const { settings, origins } = loaded;
  const { peers } = settings.listen;
  if (settings.insecure || peers.tls === "off") {
    throw new MmliteError("config", "Cannot join without TLS: the certificate that a join gets is for TLS", {
      hint: "Leave out --insecure and tls: off",
    });
  }
  const cluster = token?.cluster ?? (await readPendingJoin(settings.state))?.cluster ?? settings.node.cluster;
  if (origins.get("node.cluster") !== "default" && settings.node.cluster !== cluster) {
    throw new MmliteError(
      "config",
      `Cannot join cluster "${cluster}": node.cluster is "${settings.node.cluster}" (${
        origins.get("node.cluster")
      })`,
      { hint: "Leave the setting out, or get a token of that cluster" },
    );
  }
  return {
    ...loaded,
    settings: {
      ...settings,
      node: { ...settings.node, cluster },
      listen: { ...settings.listen, peers: { ...peers, tls: peers.tls ?? {} } },
    },
  };
}

function withTables(loaded: LoadedSettings, { include, exclude }: TablePatterns): LoadedSettings {
  const tables = { include: [...include], exclude: [...exclude] };
  return { ...loaded, settings: { ...loaded.settings, tables } };
}
