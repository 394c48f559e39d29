/**
 * Real PostgreSQL servers, 10 to 18, for tests and the demo: started in a moment, on a free port and a private
 * socket, and gone without a trace when disposed of, or when the process that started them dies.
 */
import { join } from "node:path";
// @ts-types="@types/pg"
import pg from "pg";
import { type Leash, openLeash } from "./leash.ts";
import { eventually, within } from "./poll.ts";
import {
  copyCluster,
  defaultCache,
  ensureBinaries,
  ensureTemplate,
  SERVER_ENVIRONMENT,
} from "./postgres_binaries.ts";
import {
  addSettings,
  isReady,
  removeSharedMemory,
  type ServerSettings,
  SUPERUSER,
  writeAccessRules,
} from "./postgres_data_dir.ts";
import type { PostgresMajor } from "./postgres_packages.ts";
import { childrenOf, running, signalProcess } from "./processes.ts";
import { freePort, makeScratch, removeScratch, type ServerUser, serverUser } from "./scratch.ts";

export type { ServerSettings } from "./postgres_data_dir.ts";
export { POSTGRES_MAJORS, type PostgresMajor } from "./postgres_packages.ts";

/** Time allowed for a server to accept connections, milliseconds; recovery after a crash included. */
const START_TIMEOUT_MS = 60_000;
/** Time allowed for a server to stop, milliseconds; a fast stop waits for walsenders to send what is left. */
const STOP_TIMEOUT_MS = 60_000;
/** How many ports are tried when another process takes the chosen one first. */
const PORT_ATTEMPTS = 5;

/** How a server ends: `smart` waits for clients, `fast` disconnects them, `immediate` needs recovery after it. */
export type StopMode = "smart" | "fast" | "immediate";
const STOP_SIGNALS = { smart: "SIGTERM", fast: "SIGINT", immediate: "SIGQUIT" } as const;

/** What kind of server to start; only the major release has no default. */
export interface StartOptions {
  readonly major: PostgresMajor;
  /** Added to {@link defaultSettings}, or in place of them. */
  readonly settings?: ServerSettings;
  /** TCP port; a free one unless given. */
  readonly port?: number;
  /** Data directory of a stopped server to start a copy of: a clone, or a restored backup. */
  readonly cloneOf?: string;
  /** How everyone but the superuser on the socket proves who they are, as in pg_hba.conf; `trust` unless given. */
  readonly authMethod?: "trust" | "md5" | "scram-sha-256" | "password" | "reject";
  /** `UTF8` unless given. */
  readonly encoding?: string;
  /** `C` unless given. */
  readonly locale?: string;
  /** Words to put before the command line, to be run by root, such as `ip netns exec NAME`. */
  readonly enter?: readonly string[];
  /** Further environment variables of its processes. */
  readonly env?: Readonly<Record<string, string>>;
  /** Where programs and templates are kept; the shared cache in the temporary directory unless given. */
  readonly cache?: string;
}

/** How a URL names the server. */
export interface UrlOptions {
  /** Over TCP rather than the unix socket. */
  readonly tcp?: boolean;
  readonly user?: string;
  readonly password?: string;
}

/** A server; it may be stopped and started again until it is disposed of. */
export interface PostgresServer extends AsyncDisposable {
  readonly major: PostgresMajor;
  /** Directory of the unix socket. */
  readonly host: string;
  readonly port: number;
  readonly dataDir: string;
  /** Process id of the postmaster; undefined while stopped. */
  readonly pid: number | undefined;
  /** A connection string for `database` (`postgres` unless given), over the unix socket unless told. */
  url(database?: string, options?: UrlOptions): string;
  /** Runs one statement, or several without parameters, as superuser; the rows of the (last) result. */
  // deno-lint-ignore no-explicit-any
  sql(database: string, text: string, parameters?: unknown[]): Promise<any[]>;
  /** A connection as superuser, for transactions; its caller ends it. */
  connect(database: string): Promise<pg.Client>;
  createDatabase(name: string): Promise<void>;
  /** Starts it if it is stopped; settings given here are added for good. */
  start(settings?: ServerSettings): Promise<void>;
  /** Stops it and waits until its processes are gone; `fast` unless given. */
  stop(mode?: StopMode): Promise<void>;
  /** Stops (`fast`) and starts it on the same port. */
  restart(settings?: ServerSettings): Promise<void>;
  /** Ends every process of the server with SIGKILL: a crash. */
  kill(): Promise<void>;
  /** Everything that the server has logged. */
  log(): Promise<string>;
}

/** What every server is set to: ready for logical replication in both directions, small, and with fsync on. */
export function defaultSettings(major: PostgresMajor): ServerSettings {
  return {
    wal_level: "logical",
    max_wal_senders: "20",
    max_replication_slots: "20",
    ...(major >= 18 ? { max_active_replication_origins: "20" } : {}),
    track_commit_timestamp: "on",
    shared_buffers: "32MB",
    listen_addresses: "127.0.0.1",
    log_line_prefix: "%m [%p] %u@%d ",
  };
}

/** Starts a server and returns once it accepts connections. */
export async function startPostgres(options: StartOptions): Promise<PostgresServer> {
  const { major, cache = defaultCache(), encoding = "UTF8", locale = "C" } = options;
  const binaries = await ensureBinaries(major, cache);
  const template = options.cloneOf ?? await ensureTemplate(major, { cache, encoding, locale });
  const directory = await makeScratch(`pg${major}`);
  await Deno.chmod(directory, 0o755);
  const server = new EmbeddedServer(major, {
    ...{ binaries, directory },
    ...{ enter: options.enter ?? [], env: options.env ?? {} },
  });
  try {
    await copyCluster(template, server.dataDir);
    // A network namespace holds nobody but whom the test puts there.
    const [listen_addresses, from] = options.enter ? ["*", "all"] : ["127.0.0.1", "127.0.0.1/32"];
    await writeAccessRules(server.dataDir, { method: options.authMethod ?? "trust", from });
    await addSettings(server.dataDir, {
      ...defaultSettings(major),
      listen_addresses,
      unix_socket_directories: directory,
      ...options.settings,
    });
    await server.startOnFreePort(options.port);
    return server;
  } catch (thrown) {
    await server[Symbol.asyncDispose]();
    throw thrown;
  }
}

/** What leaves root's account once `enter`, which needs it, has done its work. */
function switchTo(user: ServerUser | undefined, enter: readonly string[]): string[] {
  if (user === undefined || enter.length === 0) return [];
  return ["setpriv", `--reuid=${user.uid}`, `--regid=${user.gid}`, "--clear-groups"];
}

class EmbeddedServer implements PostgresServer {
  readonly major: PostgresMajor;
  readonly host: string;
  readonly dataDir: string;
  readonly #binaries: string;
  readonly #enter: readonly string[];
  readonly #env: Readonly<Record<string, string>>;
  readonly #logFile: string;
  readonly #leash: Leash;
  #port = 0;
  #postmaster: Deno.ChildProcess | undefined;
  #stopped: Promise<void> = Promise.resolve();

  constructor(
    major: PostgresMajor,
    places: {
      binaries: string;
      directory: string;
      enter: readonly string[];
      env: Readonly<Record<string, string>>;
    },
  ) {
    this.major = major;
    this.#enter = places.enter;
    this.#env = places.env;
    this.host = places.directory;
    this.dataDir = join(places.directory, "data");
    this.#binaries = places.binaries;
    this.#logFile = join(places.directory, "server.log");
    this.#leash = openLeash(places.directory);
  }

  get port(): number {
    return this.#port;
  }

  get pid(): number | undefined {
    return this.#postmaster?.pid;
  }

  url(database = "postgres", { tcp = false, user = SUPERUSER, password }: UrlOptions = {}): string {
    const [name, role, secret] = [database, user, password].map((part) => encodeURIComponent(part ?? ""));
    if (tcp) return `postgres://${role}${password ? `:${secret}` : ""}@127.0.0.1:${this.#port}/${name}`;
    const query = [`host=${this.host}`, `port=${this.#port}`, `user=${role}`];
    if (password) query.push(`password=${secret}`);
    return `postgres:///${name}?${query.join("&")}`;
  }

  async connect(database: string): Promise<pg.Client> {
    const client = new pg.Client({ host: this.host, port: this.#port, user: SUPERUSER, database });
    client.on("error", () => {}); // A killed server; whoever awaits a query is told by the query.
    await client.connect();
    return client;
  }

  // deno-lint-ignore no-explicit-any
  async sql(database: string, text: string, parameters?: unknown[]): Promise<any[]> {
    const client = await this.connect(database);
    try {
      const result: pg.QueryResult | pg.QueryResult[] = await client.query(text, parameters);
      return (Array.isArray(result) ? result.at(-1) : result)?.rows ?? [];
    } finally {
      await client.end();
    }
  }

  async createDatabase(name: string): Promise<void> {
    await this.sql("postgres", `CREATE DATABASE ${pg.escapeIdentifier(name)}`);
  }

  async startOnFreePort(port: number | undefined): Promise<void> {
    for (let attempt = 1;; attempt++) {
      this.#port = port ?? freePort();
      try {
        return await this.start({ port: String(this.#port) });
      } catch (thrown) {
        const taken = (await this.log()).includes("Address already in use");
        if (port !== undefined || !taken || attempt === PORT_ATTEMPTS) throw thrown;
        await Deno.remove(this.#logFile);
      }
    }
  }

  async start(settings: ServerSettings = {}): Promise<void> {
    if (this.#postmaster) return;
    await addSettings(this.dataDir, settings);
    const { pid } = await this.#spawn();
    const settled = async () => !this.#postmaster || await isReady(this.dataDir, pid);
    try {
      await eventually(`PostgreSQL ${this.major} to start`, settled, {
        timeoutMs: START_TIMEOUT_MS,
        intervalMs: 20,
      });
      if (!this.#postmaster) throw new Error(`Cannot start PostgreSQL ${this.major}: it exited`);
    } catch (thrown) {
      await this.kill();
      throw new Error(`${(thrown as Error).message}; its log:\n${await this.log()}`, { cause: thrown });
    }
  }

  async #spawn(): Promise<Deno.ChildProcess> {
    const program = join(this.#binaries, "bin/postgres");
    const user = serverUser();
    const [entrance, ...words] = [...this.#enter, ...switchTo(user, this.#enter), "sh"];
    const postmaster = new Deno.Command(entrance, {
      // The shell only redirects: `exec` makes its process the postmaster.
      args: [
        ...[...words, "-c", 'log=$1; shift; exec env "$@" >>"$log" 2>&1', "sh", this.#logFile],
        ...Object.entries(this.#env).map(([name, value]) => `${name}=${value}`),
        ...[program, "-D", this.dataDir],
      ],
      cwd: this.host,
      clearEnv: true,
      env: SERVER_ENVIRONMENT,
      stdin: "null",
      stdout: "null",
      stderr: "null",
      detached: true, // A Ctrl-C is for its owner, who then stops it.
      ...(this.#enter.length === 0 ? user : {}),
    }).spawn();
    this.#postmaster = postmaster;
    await this.#leash.hold(postmaster.pid);
    this.#stopped = postmaster.status.then(async () => {
      this.#postmaster = undefined;
      await this.#leash.hold(0);
    });
    return postmaster;
  }

  async stop(mode: StopMode = "fast"): Promise<void> {
    if (!this.#postmaster) return;
    signalProcess(this.#postmaster.pid, STOP_SIGNALS[mode]);
    await within(`PostgreSQL ${this.major} to stop`, STOP_TIMEOUT_MS, this.#stopped);
  }

  async restart(settings?: ServerSettings): Promise<void> {
    await this.stop();
    await this.start(settings);
  }

  async kill(): Promise<void> {
    const postmaster = this.#postmaster;
    if (!postmaster) return;
    // Stopped first, so that it forks no more; killed first, or it would see its children die and recover.
    signalProcess(postmaster.pid, "SIGSTOP");
    const children = await childrenOf(postmaster.pid);
    signalProcess(postmaster.pid, "SIGKILL");
    for (const child of children) signalProcess(child, "SIGKILL");
    await this.#stopped;
    await eventually("killed server processes to end", async () => !(await running(children)).length, {
      intervalMs: 5,
    });
  }

  async log(): Promise<string> {
    return await Deno.readTextFile(this.#logFile).catch(() => "");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#postmaster) await this.stop("immediate");
    else await removeSharedMemory(this.dataDir);
    await removeScratch(this.host);
    await this.#leash.release();
  }
}
