/**
 * Lets the planned faults happen at their moments, and makes everything whole again.
 */
import { delay } from "../../src/backoff.ts";
import type { Mesh } from "./member.ts";
import type { Fault } from "./plan.ts";

/** Runs all faults; returns once each has passed. Delays for all time stay until {@link heal}. */
export async function injectFaults(mesh: Mesh, faults: readonly Fault[]): Promise<void> {
  const turns = new Map<string, Promise<void>>();
  const running = faults.map(async (fault) => {
    if (fault.forMs === Infinity) return await begin(mesh, fault);
    await delay(fault.atMs);
    // Two faults of one link or node come one after the other: mmlite does not start beside a server that is down.
    const place = "node" in fault ? `node ${fault.node}` : `${fault.from} ${fault.to}`;
    const before = turns.get(place);
    const turn = (async () => {
      await before;
      const end = await begin(mesh, fault);
      await delay(fault.forMs);
      await end();
    })();
    turns.set(place, turn);
    await turn;
  });
  const outcomes = await Promise.allSettled(running);
  for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
}

/** Begins a fault; what it returns ends it. */
async function begin(mesh: Mesh, fault: Fault): Promise<() => unknown> {
  switch (fault.kind) {
    case "cut":
      mesh.link(fault.from, fault.to).cut();
      return () => {};
    case "close": {
      const link = mesh.link(fault.from, fault.to);
      link.open(false);
      link.cut();
      return () => link.open(true);
    }
    case "stall": {
      const link = mesh.link(fault.from, fault.to);
      link.stall(true);
      return () => link.stall(false);
    }
    case "delay": {
      const link = mesh.link(fault.from, fault.to);
      const before = link.delayMs;
      link.delayMs = fault.delayMs;
      return () => (link.delayMs = before);
    }
    case "kill_mmlite":
      await mesh.kill(fault.node);
      return () => mesh.start(fault.node);
    case "crash_server": {
      const { server } = mesh.members[fault.node];
      await server.kill();
      return () => server.start();
    }
  }
}

/** Takes every delay away. */
export function heal(mesh: Mesh): void {
  for (const from of mesh.members.keys()) {
    for (const to of mesh.members.keys()) if (from !== to) mesh.link(from, to).delayMs = 0;
  }
}
