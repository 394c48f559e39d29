/**
 * The rivals where every node replicates to every other: subscriptions both ways between any two servers, and an
 * mmlite beside each.
 */
import { connectAll, type Mmlite, startMmlite } from "../../tests/support/mmlite.ts";
import { eventually } from "../../tests/support/poll.ts";
import { openAuthority } from "../certificates.ts";
import { cpuSeconds, MemoryWatch } from "../memory_watch.ts";
import { dropSlots } from "./bed.ts";
import { createSlot, type Reach, subscribe } from "./builtin.ts";
import type { Database } from "./marks.ts";
import { treeSeconds } from "./processor_time.ts";
import type { Link, RivalName } from "./rival.ts";
import { request } from "./sidecars.ts";

/** A node's database. */
export interface MeshNode extends Database {
  readonly name: string;
}

/** A way to replicate among all. */
export interface MeshRival {
  readonly name: RivalName;
  /** Sets all links up, all but running: what is committed from here on will be delivered to every other node. */
  join(nodes: readonly MeshNode[]): Promise<Link>;
}

/** Every node with every other. */
export function crossings<Node>(nodes: readonly Node[]): { readonly from: Node; readonly to: Node }[] {
  return nodes.flatMap((from) => nodes.filter((to) => to !== from).map((to) => ({ from, to })));
}

/** A subscription for each direction. */
export function builtinMesh(reach: Reach): MeshRival {
  return {
    name: reach.unixSocket ? "builtin_unix" : "builtin",
    async join(nodes) {
      const subscriptions = await Promise.all(
        crossings(nodes).map(async ({ from, to }) => {
          const name = `${from.name}_to_${to.name}`;
          await createSlot(from, name);
          return await subscribe(name, { from, to, reach });
        }),
      );
      return {
        start: async () => void await Promise.all(subscriptions.map(({ enable }) => enable())),
        processorTime: async () => ({ servers: await serverSeconds(nodes), sidecars: 0 }),
        peakMemory: () => null,
        detach: async () => void await Promise.all(subscriptions.map(({ drop }) => drop())),
      };
    },
  };
}

async function serverSeconds(nodes: readonly MeshNode[]): Promise<number> {
  return sum(await Promise.all(nodes.map(({ server }) => treeSeconds(server.pid!))));
}

/** An mmlite beside each server, with TLS between them; `names` are those of the nodes. */
export async function openSidecarMesh(
  stack: AsyncDisposableStack,
  names: readonly string[],
): Promise<MeshRival> {
  const authority = await openAuthority(stack);
  const certificates = new Map<string, string>();
  for (const name of names) certificates.set(name, await authority.issue(name));
  return {
    name: "mmlite",
    async join(nodes) {
      await using started = new AsyncDisposableStack();
      const sidecars = await Promise.all(nodes.map(async ({ name, server, database }) =>
        started.use(
          await startMmlite({ name, postgres: server.url(database), tls: certificates.get(name) }),
        )
      ));
      await joinAtRest(sidecars);
      const watches = sidecars.map((node) => new MemoryWatch(() => node.pid));
      const owned = started.move();
      return {
        start: () => toEach(sidecars, "resume"),
        processorTime: async () => ({
          servers: await serverSeconds(nodes),
          sidecars: sum(await Promise.all(sidecars.map(({ pid }) => cpuSeconds(pid!)))),
        }),
        peakMemory: () => Math.max(...watches.map(({ peak }) => peak)),
        async detach() {
          for (const watch of watches) watch.stop();
          await owned.disposeAsync();
          await Promise.all(nodes.map(dropSlots));
        },
      };
    },
  };
}

/** Makes all peers of all, waits until every slot is there, and lets no link run. */
async function joinAtRest(sidecars: readonly Mmlite[]): Promise<void> {
  await connectAll(sidecars);
  for (const { from, to } of crossings(sidecars)) {
    await eventually(`${from.name} to stream to ${to.name}`, async () => {
      const { json } = await from.api("GET", `/v1/peers/${to.name}`);
      return json.state === "streaming";
    });
  }
  await toEach(sidecars, "pause");
}

async function toEach(sidecars: readonly Mmlite[], action: "pause" | "resume"): Promise<void> {
  await Promise.all(
    crossings(sidecars).map(({ from, to }) => request(from, "POST", `/v1/peers/${to.name}/${action}`)),
  );
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, one) => total + one, 0);
}
