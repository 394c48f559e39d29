/**
 * Databases on several servers with a node beside each, all of them peers of each other, for whole-node tests.
 */
// @ts-types="@types/pg"
import type pg from "pg";
import { connectAll, type Mmlite, startMmlite } from "./mmlite.ts";
import { eventually } from "./poll.ts";
import type { PostgresServer } from "./postgres.ts";

/** One database of a cluster. */
export interface ClusterMember {
  readonly server: PostgresServer;
  readonly database: string;
  /** A superuser's session with the database's own settings. */
  readonly client: pg.Client;
  readonly node: Mmlite;
}

/** A member before it is started. */
export interface MemberOptions {
  readonly server: PostgresServer;
  /** Of the node; names slots and origins, so unlike that of any other node on the same server. */
  readonly name: string;
  /** Run before anything is replicated. */
  readonly schema: string;
  /** Settings of the database, as `ALTER DATABASE … SET` takes them. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Further arguments of the node. */
  readonly extraArgs?: readonly string[];
}

/** A running cluster; see the module. */
export interface Cluster extends AsyncDisposable {
  readonly members: readonly ClusterMember[];
}

const MARKS = "CREATE TABLE public.mark (node text, number int, PRIMARY KEY (node, number))";

/** Creates the databases, starts the nodes and makes them peers; returns once every link streams. */
export async function startCluster(
  database: string,
  options: readonly MemberOptions[],
): Promise<Cluster> {
  await using members = new AsyncDisposableStack();
  const started = await Promise.all(options.map(async (one) => {
    const member = await startMember(database, one);
    members.defer(async () => {
      await member.client.end();
      await member.node[Symbol.asyncDispose]();
    });
    return member;
  }));
  await connectAll(started.map(({ node }) => node));
  for (const { node } of started) await eventually(`${node.name} to stream`, () => streams(node));
  const owned = members.move();
  return { members: started, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

async function startMember(
  database: string,
  { server, name, schema, settings = {}, extraArgs }: MemberOptions,
): Promise<ClusterMember> {
  await server.createDatabase(database);
  for (const [setting, value] of Object.entries(settings)) {
    await server.sql("postgres", `ALTER DATABASE "${database}" SET ${setting} = ${value}`);
  }
  const client = await server.connect(database);
  try {
    await client.query(`${MARKS}; ${schema}`);
    const node = await startMmlite({ name, postgres: server.url(database), extraArgs });
    return { server, database, client, node };
  } catch (thrown) {
    await client.end();
    throw thrown;
  }
}

async function streams(node: Mmlite): Promise<boolean> {
  const { json } = await node.api("GET", "/v1/peers");
  for (const { name, state, last_error: error } of json.items) {
    if (state !== "streaming") throw new Error(`${name} is ${state}, last error ${JSON.stringify(error)}`);
  }
  return true;
}

/**
 * Waits until all that `from` has committed is visible at `to`: transactions arrive in order, so a mark that is
 * written last arrives last. It is one more local transaction of `from`.
 */
export async function arrived(from: ClusterMember, to: ClusterMember, timeoutMs?: number): Promise<void> {
  const { rows: [{ number }] } = await from.client.query(
    "INSERT INTO public.mark SELECT $1, count(*) FROM public.mark WHERE node = $1 RETURNING number",
    [from.node.name],
  );
  const look = async () => {
    const { rowCount } = await to.client.query("SELECT FROM public.mark WHERE node = $1 AND number = $2", [
      from.node.name,
      number,
    ]);
    if (rowCount === 1) return true;
    const { json } = await from.node.api("GET", `/v1/peers/${to.node.name}`);
    throw new Error(`${json.state}, last error ${JSON.stringify(json.last_error)}`);
  };
  await eventually(`${to.node.name} to have what ${from.node.name} wrote`, look, { timeoutMs });
}
