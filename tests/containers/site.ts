/**
 * A site: one PostgreSQL and one mmlite, each a container. Only mmlite is on the network between the sites; its
 * PostgreSQL is on the network of the site alone.
 */
// @ts-types="@types/dockerode"
import type Dockerode from "dockerode";
// @ts-types="@types/pg"
import pg from "pg";
import { type StartedTestContainer, Wait } from "testcontainers";
import { eventually } from "../support/poll.ts";
import {
  containerById,
  createNetwork,
  createVolume,
  killContainer,
  LabelledContainer,
  removeVolume,
} from "./docker.ts";

/** Where peers listen: mmlite's default port, on all addresses of the container. */
const PEER_PORT = 7432;
const POSTGRES_PORT = 5432;
const PASSWORD = "of-the-test";
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
    const { NetworkSettings: { Networks: networks } } = await this.#container
      .inspect();
    return Object.values(networks)[0].IPAddress;
  }

  /** Whether this server can connect to one at `host`. */
  async reaches(host: string): Promise<boolean> {
    try {
      // The server does not heed connect_timeout.
      await this.sql(
        "app",
        `CREATE EXTENSION IF NOT EXISTS dblink; SET statement_timeout = '3s';
         SELECT public.dblink_connect('host=${host} dbname=app user=postgres password=${PASSWORD}')`,
      );
      return true;
    } catch (thrown) {
      if (/statement timeout|could not establish connection/.test((thrown as Error).message)) return false;
      throw thrown;
    }
  }

  /** A connection as superuser, from this machine; its caller ends it. Docker chooses a port at every start. */
  async connect(database: string): Promise<pg.Client> {
    const { NetworkSettings: { Ports: ports } } = await this.#container
      .inspect();
    const port = ports?.[`${POSTGRES_PORT}/tcp`]?.[0]?.HostPort;
    if (port === undefined) {
      throw new Error("Connection terminated: the container does not run");
    }
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

/** A running site; gone without a trace when disposed of. */
export class Site implements AsyncDisposable {
  readonly name: string;
  readonly server: SitePostgres;
  readonly database = "app";
  readonly #options: SiteOptions;
  readonly #network: Dockerode.Network;
  readonly #volume: string;
  readonly #disposal: AsyncDisposableStack;
  #mmlite: StartedTestContainer | undefined;

  private constructor(
    options: SiteOptions,
    parts: {
      server: SitePostgres;
      network: Dockerode.Network;
      volume: string;
      disposal: AsyncDisposableStack;
    },
  ) {
    this.name = options.name;
    this.server = parts.server;
    this.#options = options;
    this.#network = parts.network;
    this.#volume = parts.volume;
    this.#disposal = parts.disposal;
  }

  /** Starts both containers; returns once mmlite's control API answers. */
  static async start(options: SiteOptions): Promise<Site> {
    const { name, schema } = options;
    await using disposal = new AsyncDisposableStack();
    const network = await createNetwork(name);
    disposal.defer(() => network.remove());
    const volume = await createVolume(name);
    disposal.defer(() => removeVolume(volume));
    const postgres = await new LabelledContainer(options.postgres)
      .withAttachments({ network, alias: "postgres" })
      .withEnvironment({ POSTGRES_PASSWORD: PASSWORD })
      .withExposedPorts(POSTGRES_PORT)
      .withWaitStrategy(Wait.forLogMessage("ready to accept connections"))
      .withStartupTimeout(START_TIMEOUT_MS)
      .start();
    disposal.defer(async () => void await postgres.stop());
    const server = new SitePostgres(await containerById(postgres.getId()));
    await server.sql("postgres", "CREATE DATABASE app");
    await server.sql("app", schema);
    const site = new Site(options, {
      server,
      network,
      volume,
      disposal: disposal.move(),
    });
    await site.#startMmlite(options.mmlite);
    return site;
  }

  /** How the other sites call this one. */
  get host(): string {
    return `mmlite-${this.name}`;
  }

  get url(): string {
    return `http://${this.host}:${PEER_PORT}`;
  }

  /** Runs a command of mmlite in its container, such as `exec("peers", "list")`. */
  async exec(...args: string[]): Promise<ExecResult> {
    return await this.#running.exec(["mmlite", ...args]);
  }

  /** What a command prints as JSON; throws if it fails. */
  // deno-lint-ignore no-explicit-any
  async json(...args: string[]): Promise<any> {
    const { exitCode, stdout, stderr } = await this.exec("-o", "json", ...args);
    if (exitCode !== 0) {
      throw new Error(
        `mmlite ${args.join(" ")} on ${this.name}: ${exitCode}: ${stderr}`,
      );
    }
    return JSON.parse(stdout);
  }

  /** Crashes mmlite. */
  async killMmlite(): Promise<void> {
    await killContainer(await this.#container());
  }

  /** Starts the same container again. */
  async startMmlite(): Promise<void> {
    await (await this.#container()).start();
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
    const { NetworkSettings: { Networks: networks } } = await this
      .inspectMmlite();
    const wan = Object.values(networks).find(({ NetworkID: id }) => id === this.#options.wan.id);
    if (wan === undefined) {
      throw new Error(`${this.name} is not on the network between the sites`);
    }
    return wan.IPAddress;
  }

  /** How mmlite's container was made and runs. */
  async inspectMmlite(): Promise<Dockerode.ContainerInspectInfo> {
    return await (await this.#container()).inspect();
  }

  /** Everything that mmlite's present container has printed. */
  async log(): Promise<string> {
    const output = await (await this.#container()).logs({
      stdout: true,
      stderr: true,
    });
    return output.toString();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#mmlite?.stop();
    await this.#disposal.disposeAsync();
  }

  get #running(): StartedTestContainer {
    if (!this.#mmlite) throw new Error(`mmlite of ${this.name} does not run`);
    return this.#mmlite;
  }

  async #container(): Promise<Dockerode.Container> {
    return await containerById(this.#running.getId());
  }

  async #startMmlite(image: string): Promise<void> {
    this.#mmlite = await new LabelledContainer(image)
      .withAttachments(
        { network: this.#network, alias: this.host },
        { network: this.#options.wan, alias: this.host },
      )
      .withLeastRights()
      .withBindMounts([{ source: this.#volume, target: "/var/lib/mmlite" }])
      .withEnvironment({
        MMLITE_NAME: this.name,
        MMLITE_POSTGRES: "postgres://postgres@postgres/app",
        PGPASSWORD: PASSWORD,
        MMLITE_TABLES: "public.*",
        MMLITE_LISTEN: `0.0.0.0:${PEER_PORT}`,
        MMLITE_ADVERTISE: this.url,
        MMLITE_INSECURE: "true",
      })
      .withWaitStrategy(Wait.forLogMessage("control API listens"))
      .withStartupTimeout(START_TIMEOUT_MS)
      .start();
  }
}

/** Makes every site a peer of every other and waits until all links stream. */
export async function joinSites(sites: readonly Site[]): Promise<void> {
  for (const site of sites) {
    for (const peer of sites) {
      if (peer !== site) await site.json("peers", "add", peer.name, peer.url);
    }
  }
  await Promise.all(sites.map(streaming));
}

/** Waits until all links of a site stream. */
export async function streaming(site: Site): Promise<void> {
  await eventually(`the links of ${site.name} to stream`, async () => {
    for (
      const { name, state, last_error: error } of (await site.json("peers", "list")).items
    ) {
      if (state !== "streaming") {
        throw new Error(
          `${name} is ${state}, last error ${JSON.stringify(error)}`,
        );
      }
    }
    return true;
  }, { intervalMs: 500 });
}
