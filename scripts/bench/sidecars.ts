/**
 * mmlite as a rival: one process beside the source for all runs of a workload, one beside each run's database.
 *
 * The built-in subscription goes one way, so the way back is paused.
 */
import { type Mmlite, startMmlite } from "../../tests/support/mmlite.ts";
import { cpuSeconds, MemoryWatch } from "../memory_watch.ts";
import { type Bed, type Run, SOURCE } from "./bed.ts";
import { serverTimes } from "./processor_time.ts";
import type { Link, Rival } from "./rival.ts";

const SENDER = "sender";
/** Where a run's node is said to be before it is started: nobody listens there, and no two share it. */
const nowhere = (index: number) => `http://127.0.0.1:${index + 1}`;

/** The rival, with its sending process. */
export async function startSidecars(bed: Bed, stack: AsyncDisposableStack): Promise<Rival> {
  const sender = stack.use(await startMmlite({ name: SENDER, postgres: bed.publisher.url(SOURCE) }));
  let prepared = 0;
  return {
    name: "mmlite",
    async prepare({ name }) {
      await request(sender, "PUT", `/v1/peers/${name}`, { url: nowhere(prepared++) });
      await request(sender, "POST", `/v1/peers/${name}/pause`);
    },
    attach: (run) => attach(run, sender),
  };
}

async function attach({ name, bed }: Run, sender: Mmlite): Promise<Link> {
  const receiver = await startMmlite({ name, postgres: bed.subscriber.url(name) });
  try {
    await request(sender, "PUT", `/v1/peers/${name}`, { url: receiver.peerUrl });
    await request(receiver, "PUT", `/v1/peers/${SENDER}`, { url: sender.peerUrl });
    await request(receiver, "POST", `/v1/peers/${SENDER}/pause`);
  } catch (thrown) {
    await receiver[Symbol.asyncDispose]();
    throw thrown;
  }
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

async function request(node: Mmlite, method: string, path: string, body?: unknown): Promise<void> {
  const { status, json } = await node.api(method, path, body);
  if (status >= 300) {
    throw new Error(`Cannot ${method} ${path} at ${node.name}: ${status} ${JSON.stringify(json)}`);
  }
}
