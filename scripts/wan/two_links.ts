/**
 * One node with two peers, one near and one behind a link that cannot carry what is written: how long a transaction
 * takes to the near one, with the far one there and without.
 */
import type { Mmlite } from "../../tests/support/mmlite.ts";
import {
  type Bed,
  createDatabases,
  createTarget,
  createTemplate,
  digestSource,
  digestTarget,
  openBed,
  openServer,
  type Run,
  sourceOf,
  targetOf,
} from "../bench/bed.ts";
import { mark, marked } from "../bench/marks.ts";
import type { Link } from "../bench/rival.ts";
import { type NodePlace, request, SENDER, sidecarRival, startSender } from "../bench/sidecars.ts";
import { lastId, readLags, STEADY_RECEIVER_SCHEMA, STEADY_SCHEMA, writeSteadily } from "../bench/steady.ts";
import { type EmulatedLink, type LinkShape, openNetwork, type Site } from "../link/network.ts";
import { percentile } from "../statistics.ts";
import { type Authority, openAuthority } from "../certificates.ts";

/** The two links. */
const NEAR: LinkShape = { roundTripMs: 10, megabits: 100 };
const FAR: LinkShape = { roundTripMs: 300, megabits: 1, loss: 0.02 };

/** The mark that everything was written before. */
const LAST_MARK = 1_000;

/** What is written. */
export interface Writing {
  /** Transactions in a second, of one row each. */
  readonly rate: number;
  /** How long in each phase, seconds. */
  readonly seconds: number;
  /** How often the far node goes and comes. */
  readonly pairs: number;
}

/** Times from commit to being applied at the near node, milliseconds. */
export interface Phase {
  readonly far: "away" | "there";
  readonly p50: number;
  readonly p99: number;
  /** Transactions in a second that were really committed. */
  readonly achievedRate: number;
  /** How far the far node was behind at the end, bytes of WAL. */
  readonly farBehind: number;
}

/** What came of it. */
export interface TwoLinks {
  readonly phases: readonly Phase[];
  /** How long the far node took to hold everything when nothing more was written, seconds. */
  readonly caughtUpAfter: number;
  readonly equal: boolean;
}

/** Writes in phases, without the far node and with it in turn. */
export async function runTwoLinks(writing: Writing, onPhase: (phase: Phase) => void): Promise<TwoLinks> {
  await using stack = new AsyncDisposableStack();
  const { bed, sender, near, far } = await openNodes(stack);
  await near.link.start();
  await mark(sourceOf(bed), 0);
  await marked(targetOf(near.run), 0);
  const phases: Phase[] = [];
  for (let index = 0; index < 2 * writing.pairs; index++) {
    const presence = index % 2 === 0 ? "away" : "there";
    if (presence === "there") await far.link.start();
    const measured = await measure(near.run, { ...writing, number: index + 1 });
    const { json } = await sender.api("GET", `/v1/peers/${far.run.name}`);
    phases.push({ ...measured, far: presence, farBehind: Number(json.lag_bytes) });
    onPhase(phases.at(-1)!);
    if (presence === "there") await request(sender, "POST", `/v1/peers/${far.run.name}/pause`);
  }
  const startedAt = performance.now();
  await far.link.start();
  await mark(sourceOf(bed), LAST_MARK);
  await marked(targetOf(far.run), LAST_MARK);
  const caughtUpAfter = (performance.now() - startedAt) / 1000;
  await marked(targetOf(near.run), LAST_MARK);
  const [sent, ...received] = await Promise.all([
    digestSource(bed),
    digestTarget(near.run),
    digestTarget(far.run),
  ]);
  for (const { link } of [near, far]) await link.detach();
  return { phases, caughtUpAfter, equal: received.every((digest) => digest === sent) };
}

interface Receiver {
  readonly run: Run;
  readonly link: Link;
}

interface Nodes {
  readonly bed: Bed;
  readonly sender: Mmlite;
  readonly near: Receiver;
  readonly far: Receiver;
}

async function openNodes(stack: AsyncDisposableStack): Promise<Nodes> {
  const network = stack.use(await openNetwork());
  const [hub, nearSite, farSite] = [
    await network.addSite("hub"),
    await network.addSite("near"),
    await network.addSite("far"),
  ];
  const nearLink = await network.join(hub, nearSite, NEAR);
  const farLink = await network.join(hub, farSite, FAR);
  // Servers need no site: a sidecar reaches its own by the unix socket.
  const bed = await openBed(stack);
  const farBed = { ...bed, subscriber: await openServer(stack) };
  const schemas = { schema: STEADY_SCHEMA, receiverSchema: STEADY_RECEIVER_SCHEMA };
  await createDatabases(bed, schemas);
  await createTemplate(farBed.subscriber, schemas);
  const authority = await openAuthority(stack);
  const sender = await startSender(bed, stack, {
    enter: hub.enter,
    host: nearLink.addresses[0],
    tls: await authority.issue(SENDER),
  });
  // Compressed, what is written would fit through the far link.
  const extraArgs = ["--compression", "off"];
  const receiver = (run: Run, { enter }: Site, { addresses }: EmulatedLink) =>
    openReceiver(run, { sender, authority, place: { enter, host: addresses[1], extraArgs } });
  return {
    bed,
    sender,
    near: await receiver({ name: "near", bed }, nearSite, nearLink),
    far: await receiver({ name: "far", bed: farBed }, farSite, farLink),
  };
}

async function openReceiver(
  run: Run,
  { sender, authority, place }: {
    sender: Mmlite;
    authority: Authority;
    place: NodePlace;
  },
): Promise<Receiver> {
  const tls = await authority.issue(run.name);
  const rival = sidecarRival(sender, { name: "mmlite", placeOf: () => Promise.resolve({ ...place, tls }) });
  await rival.prepare(run);
  await createTarget(run);
  return { run, link: await rival.attach(run) };
}

/** Writes for one phase, and waits until the near node holds all of it. */
async function measure(
  near: Run,
  { rate, seconds, number }: { rate: number; seconds: number; number: number },
): Promise<Omit<Phase, "far" | "farBehind">> {
  const firstId = await lastId(near.bed) + 1;
  await writeSteadily(near.bed, { rate, seconds });
  await mark(sourceOf(near.bed), number);
  await marked(targetOf(near), number);
  const { lags, achievedRate } = await readLags(near, firstId);
  return { p50: percentile(lags, 0.5), p99: percentile(lags, 0.99), achievedRate };
}
