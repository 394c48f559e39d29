/**
 * Real mmlite processes for whole-node tests and the demo: one per database, on free ports of 127.0.0.1, gone
 * without a trace when disposed of, or when the process that started them dies.
 *
 * `MMLITE_PROGRAM` names another program to test than mod.ts, such as a packaged binary: a command line whose
 * words are separated by spaces.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { type Leash, openLeash } from "./leash.ts";
import { eventually, within } from "./poll.ts";
import { signalProcess } from "./processes.ts";
import { freePort, removeScratch, scratchBase } from "./scratch.ts";

/** Time allowed for a node to become ready, milliseconds; creating its schema included. */
const READY_TIMEOUT_MS = 30_000;
/** Time allowed for a node to end after SIGTERM, milliseconds. */
const STOP_TIMEOUT_MS = 30_000;

/** What node to start. */
export interface MmliteOptions {
  readonly name: string;
  /** URL of its database. */
  readonly postgres: string;
  /** Table patterns; `public.*` unless given. */
  readonly tables?: readonly string[];
  /** The directory of its certificate files, as `mmlite cert` names them; cleartext unless given. */
  readonly tls?: string;
  /** The command and what belongs to it, such as `["join", token]`, asked for at each start; `run` unless given. */
  readonly command?: () => readonly string[];
  /** Further arguments of the command. */
  readonly extraArgs?: readonly string[];
  /** Further environment variables. */
  readonly env?: Readonly<Record<string, string>>;
  /** Words to put before the command line, such as `ip netns exec NAME`. */
  readonly enter?: readonly string[];
  /** The host whose peer port it listens on; 127.0.0.1 unless given. */
  readonly host?: string;
  /** Whether to wait for `/readyz`; true unless given. */
  readonly awaitReady?: boolean;
  /** Time allowed for it to become ready, milliseconds; {@link READY_TIMEOUT_MS} unless given. */
  readonly readyTimeoutMs?: number;
}

/** What the control API answered. */
export interface ApiAnswer {
  readonly status: number;
  /** The parsed body, or the text where it is not JSON, or undefined where there is none. */
  // deno-lint-ignore no-explicit-any
  readonly json: any;
}

/** What a command printed, and its exit code. */
export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A node; its ports and state stay the same when it is killed and started again. */
export interface Mmlite extends AsyncDisposable {
  readonly name: string;
  /** Its URL for peers. */
  readonly peerUrl: string;
  /** The URL of its control API. */
  readonly apiUrl: string;
  /** Its state directory. */
  readonly stateDir: string;
  /** Process id; undefined while it does not run. */
  readonly pid: number | undefined;
  /** A request to the control API, such as `api("PUT", "/v1/peers/b", { url })`. */
  api(method: string, path: string, body?: unknown): Promise<ApiAnswer>;
  /** Runs another command of the same program against this node's control API. */
  cli(...args: string[]): Promise<CommandResult>;
  /** Starts it if it does not run, and waits until it is ready. */
  start(): Promise<void>;
  /** Sends a signal and returns at once. */
  signal(name: Deno.Signal): void;
  /** Ends it with a signal (SIGKILL unless given) and waits until it is gone. */
  kill(name?: Deno.Signal): Promise<void>;
  /** Ends it with SIGTERM; the exit code. */
  stop(): Promise<number>;
  /** Stops and starts it. */
  restart(): Promise<void>;
  /** Waits until it is ready. */
  ready(): Promise<void>;
  /** Waits until it has ended; the exit code, 128 plus the signal's number if one killed it. */
  exit(timeoutMs?: number): Promise<number>;
  /** Everything it has printed. */
  log(): Promise<string>;
}

/** The command line of the program under test: what `deno task mmlite` runs, unless another is given. */
export function mmliteProgram(): string[] {
  const given = Deno.env.get("MMLITE_PROGRAM");
  if (given) return given.split(/\s+/).filter(Boolean);
  const root = join(import.meta.dirname!, "../..");
  return [
    Deno.execPath(),
    "run",
    "--quiet",
    "-A",
    "--no-check",
    "--v8-flags=--max-semi-space-size=2,--max-old-space-size=256,--heap-growing-percent=150",
    `--config=${root}/deno.json`,
    join(root, "mod.ts"),
  ];
}

/** Runs one command of mmlite to its end. */
export async function runMmlite(
  args: readonly string[],
  options: { env?: Readonly<Record<string, string>>; cwd?: string } = {},
): Promise<CommandResult> {
  const [program, ...first] = mmliteProgram();
  const output = await new Deno.Command(program, {
    args: [...first, ...args],
    cwd: options.cwd,
    clearEnv: true,
    env: environment(options.env),
    stdin: "null",
  }).output();
  const decoder = new TextDecoder();
  return { code: output.code, stdout: decoder.decode(output.stdout), stderr: decoder.decode(output.stderr) };
}

/** Starts a node and, unless told otherwise, waits until it is ready. */
export async function startMmlite(options: MmliteOptions): Promise<Mmlite> {
  const directory = await Deno.makeTempDir({ dir: scratchBase(), prefix: `mmlite-node-${options.name}-` });
  const node = new MmliteProcess(options, directory);
  try {
    await node.spawn();
    if (options.awaitReady ?? true) await node.ready();
    return node;
  } catch (thrown) {
    await node[Symbol.asyncDispose]();
    throw thrown;
  }
}

/** Makes every node a peer of every other through their control APIs. */
export async function connectAll(nodes: readonly Mmlite[]): Promise<void> {
  for (const node of nodes) {
    for (const peer of nodes) {
      if (peer === node) continue;
      const { status, json } = await node.api("PUT", `/v1/peers/${peer.name}`, { url: peer.peerUrl });
      if (status !== 201 && status !== 200) {
        throw new Error(`Cannot make ${peer.name} a peer of ${node.name}: ${status} ${JSON.stringify(json)}`);
      }
    }
  }
}

class MmliteProcess implements Mmlite {
  readonly name: string;
  readonly stateDir: string;
  readonly #options: MmliteOptions;
  readonly #directory: string;
  readonly #logFile: string;
  readonly #leash: Leash;
  readonly #peerAddress: string;
  readonly #apiSocket: string;
  readonly #apiClient: Deno.HttpClient | undefined;
  readonly #apiAddress = `127.0.0.1:${freePort()}`;
  #child: Deno.ChildProcess | undefined;
  /** How the process that runs, or ran last, ends. */
  #status: Promise<Deno.CommandStatus> | undefined;

  constructor(options: MmliteOptions, directory: string) {
    this.name = options.name;
    this.#options = options;
    this.#directory = directory;
    this.stateDir = join(directory, "state");
    this.#logFile = join(directory, "log");
    this.#peerAddress = `${options.host ?? "127.0.0.1"}:${freePort()}`;
    // In a network namespace only files are shared with it.
    this.#apiSocket = join(directory, "api.sock");
    this.#apiClient = options.enter &&
      Deno.createHttpClient({ proxy: { transport: "unix", path: this.#apiSocket } });
    this.#leash = openLeash(directory);
  }

  get peerUrl(): string {
    return `${this.#options.tls === undefined ? "http" : "https"}://${this.#peerAddress}`;
  }

  get apiUrl(): string {
    return `http://${this.#apiAddress}`;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  async spawn(): Promise<void> {
    const { name, postgres, tables = ["public.*"], tls, extraArgs = [], env, enter } = this.#options;
    const command = this.#options.command?.() ?? ["run"];
    const [shell, ...words] = [...enter ?? [], "sh"];
    // The shell only redirects: `exec` makes its process the program.
    const child = new Deno.Command(shell, {
      args: [
        ...words,
        ...["-c", 'log=$1; shift; exec "$@" >>"$log" 2>&1', "sh", this.#logFile, ...mmliteProgram()],
        ...[
          ...command,
          "--name",
          name,
          "--postgres",
          postgres,
          ...tables.flatMap((one) => ["--tables", one]),
        ],
        ...["--listen", this.#peerAddress, "--api", this.#apiAddress, "--state", this.stateDir],
        ...(enter ? ["--api-socket", this.#apiSocket] : []),
        ...(tls === undefined ? [] : tlsArgs(tls)),
        ...extraArgs,
      ],
      clearEnv: true,
      env: environment(env),
      stdin: "null",
      stdout: "null",
      stderr: "null",
      detached: true, // A Ctrl-C is for its owner, who then stops it.
    }).spawn();
    this.#child = child;
    await this.#leash.hold(child.pid);
    this.#status = child.status.then(async (status) => {
      this.#child = undefined;
      await this.#leash.hold(0);
      return status;
    });
  }

  async start(): Promise<void> {
    if (!this.#child) await this.spawn();
    await this.ready();
  }

  async ready(): Promise<void> {
    const look = async () => !this.#child || (await this.api("GET", "/readyz")).status === 200;
    try {
      const timeoutMs = this.#options.readyTimeoutMs ?? READY_TIMEOUT_MS;
      await eventually(`${this.name} to be ready`, look, { timeoutMs });
      if (!this.#child) throw new Error(`Cannot start ${this.name}: it exited`);
    } catch (thrown) {
      throw new Error(`${(thrown as Error).message}; its output:\n${await this.log()}`, { cause: thrown });
    }
  }

  async api(method: string, path: string, body?: unknown): Promise<ApiAnswer> {
    const response = await fetch(this.apiUrl + path, {
      method,
      client: this.#apiClient,
      ...(body === undefined
        ? {}
        : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
    });
    const text = await response.text();
    return { status: response.status, json: parseBody(text) };
  }

  async cli(...args: string[]): Promise<CommandResult> {
    const api = this.#apiClient ? `unix:${this.#apiSocket}` : this.#apiAddress;
    return await runMmlite(["--api", api, ...args], { env: this.#options.env });
  }

  signal(name: Deno.Signal): void {
    if (this.#child) signalProcess(this.#child.pid, name);
  }

  async kill(name: Deno.Signal = "SIGKILL"): Promise<void> {
    this.signal(name);
    await this.exit();
  }

  async stop(): Promise<number> {
    this.signal("SIGTERM");
    this.signal("SIGCONT"); // A process stopped by SIGSTOP would not see the first.
    return await this.exit();
  }

  async exit(timeoutMs = STOP_TIMEOUT_MS): Promise<number> {
    const { code } = await within(`${this.name} to end`, timeoutMs, this.#status!);
    return code;
  }

  async restart(): Promise<void> {
    await this.stop();
    await this.start();
  }

  async log(): Promise<string> {
    return await Deno.readTextFile(this.#logFile).catch(() => "");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      if (this.#child) await this.stop();
    } catch (thrown) {
      await this.kill();
      throw new Error(`${(thrown as Error).message}; its output:\n${await this.log()}`, { cause: thrown });
    } finally {
      this.#apiClient?.close();
      await removeScratch(this.#directory);
      await this.#leash.release();
    }
  }
}

function tlsArgs(directory: string): string[] {
  const place = (flag: string, name: string) => [`--tls-${flag}`, join(directory, name)];
  const caKey = existsSync(join(directory, "ca-key.pem")) ? place("ca-key", "ca-key.pem") : [];
  return [...place("cert", "node.pem"), ...place("key", "node-key.pem"), ...place("ca", "ca.pem"), ...caKey];
}

/** The caller's environment without what would configure mmlite or reach another database. */
function environment(extra: Readonly<Record<string, string>> = {}): Record<string, string> {
  const inherited = Object.entries(Deno.env.toObject()).filter(([name]) =>
    !/^(MMLITE_|PG|DATABASE_URL$)/.test(name)
  );
  return { ...Object.fromEntries(inherited), NO_COLOR: "1", ...extra };
}

function parseBody(text: string): unknown {
  if (text === "") return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
