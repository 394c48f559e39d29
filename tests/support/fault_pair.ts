/**
 * Two nodes under an append-only load, and the faults that may befall them.
 */
import assert from "node:assert/strict";
import {
  APPEND_SCHEMA,
  type Appending,
  AppendWriter,
  assertAppended,
  type RandomInteger,
} from "./append_load.ts";
import { connectAll, type Mmlite, startMmlite } from "./mmlite.ts";
import { eventually } from "./poll.ts";
import { type PostgresMajor, type PostgresServer, type ServerSettings, startPostgres } from "./postgres.ts";

/** Time allowed for both nodes to hold the same after the last fault, milliseconds. */
const CATCH_UP_TIMEOUT_MS = 600_000;

/** A node with its server. */
export interface FaultNode {
  readonly name: string;
  readonly server: PostgresServer;
  readonly database: string;
  readonly mmlite: Mmlite;
}

/** What to start. */
export interface FaultPairOptions {
  /** Releases of node `a` and node `b`; 18 unless given. */
  readonly majors?: readonly [PostgresMajor, PostgresMajor];
  /** Of both servers. */
  readonly settings?: ServerSettings;
  /** Makes the directory of a node's certificate files; cleartext unless given. */
  readonly authority?: { issue(node: string): Promise<string> };
}

/** Nodes `a` and `b`, peers of each other, with nobody writing. */
export interface FaultPair extends AsyncDisposable {
  readonly a: FaultNode;
  readonly b: FaultNode;
}

/** Starts the pair; returns once both links stream. */
export async function startFaultPair(
  { majors = [18, 18], settings, authority }: FaultPairOptions = {},
): Promise<FaultPair> {
  await using stack = new AsyncDisposableStack();
  const start = async (name: string, major: PostgresMajor): Promise<FaultNode> => {
    const server = stack.use(await startPostgres({ major, settings }));
    await server.createDatabase("app");
    await server.sql("app", APPEND_SCHEMA);
    const tls = await authority?.issue(name);
    const mmlite = stack.use(await startMmlite({ name, postgres: server.url("app"), tls }));
    return { name, server, database: "app", mmlite };
  };
  const a = await start("a", majors[0]);
  const b = await start("b", majors[1]);
  await connectAll([a.mmlite, b.mmlite]);
  await streaming(a, b);
  await streaming(b, a);
  const owned = stack.move();
  return { a, b, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** Waits until the link from one node to the other streams. */
export async function streaming(from: FaultNode, to: FaultNode): Promise<void> {
  await eventually(`${from.name} to stream to ${to.name}`, async () => {
    const { json } = await from.mmlite.api("GET", `/v1/peers/${to.name}`);
    if (json.state === "streaming") return true;
    throw new Error(`${json.state}, last error ${JSON.stringify(json.last_error)}`);
  });
}

/** Who writes while faults happen. */
export interface Writing {
  readonly random: RandomInteger;
  /** Both nodes unless given. */
  readonly writers?: readonly FaultNode[];
  /** An {@link AppendWriter} unless given. */
  readonly startWriter?: (node: FaultNode) => Appending;
}

/** Runs faults while both nodes (or those given) are written to, then asserts that nothing was lost or doubled. */
export async function underLoad(
  pair: FaultPair,
  { random, writers = [pair.a, pair.b], startWriter = (node) => new AppendWriter(node, random) }: Writing,
  faults: () => Promise<void>,
): Promise<{ rows: number; transactions: number }> {
  const running = writers.map((node) => ({ node, writer: startWriter(node) }));
  const stopped = () => Promise.all(running.map(({ writer }) => writer.stop()));
  try {
    await faults();
  } catch (thrown) {
    await stopped().catch(() => {});
    throw thrown;
  }
  await stopped();
  const committed = new Map(running.map(({ node, writer }) => [node.name, writer.committedSequence]));
  try {
    const written = await assertAppended([pair.a, pair.b], committed, CATCH_UP_TIMEOUT_MS);
    const sums = { rows: 0, transactions: 0 };
    for (const { rows, transactions } of written.values()) {
      sums.rows += rows;
      sums.transactions += transactions;
    }
    return sums;
  } catch (thrown) {
    const logs = await Promise.all(
      [pair.a, pair.b].map(async ({ name, mmlite }) => `${name}:\n${await mmlite.log()}`),
    );
    throw new Error(`${(thrown as Error).message}\n${logs.join("\n")}`, { cause: thrown });
  }
}

/** Kills a node's mmlite a moment after its start, ready or not, and starts it again; the moment, milliseconds. */
export async function killSoon({ mmlite }: FaultNode, random: RandomInteger): Promise<number> {
  const moment = random(50, 2_500);
  // It may be killed before it is ready, which is what this is about.
  const started = mmlite.start().catch(() => {});
  await new Promise((wake) => setTimeout(wake, moment));
  await mmlite.kill();
  await started;
  return moment;
}

/** Positions that a crash of the receiver's server must leave in order. */
export interface CrashPositions {
  /** The receiver's ack as the sender has stored it. */
  readonly ackedLsn: string;
  /** What the receiver holds after the crash. */
  readonly heldLsn: string;
  /** Rows of the sender that were visible at the receiver and went with the crash. */
  readonly lostRows: number;
}

/**
 * Crashes a receiver's server and starts it again, its mmlite held still meanwhile, so that what the server holds
 * can be seen before more comes. Asserts that nothing had been acked that the crash took.
 */
export async function crashReceiver(receiver: FaultNode, sender: FaultNode): Promise<CrashPositions> {
  const { server, database, mmlite } = receiver;
  mmlite.signal("SIGSTOP");
  try {
    const before = await arrivedRows(receiver, sender.name);
    await server.kill();
    const [{ lsn: ackedLsn }] = await sender.server.sql(
      sender.database,
      "SELECT coalesce(acked_lsn, '0/0')::text AS lsn FROM mmlite.peer WHERE name = $1",
      [receiver.name],
    );
    await server.start();
    const [{ lsn: heldLsn, holds }] = await server.sql(
      database,
      "SELECT lsn::text AS lsn, lsn >= $1::pg_lsn AS holds FROM mmlite.progress WHERE origin = $2",
      [ackedLsn, sender.name],
    );
    assert(holds, `${receiver.name} acked ${ackedLsn} and holds only ${heldLsn} after a crash`);
    return { ackedLsn, heldLsn, lostRows: before - await arrivedRows(receiver, sender.name) };
  } finally {
    mmlite.signal("SIGCONT");
  }
}

/** Rows of an origin that are visible at a node. */
export async function arrivedRows({ server, database }: FaultNode, origin: string): Promise<number> {
  const [{ rows }] = await server.sql(
    database,
    "SELECT count(*)::int AS rows FROM public.entry WHERE origin = $1",
    [origin],
  );
  return rows;
}
