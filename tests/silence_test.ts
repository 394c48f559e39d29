/**
 * Peers that fall silent without a word, and without TCP noticing: both sides must see it within 30 s, in both
 * directions, and go on as soon as they can.
 */
import assert from "node:assert/strict";
import { HEARTBEAT_INTERVAL_MS, SILENCE_LIMIT_MS } from "../src/wire/liveness.ts";
import { startCutProxy } from "./support/cut_proxy.ts";
import { type Mmlite, startMmlite } from "./support/mmlite.ts";
import { eventually } from "./support/poll.ts";
import { type PostgresServer, startPostgres } from "./support/postgres.ts";

/** From the last sign of life, milliseconds. */
const NOTICED_WITHIN_MS = 30_000;
/** Looking takes a while on a busy machine, milliseconds. */
const LOOK_MS = 1_000;

async function startNode(
  stack: AsyncDisposableStack,
  { server, name }: { server: PostgresServer; name: string },
): Promise<Mmlite> {
  await server.createDatabase(name);
  await server.sql(name, "CREATE TABLE note (node text, number int, PRIMARY KEY (node, number))");
  return stack.use(await startMmlite({ name, postgres: server.url(name) }));
}

async function connect(one: Mmlite, other: Mmlite, urls: readonly [string, string]): Promise<void> {
  for (const [node, peer, url] of [[one, other, urls[1]], [other, one, urls[0]]] as const) {
    const { status } = await node.api("PUT", `/v1/peers/${peer.name}`, { url });
    assert(status === 201 || status === 200, `${status}`);
  }
  await flows(one, other);
  await flows(other, one);
}

/** Waits until a node sends to a peer and receives from it. */
async function flows(node: Mmlite, peer: Mmlite): Promise<void> {
  await eventually(`${node.name} and ${peer.name} to stream`, async () => {
    const { json } = await node.api("GET", `/v1/peers/${peer.name}`);
    if (json.state === "streaming" && json.inbound.state === "streaming") return true;
    throw new Error(`${json.state} and ${json.inbound.state}, ${JSON.stringify(json.last_error)}`);
  }, { timeoutMs: 60_000 });
}

/**
 * How long a node takes to see that it neither sends to a peer nor receives from it, milliseconds. The two must not
 * come together again meanwhile, which can take them a few milliseconds.
 */
async function noticed(node: Mmlite, peer: Mmlite): Promise<{ outbound: number; inbound: number }> {
  const began = performance.now();
  const direction = (pick: (json: PeerJson) => string) =>
    eventually(`${node.name} to notice that ${peer.name} is silent`, async () => {
      const { json } = await node.api("GET", `/v1/peers/${peer.name}`);
      return pick(json) === "streaming" ? 0 : performance.now() - began;
    }, { timeoutMs: 45_000, intervalMs: 100 });
  const [outbound, inbound] = await Promise.all([
    direction(({ state }) => state),
    direction(({ inbound }) => inbound.state),
  ]);
  const { json } = await node.api("GET", `/v1/peers/${peer.name}`);
  // By now it may have tried again and failed in another way.
  assert.match(await node.log(), /Link is backoff: Cannot hear .*: silent for 25 s/);
  assert.match(json.inbound.last_error.message, /silent for 25 s/);
  return { outbound, inbound };
}

interface PeerJson {
  readonly state: string;
  readonly inbound: { readonly state: string };
}

function isInTime(times: { outbound: number; inbound: number }): void {
  for (const [direction, ms] of Object.entries(times)) {
    assert(ms <= NOTICED_WITHIN_MS, `${direction} noticed after ${ms} ms`);
    // Nothing else ended it.
    assert(ms >= SILENCE_LIMIT_MS - HEARTBEAT_INTERVAL_MS - LOOK_MS, `${direction} noticed after ${ms} ms`);
  }
}

async function writes(server: PostgresServer, node: string, number: number): Promise<void> {
  await server.sql(node, "INSERT INTO note VALUES ($1, $2)", [node, number]);
}

async function arrives(
  server: PostgresServer,
  [from, to]: readonly [Mmlite, Mmlite],
  number: number,
): Promise<void> {
  await eventually(`${to.name} to have what ${from.name} wrote`, async () => {
    const rows = await server.sql(to.name, "SELECT FROM note WHERE node = $1 AND number = $2", [
      from.name,
      number,
    ]);
    return rows.length === 1;
  });
}

/** One of the two processes is stopped: its kernel goes on to take what comes, and says nothing. */
async function stopOne(server: PostgresServer): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const [live, stopped] = [
    await startNode(stack, { server, name: "live" }),
    await startNode(stack, { server, name: "stopped" }),
  ];
  await connect(live, stopped, [live.peerUrl, stopped.peerUrl]);
  stopped.signal("SIGSTOP");
  try {
    await writes(server, "live", 1);
    isInTime(await noticed(live, stopped));
  } finally {
    stopped.signal("SIGCONT");
  }
  await writes(server, "stopped", 2);
  await arrives(server, [live, stopped], 1);
  await arrives(server, [stopped, live], 2);
}

/** What lies between two nodes forgets their connections. */
async function stallBoth(server: PostgresServer): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const [left, right] = [
    await startNode(stack, { server, name: "left" }),
    await startNode(stack, { server, name: "right" }),
  ];
  const [toLeft, toRight] = [
    stack.use(await startCutProxy(left.peerUrl)),
    stack.use(await startCutProxy(right.peerUrl)),
  ];
  await connect(left, right, [toLeft.url, toRight.url]);
  for (const proxy of [toLeft, toRight]) {
    proxy.stall();
    proxy.open(false);
  }
  // With something under way, and with nothing.
  await writes(server, "left", 1);
  const times = await Promise.all([noticed(left, right), noticed(right, left)]);
  for (const proxy of [toLeft, toRight]) proxy.open(true);
  times.forEach(isInTime);
  await writes(server, "right", 2);
  await arrives(server, [left, right], 1);
  await arrives(server, [right, left], 2);
}

Deno.test("a peer that falls silent is noticed within 30 s, by both sides and both ways", async () => {
  await using server = await startPostgres({ major: 18 });
  await Promise.all([stopOne(server), stallBoth(server)]);
});
