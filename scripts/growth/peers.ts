/**
 * What a further peer costs: one node has a backlog of small transactions, and all others receive it at once.
 */
import {
  type Bed,
  createDatabases,
  createTarget,
  createTemplate,
  digestSource,
  digestTarget,
  dropDatabases,
  dropSlots,
  dropTarget,
  openBed,
  openServer,
  type Run,
  sourceOf,
  targetOf,
} from "../bench/bed.ts";
import { writeBacklog } from "../bench/catch_up.ts";
import { arrivalOf, marked } from "../bench/marks.ts";
import { treeSeconds } from "../bench/processor_time.ts";
import { request, SENDER, sidecarRival, startReceiver, startSender } from "../bench/sidecars.ts";
import { type Backlog, BACKLOGS } from "../bench/workloads.ts";
import { openAuthority } from "../certificates.ts";
import { cpuSeconds, MemoryWatch } from "../memory_watch.ts";

/** What one number of peers took. */
export interface PeerGrowth {
  /** Nodes, the sender included. */
  readonly nodes: number;
  /** From the first change applied anywhere until all have everything. */
  readonly seconds: number;
  /** Changes applied in a second, on all peers together. */
  readonly rate: number;
  /** Processor time of the sending server and of the sending mmlite. */
  readonly serverSeconds: number;
  readonly senderSeconds: number;
  /** The most resident memory of the sending mmlite, and of any receiving one, bytes. */
  readonly senderMemory: number;
  readonly receiverMemory: number;
  readonly equal: boolean;
}

/** Before the backlog, and after it. */
const MARK_IDS = [1, 2] as const;

/** Measures each number of nodes in turn; `size` is the share of 100,000 transactions of `pgbench -N`. */
export async function growPeers(
  { counts, size, onRun }: { counts: readonly number[]; size: number; onRun: (run: PeerGrowth) => void },
): Promise<PeerGrowth[]> {
  await using stack = new AsyncDisposableStack();
  const first = await openBed(stack);
  const runs: Run[] = [{ name: "peer_1", bed: first }];
  // A server for each, as a node's slots have the same names on all of its peers.
  while (runs.length < Math.max(...counts) - 1) {
    runs.push({ name: `peer_${runs.length + 1}`, bed: { ...first, subscriber: await openServer(stack) } });
  }
  const backlog = BACKLOGS["oltp-n"](size);
  for (const { bed: { subscriber } } of runs.slice(1)) await createTemplate(subscriber, backlog);
  const results: PeerGrowth[] = [];
  for (const nodes of counts) {
    const taking = runs.slice(0, nodes - 1);
    await createDatabases(first, backlog);
    results.push({ nodes, ...await measure(first, taking, backlog) });
    for (const place of [sourceOf(first), ...taking.map(targetOf)]) await dropSlots(place);
    for (const run of taking) await dropTarget(run);
    await dropDatabases(first);
    onRun(results.at(-1)!);
  }
  return results;
}

async function measure(
  bed: Bed,
  runs: readonly Run[],
  backlog: Backlog,
): Promise<Omit<PeerGrowth, "nodes">> {
  await using stack = new AsyncDisposableStack();
  const authority = await openAuthority(stack);
  const sender = await startSender(bed, stack, { tls: await authority.issue(SENDER) });
  for (const run of runs) await sidecarRival(sender, { name: "mmlite" }).prepare(run);
  await writeBacklog(sourceOf(bed), backlog, MARK_IDS);
  const receivers = [];
  for (const run of runs) {
    await createTarget(run);
    const place = { tls: await authority.issue(run.name) };
    receivers.push(stack.use(await startReceiver(run, sender, place)));
  }
  const watches = [sender, ...receivers].map((node) => new MemoryWatch(() => node.pid));
  const used = async () => [await treeSeconds(bed.publisher.pid!), await cpuSeconds(sender.pid!)];
  const before = await used();
  await Promise.all(runs.map(({ name }) => request(sender, "POST", `/v1/peers/${name}/resume`)));
  await Promise.all(runs.map((run) => marked(targetOf(run), MARK_IDS[1])));
  const [serverSeconds, senderSeconds] = (await used()).map((seconds, index) => seconds - before[index]);
  for (const watch of watches) watch.stop();
  const [began, ended] = await Promise.all(
    MARK_IDS.map((id) => Promise.all(runs.map((run) => arrivalOf(targetOf(run), id)))),
  );
  const seconds = Math.max(...ended) - Math.min(...began);
  const [sent, ...received] = await Promise.all([digestSource(bed), ...runs.map(digestTarget)]);
  const [senderMemory, ...receiverMemories] = watches.map(({ peak }) => peak);
  return {
    seconds,
    rate: runs.length * backlog.changes / seconds,
    serverSeconds,
    senderSeconds,
    senderMemory,
    receiverMemory: Math.max(...receiverMemories),
    equal: received.every((digest) => digest === sent),
  };
}
