/**
 * Sites that only emulated links join: a network namespace for each, and between two of them a link with a delay,
 * a rate and losses. Needs root and Linux; not a kernel with `sch_netem`, which many lack.
 *
 * A site is like another host: its loopback is its own, and nothing leads out of it but its links. Files, and with
 * them unix sockets, are shared by all.
 */
import { openLeash } from "../../tests/support/leash.ts";
import { makeScratch, removeScratch } from "../../tests/support/scratch.ts";
import { namespaceProblem, run } from "./namespaces.ts";
import type { PathOptions } from "./path.ts";

/** What a link is like, the same both ways. */
export interface LinkShape {
  /** Time there and back, milliseconds. */
  readonly roundTripMs: number;
  /** Megabits in a second each way; no bound unless given. */
  readonly megabits?: number;
  /** Share of the packets that are lost, 0 to 1, each way; none unless given. */
  readonly loss?: number;
  /** How TCP finds its rate, as the kernel calls it; `cubic`, the default of Linux, unless given. */
  readonly congestion?: "cubic" | "bbr" | "reno";
}

/** Seed of every link's losses. */
const SEED = 1;
/** What may wait before a link, at least, bytes: 64 packets. */
const LEAST_QUEUE_BYTES = 96_000;
/** A bound for links without a rate, bytes: nothing waits there for longer than the emulator needs. */
const UNBOUNDED_QUEUE_BYTES = 64 * 0x10_0000;

/** A network namespace. */
export interface Site {
  readonly name: string;
  /** Words to put before a command line, so that it runs there as root, with the process id that it gets. */
  readonly enter: readonly string[];
}

/** A link between two sites. */
export interface EmulatedLink {
  /** IPv4 addresses of the two ends, in the order in which the sites were given. */
  readonly addresses: readonly [string, string];
  /** Loses everything from here on (`false`), without telling anybody, or carries on (`true`). */
  carry(on: boolean): void;
}

/** Sites and links; all of them go when it is disposed of. */
export interface Network extends AsyncDisposable {
  addSite(name: string): Promise<Site>;
  join(one: Site, other: Site, shape: LinkShape): Promise<EmulatedLink>;
}

/** Why networks cannot be emulated here; undefined if they can. */
export async function networkProblem(): Promise<string | undefined> {
  const problem = await namespaceProblem();
  if (problem !== undefined) return problem;
  const hasTun = await Deno.stat("/dev/net/tun").then(() => true, () => false);
  return hasTun ? undefined : "there is no /dev/net/tun";
}

/** Opens a network without sites. */
export async function openNetwork(): Promise<Network> {
  const problem = await networkProblem();
  if (problem !== undefined) throw new Error(`Cannot emulate a network: ${problem}`);
  const stack = new AsyncDisposableStack();
  // Names are the machine's: another run at the same time must not meet them.
  const prefix = `mm${Deno.pid}`;
  let links = 0;
  return {
    addSite: (name) => addSite(stack, `${prefix}-${name}`),
    join: (one, other, shape) => joinSites(stack, { sites: [one, other], shape, prefix, number: links++ }),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

/** Waits for the end of its input, which comes too when its owner dies, and takes the namespace away with all in it. */
const REMOVAL = 'read -r _; ip netns pids "$1" | xargs -r kill -KILL; ip netns delete "$1"';

async function addSite(stack: AsyncDisposableStack, name: string): Promise<Site> {
  await run("ip", "netns", "add", name);
  const removal = new Deno.Command("sh", {
    args: ["-c", REMOVAL, "sh", name],
    stdin: "piped",
    stdout: "null",
    stderr: "null",
    detached: true, // A Ctrl-C is for its owner.
  }).spawn();
  stack.defer(async () => {
    await removal.stdin.close();
    await removal.status;
  });
  const enter = ["ip", "netns", "exec", name];
  await run(...enter, "ip", "link", "set", "lo", "up");
  return { name, enter };
}

async function joinSites(
  stack: AsyncDisposableStack,
  { sites, shape, prefix, number }: {
    sites: readonly [Site, Site];
    shape: LinkShape;
    prefix: string;
    number: number;
  },
): Promise<EmulatedLink> {
  const devices = ["a", "b"].map((end) => `${prefix}${end}${number}`);
  const emulator = await startEmulator(stack, devices, shape);
  const addresses = [`10.77.${number}.1`, `10.77.${number}.2`] as const;
  for (const [index, { name, enter }] of sites.entries()) {
    const [device, own, other] = [devices[index], addresses[index], addresses[1 - index]];
    await run("ip", "link", "set", device, "netns", name);
    await run(...enter, "ip", "address", "add", own, "peer", other, "dev", device);
    await run(...enter, "ip", "link", "set", device, "mtu", "1500", "txqueuelen", "1000", "up");
    // By the route: a namespace may set itself only some of them.
    const { congestion = "cubic" } = shape;
    await run(...enter, "ip", "route", "replace", other, "dev", device, "src", own, "congctl", congestion);
  }
  return { addresses, carry: (on) => emulator.kill(on ? "SIGCONT" : "SIGSTOP") };
}

async function startEmulator(
  stack: AsyncDisposableStack,
  devices: readonly string[],
  shape: LinkShape,
): Promise<Deno.ChildProcess> {
  // Should this process be killed, the emulator goes too, and its devices with it.
  const directory = await makeScratch("link");
  const leash = openLeash(directory);
  const emulator = new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "-A", "--no-check", "--quiet", new URL("emulate.ts", import.meta.url).pathname, ...devices],
      JSON.stringify([pathOf(shape, SEED), pathOf(shape, SEED + 1)]),
    ],
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
    detached: true,
  }).spawn();
  await leash.hold(emulator.pid);
  stack.defer(async () => {
    emulator.kill("SIGKILL");
    await emulator.status;
    await leash.release();
    await removeScratch(directory);
  });
  const ready = await emulator.stdout[Symbol.asyncIterator]().next();
  if (ready.done) throw new Error("Cannot emulate a link: the emulator has ended");
  return emulator;
}

/** Half of a link. Half a second of the rate may wait before it, as in many a router. */
function pathOf({ roundTripMs, megabits = Infinity, loss = 0 }: LinkShape, seed: number): PathOptions {
  const halfSecond = megabits * 1e6 / 8 / 2;
  const queueBytes = Math.min(UNBOUNDED_QUEUE_BYTES, Math.max(LEAST_QUEUE_BYTES, halfSecond));
  return { delayMs: roundTripMs / 2, megabits, loss, queueBytes, seed };
}
