/** Nodes that nobody can dial: they dial, and both directions ride on the connection that they make. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { PeerDialler } from "../src/http/peer_dialler.ts";
import { TlsKeys } from "../src/pki/tls_keys.ts";
import { RemoteSide } from "../src/verify/remote_side.ts";
import { seededIntegers } from "./support/append_load.ts";
import { takeEnd } from "./support/channel_pair.ts";
import { type FaultNode, killSoon, underLoad } from "./support/fault_pair.ts";
import { runMmlite } from "./support/mmlite.ts";
import { addPeer, delivers, flowing, inbound, startNatPair, startNode } from "./support/nat_pair.ts";
import { eventually } from "./support/poll.ts";
import { startPostgres } from "./support/postgres.ts";
import { makeScratch, removeScratch } from "./support/scratch.ts";

const SEED = 3;
const CUTS = 20;
const never = new AbortController().signal;

/** The peer that a node has, as its API shows it. */
// deno-lint-ignore no-explicit-any
async function peerOf(node: FaultNode, name: string): Promise<any> {
  return (await node.mmlite.api("GET", `/v1/peers/${name}`)).json;
}

/** TCP connections of this machine to or from a port, those that ended within the last minute included. */
async function connectionsOf(port: number): Promise<number> {
  const hex = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const LISTENING = "0A";
  const lines = (await Deno.readTextFile("/proc/net/tcp")).split("\n").slice(1);
  return lines.map((line) => line.trim().split(/\s+/)).filter(([, local = "", remote = "", state]) =>
    state !== LISTENING && (local.endsWith(hex) || remote.endsWith(hex))
  ).length;
}

/** Nobody has tried to dial a node. */
async function assertNotDialled({ mmlite }: FaultNode): Promise<void> {
  assert.equal(await connectionsOf(Number(new URL(mmlite.peerUrl).port)), 0, `${mmlite.name} was dialled`);
}

async function steer({ mmlite }: FaultNode, verb: string, peer: string): Promise<void> {
  const { code, stderr } = await mmlite.cli("peers", verb, peer);
  assert.equal(code, 0, stderr);
}

type Setup = (nodes: Record<"ams" | "fra" | "edge", FaultNode>) => Promise<void>;

const SETUPS: Record<string, Setup> = {
  "is added nowhere and dials first": async ({ ams, fra, edge }) => {
    await addPeer(edge, "ams", ams.mmlite.peerUrl);
    await addPeer(edge, "fra", fra.mmlite.peerUrl);
    await addPeer(ams, "fra", fra.mmlite.peerUrl);
  },
  "is added everywhere before it dials": async ({ ams, fra, edge }) => {
    await addPeer(ams, "fra", fra.mmlite.peerUrl);
    for (const node of [ams, fra]) {
      await addPeer(node, "edge");
      assert((await peerOf(node, "edge")).awaits_dial);
    }
    for (const node of [ams, fra]) await addPeer(edge, node.name, node.mmlite.peerUrl);
  },
};
for (const [how, setUp] of Object.entries(SETUPS)) {
  Deno.test(`a node that nobody can dial and that ${how} exchanges rows with two that can be dialled`, async () => {
    // The slots for one peer have one name, so that each of its peers needs a server of its own.
    await using atAms = await startPostgres({ major: 18 });
    await using atFra = await startPostgres({ major: 14 });
    await using atEdge = await startPostgres({ major: 10 });
    await using ams = await startNode(atAms, { name: "ams" });
    await using fra = await startNode(atFra, { name: "fra" });
    await using edge = await startNode(atEdge, { name: "edge", extraArgs: ["--advertise", "none"] });
    await setUp({ ams, fra, edge });
    for (const [a, b] of [[ams, edge], [fra, edge], [ams, fra]]) await flowing(a, b);
    await delivers(ams, fra, edge);
    await delivers(fra, ams, edge);
    await delivers(edge, ams, fra);
    await assertNotDialled(edge);
  });
}

Deno.test("a peer without URL in the configuration file is pushed to once it dials, whatever it advertises", async () => {
  const directory = await makeScratch("nat");
  try {
    const file = async (name: string, peers: string) => {
      const path = join(directory, name);
      await Deno.writeTextFile(path, `peers: [${peers}]\n`);
      return ["-c", path];
    };
    await using server = await startPostgres({ major: 18 });
    await using ams = await startNode(server, {
      name: "ams",
      extraArgs: await file("ams", "{ name: edge }"),
    });
    await using edge = await startNode(server, {
      name: "edge",
      extraArgs: await file("edge", `{ name: ams, url: "${ams.mmlite.peerUrl}" }`),
    });
    await flowing(ams, edge);
    await delivers(ams, edge);
    await delivers(edge, ams);
    await assertNotDialled(edge);
  } finally {
    await removeScratch(directory);
  }
});

Deno.test(`${CUTS} cuts of the connection and kills of either node lose nothing and double nothing`, async () => {
  await using pair = await startNatPair();
  const random = seededIntegers(SEED);
  let broken = 0;
  const { rows } = await underLoad(pair, { random }, async () => {
    for (let cut = 0; cut < CUTS; cut++) {
      await new Promise((wake) => setTimeout(wake, random(50, 1_500)));
      if (cut % 4 < 2) broken += pair.proxy.cut();
      else await killSoon(cut % 4 === 2 ? pair.a : pair.b, random);
      await Promise.all([pair.a.mmlite.start(), pair.b.mmlite.start()]);
    }
  });
  assert(rows > 1_000, `only ${rows} rows were written`);
  assert(broken > 0, "no cut met a connection");
  await assertNotDialled(pair.b);
});

Deno.test("a connection that is forgotten in silence is given up and made anew", async () => {
  await using pair = await startNatPair();
  pair.proxy.stall();
  await delivers(pair.a);
  await delivers(pair.b);
  await eventually("a second connection", () => pair.proxy.connections > 1, { timeoutMs: 45_000 });
  await flowing(pair.a, pair.b);
  await delivers(pair.a, pair.b);
  await delivers(pair.b, pair.a);
});

Deno.test("each direction is paused and resumed for itself, also across restarts", async () => {
  await using pair = await startNatPair();
  const { a: ams, b: edge } = pair;
  await steer(ams, "pause", "edge");
  await inbound(edge, "ams", "waiting");
  await delivers(edge, ams);
  assert.equal((await peerOf(ams, "edge")).state, "paused");
  await edge.mmlite.restart();
  await delivers(edge, ams);
  await inbound(edge, "ams", "waiting");
  await steer(ams, "resume", "edge");
  await delivers(ams, edge);

  await steer(edge, "pause", "ams");
  await inbound(ams, "edge", "disconnected");
  for (const node of [edge, ams]) {
    await node.mmlite.restart();
    await delivers(ams, edge);
  }
  assert.equal((await peerOf(edge, "ams")).state, "paused");
  await steer(edge, "resume", "ams");
  await delivers(edge, ams);
});

Deno.test("a direction that is blocked leaves the other alone, and goes on by itself", async () => {
  await using pair = await startNatPair();
  const { a: ams, b: edge } = pair;
  const create = ({ server, database }: FaultNode) =>
    server.sql(database, "CREATE TABLE public.extra (id int PRIMARY KEY)");
  await create(ams);
  await eventually("ams to publish the table", async () => {
    await ams.server.sql(ams.database, "DELETE FROM public.extra");
    await ams.server.sql(ams.database, "INSERT INTO public.extra VALUES (1)");
    return (await peerOf(ams, "edge")).state === "blocked";
  });
  await inbound(edge, "ams", "blocked");
  await delivers(edge, ams);
  await create(edge);
  await delivers(ams, edge);
});

Deno.test("each node is restarted while the other goes on", async () => {
  await using pair = await startNatPair();
  for (const node of [pair.a, pair.b]) {
    await node.mmlite.restart();
    await delivers(pair.a, pair.b);
    await delivers(pair.b, pair.a);
  }
});

Deno.test("a removed peer gets what was written before, is told, and can come back", async () => {
  await using pair = await startNatPair();
  const { a: ams, b: edge, proxy } = pair;
  await steer(ams, "remove", "edge");
  await eventually("edge to be gone at ams", async () => (await peerOf(ams, "edge")).status === 404);
  await eventually("edge to be told", async () => {
    const peer = await peerOf(edge, "ams");
    return peer.state === "blocked" && /was removed on "ams"/.test(peer.last_error.message);
  });
  await inbound(edge, "ams", "blocked");
  assert.match(
    (await peerOf(edge, "ams")).inbound.last_error.message,
    /"edge".* it is not registered on "ams"/,
  );
  await edge.mmlite.cli("peers", "remove", "ams", "--force");
  await addPeer(ams, "edge");
  await addPeer(edge, "ams", proxy.url);
  await flowing(ams, edge);
  await delivers(ams, edge);
  await delivers(edge, ams);
});

Deno.test("a peer that is given an address is dialled, and one whose address is taken away dials", async () => {
  await using pair = await startNatPair();
  const { a: ams, b: edge } = pair;
  const { port } = new URL(edge.mmlite.peerUrl);
  for (let turn = 1; turn <= 3; turn++) {
    await addPeer(ams, "edge", edge.mmlite.peerUrl);
    await eventually("edge to open no stream", async () => {
      return (await edge.mmlite.log()).match(/opens no stream/g)?.length === turn;
    });
    await flowing(ams, edge);
    await delivers(ams, edge);
    assert(await connectionsOf(Number(port)) > 0);
    await addPeer(ams, "edge");
    await flowing(ams, edge);
    await delivers(ams, edge);
    await delivers(edge, ams);
  }
});

Deno.test("each operator sees what the other node's absence means", async () => {
  await using pair = await startNatPair();
  const { a: ams, b: edge } = pair;
  const table = async (node: FaultNode) => (await node.mmlite.cli("status")).stdout;
  await edge.mmlite.stop();
  await eventually("ams to wait", async () => (await peerOf(ams, "edge")).awaits_dial);
  assert.match(await table(ams), /^edge +connecting \(it has to dial\) .* disconnected +-$/m);
  assert.equal((await ams.mmlite.api("GET", "/readyz")).status, 200);
  await edge.mmlite.start();
  await flowing(ams, edge);
  assert.match(await table(edge), /^node +ready +edge .* peers at 127\.0\.0\.1:\d+/m);
  assert.match(await table(edge), /^ams +streaming .* streaming +http:/m);

  await ams.mmlite.stop();
  await streamsNot(edge, "ams");
  assert.match(await table(edge), /^ams +backoff .* disconnected +http:/m);
  assert.match(await table(edge), /^to ams: Cannot /m);
  assert.match(await table(edge), /^from ams: Cannot /m);
  assert.equal((await edge.mmlite.api("GET", "/readyz")).status, 200);
  await ams.mmlite.start();
  await flowing(ams, edge);
});

async function streamsNot(at: FaultNode, peer: string): Promise<void> {
  await eventually(`${at.name} to miss ${peer}`, async () => {
    const { state, inbound } = await peerOf(at, peer);
    return state === "backoff" && inbound.state === "disconnected" && inbound.last_error !== null;
  });
}

Deno.test("a stream that another opens in a node's name does not disturb that node", async () => {
  await using pair = await startNatPair();
  const { a: ams, b: edge } = pair;
  const dialler = new PeerDialler({ tls: null, self: "edge" });
  const peer = { cluster: "mmlite", node: "ams" };
  const open = () => dialler.dial(new URL(ams.mmlite.peerUrl), { peer, path: "return", signal: never });
  const { reconnects } = await peerOf(ams, "edge");
  const idle = await open();
  await delivers(ams, edge);
  assert.equal((await peerOf(ams, "edge")).reconnects, reconnects);
  idle.destroy();
  pair.proxy.cut();
  await delivers(ams, edge);
  await addPeer(ams, "edge", edge.mmlite.peerUrl);
  await assert.rejects(takeEnd(await open()).hear("hello"), /"ams" dials it/);
  dialler.close();
});

Deno.test("under TLS nobody opens a stream in another node's name, and both directions go on", async () => {
  const directory = await makeScratch("nat");
  const place = (name: string) => join(directory, name);
  const cert = async (...args: string[]) => {
    const { code, stderr } = await runMmlite(["cert", ...args]);
    assert.equal(code, 0, stderr);
  };
  const authority = ["--ca", join(place("ams"), "ca.pem"), "--ca-key", join(place("ams"), "ca-key.pem")];
  try {
    await cert("ca", "--out", place("ams"));
    for (const name of ["edge", "lon"]) await cert("issue", name, ...authority, "--out", place(name));
    await using pair = await startNatPair({ ams: place("ams"), edge: place("edge") });
    const { a: ams, b: edge } = pair;
    const tls = await TlsKeys.load({
      cert: join(place("lon"), "node.pem"),
      key: join(place("lon"), "node-key.pem"),
      ca: join(place("lon"), "ca.pem"),
    }, { cluster: "mmlite", node: "lon" });
    const stranger = new PeerDialler({ tls, self: "edge" });
    const peer = { cluster: "mmlite", node: "ams" };
    await assert.rejects(
      stranger.dial(new URL(ams.mmlite.peerUrl), { peer, path: "return", signal: never }),
      /status 403/,
    );
    stranger.close();
    // In its own name it is let in, and told only that it is no peer.
    const asking = new PeerDialler({ tls, self: "lon" });
    const asked = await asking.dial(new URL(ams.mmlite.peerUrl), { peer, path: "ask", signal: never });
    const side = new RemoteSide("ams", asked);
    await assert.rejects(side.tables(), { kind: "refused", message: /it is no peer here/ });
    await side.close();
    asking.close();
    await delivers(ams, edge);
    pair.proxy.cut();
    await delivers(ams, edge);
    await delivers(edge, ams);
    for (const { mmlite } of [ams, edge]) {
      const { code, stdout, stderr } = await mmlite.cli("verify");
      assert.equal(code, 0, stdout + stderr);
      assert.match(stdout, /^(ams|edge) +public\.entry +equal +[1-9]/m);
    }
    await assertNotDialled(edge);
  } finally {
    await removeScratch(directory);
  }
});
