/**
 * A site: one PostgreSQL and one mmlite, each a container. Only mmlite is on the network between the sites; its
 * PostgreSQL is on the network of the site alone.
 */
// @ts-types="@types/dockerode"
import type Dockerode from "dockerode";
// @ts-types="@types/pg"
import pg from "pg";
import { type StartedTestContainer, Wait } from "testcontainers";
import {
  containerById,
  createNetwork,
  createVolume,
  killContainer,
  LabelledContainer,
  logOf,
  removeVolume,
} from "./docker.ts";

/** Where peers listen, on all addresses of the container. */
const PEER_PORT = 7432;
const POSTGRES_PORT = 5432;
/** PostgreSQL's name on the network of its site. */
const POSTGRES_HOST = "postgres";
const PASSWORD = "of-the-test";
const DATABASE = "app";
/** The program and its state directory in the image. */
const PROGRAM = "/usr/bin/mmlite";
const STATE = "/var/lib/mmlite";
/** What mmlite logs once it answers commands. */
const READY = "The control API listens";
/** Time allowed for a container to be of use, milliseconds; initdb included. */
const START_TIMEOUT_MS = 60_000;

/** What a site is made of. */
export interface SiteOptions {
  readonly name: string;
  /** Images. */
  readonly postgres: string;
  readonly mmlite: string;
  /** The network between the sites. */
  readonly wan: Dockerode.Network;
  /** Run in the database before mmlite starts. */
  readonly schema: string;
}

interface SiteParts {
  /** The site's own network. */
  readonly network: Dockerode.Network;
  /** With mmlite's state. */
  readonly volume: string;
  readonly disposal: AsyncDisposableStack;
}

/** What a command printed, and its exit code. */
export interface ExecResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A PostgreSQL container; what it keeps is in the container, so it survives being killed. */
export class SitePostgres {
  readonly #container: Dockerode.Container;

  constructor(container: Dockerode.Container) {
    this.#container = container;
  }

  /** Crashes it. */
  async kill(): Promise<void> {
    await killContainer(this.#container);
  }

  async start(): Promise<void> {
    await this.#container.start();
  }

  /** Its address on the network of its site. */
  async address(): Promise<string> {
    const { NetworkSettings: { Networks: networks } } = await this.#container.inspect();
    return Object.values(networks)[0].IPAddress;
  }

  /** Whether this server can connect to one at `host`. */
  async reaches(host: string): Promise<boolean> {
    try {
      // The server does not heed connect_timeout.
      await this.sql(
        DATABASE,
        `CREATE EXTENSION IF NOT EXISTS dblink; SET statement_timeout = '3s';
         SELECT public.dblink_connect('host=${host} dbname=${DATABASE} user=postgres password=${PASSWORD}')`,
      );
      return true;
    } catch (thrown) {
      if (/statement timeout|could not establish connection/.test((thrown as Error).message)) return false;
      throw thrown;
    }
  }

  /** A connection as superuser, from this machine; its caller ends it. Docker chooses a port at every start. */
  async connect(database: string): Promise<pg.Client> {
    const { NetworkSettings: { Ports: ports } } = await this.#container.inspect();
    const port = ports?.[`${POSTGRES_PORT}/tcp`]?.[0]?.HostPort;
    if (port === undefined) throw new Error("Connection terminated: the container does not run");
    const client = new pg.Client({
      host: "127.0.0.1",
      port: Number(port),
      user: "postgres",
      password: PASSWORD,
      database,
    });
    client.on("error", () => {}); // Whoever uses it next is told.
    await client.connect();
    return client;
  }

  /** Runs one statement, or several without parameters; the rows of the (last) result. */
  // deno-lint-ignore no-explicit-any
  async sql(database: string, text: string, values?: unknown[]): Promise<any[]> {
    const client = await this.connect(database);
    try {
      const result = await client.query(text, values);
      return (Array.isArray(result) ? result.at(-1) : result).rows;
    } finally {
      await client.end();
    }
  }
}

/** A site whose PostgreSQL runs, and whose mmlite does once it founds a cluster or joins one; disposable. */
export class Site implements AsyncDisposable {
  readonly name: string;
  readonly server: SitePostgres;
  readonly database = DATABASE;
  readonly #options: SiteOptions;
  readonly #parts: SiteParts;
  #mmlite: StartedTestContainer | undefined;

  private constructor(options: SiteOptions, server: SitePostgres, parts: SiteParts) {
    this.name = options.name;
    this.server = server;
    this.#options = options;
    this.#parts = parts;
  }

  /** Makes the site, with nothing of mmlite but an empty volume. */
  static async make(options: SiteOptions): Promise<Site> {
    const { name, schema } = options;
    await using stack = new AsyncDisposableStack();
    const network = await createNetwork(name);
    stack.defer(() => network.remove());
    const volume = await createVolume(name);
    stack.defer(() => removeVolume(volume));
    const postgres = await new LabelledContainer(options.postgres)
      .withAttachments({ network, alias: POSTGRES_HOST })
      .withEnvironment({ POSTGRES_PASSWORD: PASSWORD })
      .withExposedPorts(POSTGRES_PORT)
      .withWaitStrategy(Wait.forLogMessage("ready to accept connections"))
      .withStartupTimeout(START_TIMEOUT_MS)
      .start();
    stack.defer(async () => void await postgres.stop());
    const server = new SitePostgres(await containerById(postgres.getId()));
    await server.sql("postgres", `CREATE DATABASE ${DATABASE}`);
    await server.sql(DATABASE, schema);
    return new Site(options, server, { network, volume, disposal: stack.move() });
  }

  /** How the other sites call this one. */
  get host(): string {
    return `mmlite-${this.name}`;
  }

  /** Starts mmlite as the first of a cluster, with a certificate authority of its own. */
  async found(): Promise<void> {
    const made = await this.#container(this.#options.mmlite, "cert", "ca")
      .withWaitStrategy(Wait.forOneShotStartup())
      .start();
    await made.stop();
    await this.#startMmlite(this.#options.mmlite);
  }

  /** Starts mmlite as a node that joins by a token of a member. */
  async join(member: Site): Promise<void> {
    const { exitCode, stdout, stderr } = await member.exec("invite", "--name", this.name);
    if (exitCode !== 0) throw new Error(`${member.name} does not invite: ${stderr}`);
    const joining = await this.#container(this.#options.mmlite, "join", stdout.trim())
      .withWaitStrategy(Wait.forLogMessage(READY))
      .start();
    await joining.stop({ timeout: START_TIMEOUT_MS });
    await this.#startMmlite(this.#options.mmlite);
  }

  /** Runs a command of mmlite in its container, such as `exec("peers", "list")`. */
  async exec(...args: string[]): Promise<ExecResult> {
    return await this.#running.exec([PROGRAM, ...args]);
  }

  /** What a command prints as JSON; throws if it fails. */
  // deno-lint-ignore no-explicit-any
  async json(...args: string[]): Promise<any> {
    const { exitCode, stdout, stderr } = await this.exec("-o", "json", ...args);
    if (exitCode !== 0) throw new Error(`mmlite ${args.join(" ")} on ${this.name}: ${exitCode}: ${stderr}`);
    return JSON.parse(stdout);
  }

  /** Crashes mmlite. */
  async killMmlite(): Promise<void> {
    await killContainer(await this.#present());
  }

  /** Starts the same container again. */
  async startMmlite(): Promise<void> {
    await (await this.#present()).start();
  }

  /** Replaces mmlite's container by one of another image, which has the same state and names. */
  async replaceMmlite(image: string): Promise<void> {
    await this.#running.stop({ timeout: START_TIMEOUT_MS });
    this.#mmlite = undefined;
    await this.#startMmlite(image);
  }

  /** Takes mmlite off the network between the sites. */
  async cut(): Promise<void> {
    await this.#options.wan.disconnect({ Container: this.#running.getId() });
  }

  /** Puts mmlite back on the network between the sites; its address there. */
  async heal(): Promise<string> {
    await this.#options.wan.connect({
      Container: this.#running.getId(),
      EndpointConfig: { Aliases: [this.host] },
    });
    return await this.wanAddress();
  }

  /** Mmlite's address on the network between the sites. */
  async wanAddress(): Promise<string> {
    const { NetworkSettings: { Networks: networks } } = await this.inspectMmlite();
    const wan = Object.values(networks).find(({ NetworkID: id }) => id === this.#options.wan.id);
    if (wan === undefined) throw new Error(`${this.name} is not on the network between the sites`);
    return wan.IPAddress;
  }

  /** How mmlite's container was made and runs. */
  async inspectMmlite(): Promise<Dockerode.ContainerInspectInfo> {
    return await (await this.#present()).inspect();
  }

  /** Everything that mmlite's present container has printed. */
  async log(): Promise<string> {
    return this.#mmlite ? await logOf(await this.#present()) : "";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#mmlite?.stop();
    await this.#parts.disposal.disposeAsync();
  }

  get #running(): StartedTestContainer {
    if (!this.#mmlite) throw new Error(`mmlite of ${this.name} does not run`);
    return this.#mmlite;
  }

  async #present(): Promise<Dockerode.Container> {
    return await containerById(this.#running.getId());
  }

  async #startMmlite(image: string): Promise<void> {
    this.#mmlite = await this.#container(image, "run")
      .withRestarts()
      .withWaitStrategy(Wait.forLogMessage(READY))
      .start();
  }

  /** A container of mmlite with this site's state and names, on both its networks. */
  #container(image: string, ...command: string[]): LabelledContainer {
    const alias = this.host;
    return new LabelledContainer(image)
      .withAttachments({ network: this.#parts.network, alias }, { network: this.#options.wan, alias })
      .withLeastRights()
      .withBindMounts([{ source: this.#parts.volume, target: STATE }])
      .withEnvironment({
        MMLITE_NAME: this.name,
        MMLITE_POSTGRES: `postgres://postgres@${POSTGRES_HOST}/${DATABASE}`,
        PGPASSWORD: PASSWORD,
        MMLITE_TABLES: "public.*",
        MMLITE_LISTEN: `0.0.0.0:${PEER_PORT}`,
        MMLITE_ADVERTISE: `https://${this.host}:${PEER_PORT}`,
      })
      .withCommand(command)
      .withStartupTimeout(START_TIMEOUT_MS);
  }
}
