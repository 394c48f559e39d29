/**
 * A node that nobody can dial, and one that it dials through a proxy that tests cut.
 */
import assert from "node:assert/strict";
import { APPEND_SCHEMA } from "./append_load.ts";
import { type CutProxy, startCutProxy } from "./cut_proxy.ts";
import { type FaultNode, type FaultPair, streaming } from "./fault_pair.ts";
import { type MmliteOptions, startMmlite } from "./mmlite.ts";
import { eventually } from "./poll.ts";
import { type PostgresServer, startPostgres } from "./postgres.ts";

/** Nodes `ams` and `edge`, which nobody can dial; see the module. */
export interface NatPair extends FaultPair {
  /** The address of `ams` for `edge`. */
  readonly proxy: CutProxy;
}

/** Starts a node on a server; its database has the tables of the append-only load. */
export async function startNode(
  server: PostgresServer,
  options: Omit<MmliteOptions, "postgres">,
): Promise<FaultNode & AsyncDisposable> {
  const { name } = options;
  await server.createDatabase(name);
  await server.sql(name, APPEND_SCHEMA);
  const mmlite = await startMmlite({ ...options, postgres: server.url(name) });
  return { name, server, database: name, mmlite, [Symbol.asyncDispose]: () => mmlite[Symbol.asyncDispose]() };
}

/** Adds `ams` on `edge` alone, and waits until both directions stream; `tls` names the directory of each's files. */
export async function startNatPair(tls?: Record<"ams" | "edge", string>): Promise<NatPair> {
  await using stack = new AsyncDisposableStack();
  const server = stack.use(await startPostgres({ major: 18 }));
  const a = stack.use(await startNode(server, { name: "ams", tls: tls?.ams }));
  const proxy = stack.use(await startCutProxy(a.mmlite.peerUrl));
  const extraArgs = ["--advertise", "none"];
  const b = stack.use(await startNode(server, { name: "edge", tls: tls?.edge, extraArgs }));
  await addPeer(b, "ams", proxy.url);
  await flowing(a, b);
  const owned = stack.move();
  return { a, b, proxy, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** Makes a node a peer of `at`; without URL one that has to dial `at`. */
export async function addPeer(at: FaultNode, name: string, url?: string): Promise<void> {
  const { status, json } = await at.mmlite.api("PUT", `/v1/peers/${name}`, { url });
  assert(status === 200 || status === 201, `${status} ${JSON.stringify(json)}`);
}

/** Waits until both directions stream, as both nodes see them. */
export async function flowing(a: FaultNode, b: FaultNode): Promise<void> {
  for (const [from, to] of [[a, b], [b, a]] as const) {
    await streaming(from, to);
    await inbound(to, from.name, "streaming");
  }
}

/** Waits until what `at` receives from a peer is in that state. */
export async function inbound(at: FaultNode, peer: string, state: string): Promise<void> {
  await eventually(`${at.name} to be ${state} from ${peer}`, async () => {
    const { json } = await at.mmlite.api("GET", `/v1/peers/${peer}`);
    if (json.inbound.state === state) return true;
    throw new Error(`${json.inbound.state}, last error ${JSON.stringify(json.inbound.last_error)}`);
  });
}

/** Waits until a row that is written at `from` is visible at each of `to`. */
export async function delivers(from: FaultNode, ...to: readonly FaultNode[]): Promise<void> {
  const [{ sequence }] = await from.server.sql(
    from.database,
    `INSERT INTO public.entry SELECT $1, coalesce(max(sequence), 0) + 1, 0, '' FROM public.entry WHERE origin = $1
     RETURNING sequence`,
    [from.name],
  );
  for (const node of to) {
    await eventually(`${node.name} to have row ${sequence} of ${from.name}`, async () => {
      const rows = await node.server.sql(
        node.database,
        "SELECT FROM public.entry WHERE origin = $1 AND sequence = $2",
        [from.name, sequence],
      );
      return rows.length === 1;
    });
  }
}
