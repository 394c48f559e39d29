/**
 * `deno task nat [--cuts N]`: a node behind a NAT and one with an address that others reach, both written to, while
 * the connection between them is cut again and again; then the proof that every row is there once, in order, at both.
 *
 * Three network namespaces: the node `edge`, a router that masquerades what comes from it, and the node `ams`, which
 * has no route to `edge`. mmlite speaks TLS. Needs root and Linux. The last line is one sentence; the exit code is 1
 * if it is bad news.
 */
import process from "node:process";
import { seededIntegers } from "../tests/support/append_load.ts";
import { type FaultNode, type FaultPair, underLoad } from "../tests/support/fault_pair.ts";
import { addPeer, flowing, startNode } from "../tests/support/nat_pair.ts";
import { eventually } from "../tests/support/poll.ts";
import { startPostgres } from "../tests/support/postgres.ts";
import { type EmulatedLink, networkProblem, openNetwork, type Site } from "./link/network.ts";
import { readOptions, wholeNumber } from "./options.ts";
import { openAuthority } from "./certificates.ts";

const DEFAULT_CUTS = 20;
const SEED = 5;
/** Time there and back on each side of the router, milliseconds. */
const ROUND_TRIP_MS = 20;
/** How long the router resets what passes, milliseconds. */
const RESET_MS = 500;
/** Silence is noticed within this time, milliseconds. */
const SILENCE_MS = 40_000;

interface Scene extends FaultPair {
  readonly router: Site;
  /** Between the router and `ams`. */
  readonly uplink: EmulatedLink;
}

/** A way to cut the connection; returns what was done once nothing stands in the way of a new one. */
type Cut = (scene: Scene) => Promise<string>;

const CUTS: readonly Cut[] = [resets, kills("b"), resets, kills("a"), silence];

async function openScene(stack: AsyncDisposableStack): Promise<Scene> {
  const network = stack.use(await openNetwork());
  const [inside, router, outside] = [
    await network.addSite("edge"),
    await network.addSite("router"),
    await network.addSite("ams"),
  ];
  const { addresses: [edge, gateway] } = await network.join(inside, router, { roundTripMs: ROUND_TRIP_MS });
  const uplink = await network.join(router, outside, { roundTripMs: ROUND_TRIP_MS });
  const [, address] = uplink.addresses;
  await run(inside, "ip", "route", "add", "default", "via", gateway);
  await run(router, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1");
  await run(router, "iptables", "-t", "nat", "-A", "POSTROUTING", "-s", edge, "-j", "MASQUERADE");
  console.log(`ams looks for a route to edge: ${await routeTo(outside, edge)}`);
  const server = stack.use(await startPostgres({ major: 18 }));
  const authority = await openAuthority(stack);
  const a = stack.use(
    await startNode(server, {
      name: "ams",
      enter: outside.enter,
      host: address,
      tls: await authority.issue("ams"),
    }),
  );
  const b = stack.use(
    await startNode(server, {
      name: "edge",
      enter: inside.enter,
      tls: await authority.issue("edge"),
      extraArgs: ["--advertise", "none"],
    }),
  );
  await addPeer(b, "ams", a.mmlite.peerUrl);
  return { a, b, router, uplink, [Symbol.asyncDispose]: () => Promise.resolve() };
}

/** The router answers all that passes with a reset, as one does that has forgotten what it translated. */
async function resets({ router, b }: Scene): Promise<string> {
  const before = (await peerOf(b)).reconnects;
  const rule = ["FORWARD", "-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset"];
  await run(router, "iptables", "-I", ...rule);
  await new Promise((wake) => setTimeout(wake, RESET_MS));
  await run(router, "iptables", "-D", ...rule);
  await eventually("edge to dial again", async () => (await peerOf(b)).reconnects > before);
  return "the router resets the connection";
}

/** Nothing comes through, and nobody is told, until a node has noticed. */
async function silence({ uplink, b }: Scene): Promise<string> {
  uplink.carry(false);
  const startedAt = performance.now();
  await eventually("edge to notice", async () => (await peerOf(b)).state === "backoff", {
    timeoutMs: SILENCE_MS,
  });
  uplink.carry(true);
  return `nothing passes, which edge notices after ${seconds(startedAt)}`;
}

function kills(which: "a" | "b"): Cut {
  return async (scene) => {
    const { name, mmlite } = scene[which];
    await mmlite.kill();
    await mmlite.start();
    return `mmlite of ${name} is killed, and started again`;
  };
}

async function run({ enter }: Site, ...words: string[]): Promise<void> {
  const { success, stderr } = await output(enter, words);
  if (!success) throw new Error(`Cannot run ${words.join(" ")}: ${new TextDecoder().decode(stderr).trim()}`);
}

async function routeTo({ enter }: Site, address: string): Promise<string> {
  const { success, stdout, stderr } = await output(enter, ["ip", "route", "get", address]);
  if (success) {
    throw new Error(`Cannot hide ${address}: there is a route, ${new TextDecoder().decode(stdout)}`);
  }
  return new TextDecoder().decode(stderr).trim();
}

function output(enter: readonly string[], words: readonly string[]): Promise<Deno.CommandOutput> {
  const [program, ...args] = [...enter, ...words];
  return new Deno.Command(program, { args, stdin: "null" }).output();
}

function seconds(since: number): string {
  return `${((performance.now() - since) / 1000).toFixed(1)} s`;
}

async function showStatus(node: FaultNode): Promise<void> {
  const { name, state, inbound, url } = await peerOf(node);
  console.log(`${node.name}: peer ${name} at ${url ?? "no address"}, ${state}, inbound ${inbound.state}`);
}

/** The only peer of a node, as its API shows it. */
// deno-lint-ignore no-explicit-any
async function peerOf({ mmlite }: FaultNode): Promise<any> {
  const { json: { items: [peer] } } = await mmlite.api("GET", "/v1/peers");
  return peer;
}

async function cutAgainAndAgain(cuts: number): Promise<string> {
  await using stack = new AsyncDisposableStack();
  const scene = await openScene(stack);
  await flowing(scene.a, scene.b);
  for (const node of [scene.a, scene.b]) await showStatus(node);
  const { rows, transactions } = await underLoad(scene, { random: seededIntegers(SEED) }, async () => {
    for (let cut = 1; cut <= cuts; cut++) {
      const done = await CUTS[(cut - 1) % CUTS.length](scene);
      const startedAt = performance.now();
      await flowing(scene.a, scene.b);
      console.log(`cut ${cut} of ${cuts}: ${done}; both directions stream again after ${seconds(startedAt)}`);
    }
  });
  return `${rows} rows in ${transactions} transactions`;
}

async function main(): Promise<number> {
  const values = readOptions(import.meta.url, { cuts: { type: "string", default: String(DEFAULT_CUTS) } });
  const cuts = wholeNumber(values.cuts, "--cuts");
  const problem = await networkProblem();
  if (problem !== undefined) {
    console.error(`Cannot put a node behind a NAT: ${problem}`);
    return 1;
  }
  try {
    const written = await cutAgainAndAgain(cuts);
    console.log(
      `Through ${cuts} cuts a node behind a NAT and its peer got every row once and in order: ${written}.`,
    );
    return 0;
  } catch (thrown) {
    console.log((thrown as Error).message);
    console.log("Rows were lost, doubled or out of order behind a NAT, or a node did not come back.");
    return 1;
  }
}

process.exit(await main());
