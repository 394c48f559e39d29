/**
 * mmlite as a rival: one process beside the source for all runs of a workload, one beside each run's database, and
 * HTTP/2 with TLS between the two.
 *
 * The built-in subscription goes one way, so the way back is paused.
 */
import { type Mmlite, type MmliteOptions, startMmlite } from "../../tests/support/mmlite.ts";
import { openAuthority } from "../certificates.ts";
import { cpuSeconds, MemoryWatch } from "../memory_watch.ts";
import { type Bed, type Run, SOURCE } from "./bed.ts";
import { serverTimes } from "./processor_time.ts";
import type { Link, Rival, RivalName } from "./rival.ts";

/** The sending node of all runs. */
export const SENDER = "sender";
/** Where and how a node runs, if not in cleartext on this machine's loopback. */
export type NodePlace = Pick<MmliteOptions, "enter" | "host" | "tls" | "extraArgs">;

/** The rival, with its sending process and an authority for the certificates of all. */
export async function startSidecars(bed: Bed, stack: AsyncDisposableStack): Promise<Rival> {
  const authority = await openAuthority(stack);
  const sender = await startSender(bed, stack, { tls: await authority.issue(SENDER) });
  return sidecarRival(sender, {
    name: "mmlite",
    placeOf: async ({ name }) => ({ tls: await authority.issue(name) }),
  });
}

/** Starts the sending process. */
export async function startSender(
  bed: Bed,
  stack: AsyncDisposableStack,
  place: NodePlace = {},
): Promise<Mmlite> {
  return stack.use(await startMmlite({ name: SENDER, postgres: bed.publisher.url(SOURCE), ...place }));
}

/** The rival that a sending process and the receiving one of each run are; `placeOf` says where that runs. */
export function sidecarRival(
  sender: Mmlite,
  { name: rival, placeOf = () => Promise.resolve({}) }: {
    name: RivalName;
    placeOf?: (run: Run) => Promise<NodePlace>;
  },
): Rival {
  return {
    name: rival,
    async prepare({ name }) {
      // It is not started yet, and one without an address is nobody's.
      await request(sender, "PUT", `/v1/peers/${name}`, {});
      await request(sender, "POST", `/v1/peers/${name}/pause`);
    },
    attach: async (run) => attach(run, sender, await placeOf(run)),
  };
}

/** Starts the receiving process of a run that the sender was prepared for, with the link between them at rest. */
export async function startReceiver(
  { name, bed }: Run,
  sender: Mmlite,
  place: NodePlace,
): Promise<Mmlite> {
  const receiver = await startMmlite({ name, postgres: bed.subscriber.url(name), ...place });
  try {
    await request(sender, "PUT", `/v1/peers/${name}`, { url: receiver.peerUrl });
    await request(receiver, "PUT", `/v1/peers/${SENDER}`, { url: sender.peerUrl });
    await request(receiver, "POST", `/v1/peers/${SENDER}/pause`);
    return receiver;
  } catch (thrown) {
    await receiver[Symbol.asyncDispose]();
    throw thrown;
  }
}

async function attach(run: Run, sender: Mmlite, place: NodePlace): Promise<Link> {
  const { name, bed } = run;
  const receiver = await startReceiver(run, sender, place);
  const watches = [sender, receiver].map((node) => new MemoryWatch(() => node.pid));
  return {
    start: () => request(sender, "POST", `/v1/peers/${name}/resume`),
    processorTime: async () => ({
      ...await serverTimes(bed),
      sender: await cpuSeconds(sender.pid!),
      receiver: await cpuSeconds(receiver.pid!),
    }),
    peakMemory: () => Math.max(...watches.map((watch) => watch.peak)),
    async detach() {
      for (const watch of watches) watch.stop();
      await request(sender, "DELETE", `/v1/peers/${name}?force=true`);
      await receiver[Symbol.asyncDispose]();
      await bed.subscriber.sql(name, `SELECT pg_drop_replication_slot('mmlite_${SENDER}')`);
    },
  };
}

/** A request to a node, which must not refuse it. */
export async function request(node: Mmlite, method: string, path: string, body?: unknown): Promise<void> {
  const { status, json } = await node.api(method, path, body);
  if (status >= 300) {
    throw new Error(`Cannot ${method} ${path} at ${node.name}: ${status} ${JSON.stringify(json)}`);
  }
}
