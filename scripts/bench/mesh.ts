/**
 * How fast three nodes that all write catch up with each other: every one has a backlog of its own, and all six
 * links start at once. The clock runs from the first change that any of them applies until all hold everything.
 */
import type { PostgresServer } from "../../tests/support/postgres.ts";
import { copyTemplate, createTemplate, dropDatabase, dropTemplate, PUBLISH } from "./bed.ts";
import { type CatchUp, writeBacklog } from "./catch_up.ts";
import { digest } from "./digest.ts";
import { arrivalOf, marked } from "./marks.ts";
import { crossings, type MeshNode, type MeshRival } from "./mesh_rivals.ts";
import { timeBetween } from "./processor_time.ts";
import type { Backlog } from "./workloads.ts";

/** The nodes, one on each server. */
export const NODE_NAMES = ["a", "b", "c"] as const;

/** Runs every rival `pairs` times in turn, each on fresh databases with a backlog that is written anew. */
export async function catchUpMesh(
  servers: readonly PostgresServer[],
  { backlogOf, pairs, rivals, onRun }: {
    backlogOf: (share: { index: number; of: number }) => Backlog;
    pairs: number;
    rivals: readonly MeshRival[];
    onRun: (result: CatchUp) => void;
  },
): Promise<CatchUp[]> {
  const backlogs = servers.map((_, index) => backlogOf({ index, of: servers.length }));
  const template = { schema: backlogs[0].schema, receiverSchema: PUBLISH };
  await Promise.all(servers.map((server) => createTemplate(server, template)));
  const results: CatchUp[] = [];
  for (let pair = 0; pair < pairs; pair++) {
    for (const rival of rivals) {
      results.push({ pair, ...await runOnce(rival, { servers, backlogs }) });
      onRun(results.at(-1)!);
    }
  }
  await Promise.all(servers.map(dropTemplate));
  return results;
}

async function runOnce(
  rival: MeshRival,
  { servers, backlogs }: { servers: readonly PostgresServer[]; backlogs: readonly Backlog[] },
): Promise<Omit<CatchUp, "pair">> {
  const nodes = servers.map((server, index): MeshNode => ({
    name: NODE_NAMES[index],
    server,
    database: rival.name,
  }));
  for (const { server, database } of nodes) await copyTemplate(server, database);
  const link = await rival.join(nodes);
  try {
    await Promise.all(nodes.map((node, index) => writeBacklog(node, backlogs[index], markIds(node))));
    const before = await link.processorTime();
    await link.start();
    await Promise.all(crossings(nodes).map(({ from, to }) => marked(to, markIds(from)[1])));
    const processorTime = timeBetween(before, await link.processorTime());
    const digests = await Promise.all(nodes.map((node) => digest(node, node)));
    return {
      rival: rival.name,
      rate: appliedChanges(backlogs) / await secondsOf(nodes),
      processorTime,
      peakMemory: link.peakMemory(),
      equal: digests.every((other) => other === digests[0]),
    };
  } finally {
    await link.detach();
    await Promise.all(nodes.map(({ server, database }) => dropDatabase(server, database)));
  }
}

/** The marks before and after a node's backlog; those of all nodes stand in one table. */
function markIds({ name }: MeshNode): readonly [number, number] {
  const index = NODE_NAMES.findIndex((one) => one === name);
  return [2 * index + 1, 2 * index + 2];
}

/** Every node's changes are applied on all others. */
function appliedChanges(backlogs: readonly Backlog[]): number {
  return backlogs.reduce((sum, { changes }) => sum + changes, 0) * (backlogs.length - 1);
}

/** From the first change that was applied anywhere to the last. */
async function secondsOf(nodes: readonly MeshNode[]): Promise<number> {
  const times = await Promise.all(
    crossings(nodes).map(({ from, to }) => Promise.all(markIds(from).map((id) => arrivalOf(to, id)))),
  );
  return Math.max(...times.map(([, ended]) => ended)) - Math.min(...times.map(([began]) => began));
}
