/**
 * The node as the control API sees it: the port that the API declares, over the running parts.
 */
import type { Health, NodeControl, PutPeerOptions } from "../api/control.ts";
import type { BehindNode as ShownBehind, NodeStatus, PeerInput, PeerStatus } from "../api/schemas.ts";
import { MmliteError, toMmliteError } from "../errors.ts";
import { parsePeerUrl } from "../http/peer_url.ts";
import { formatLsn, parseLsn } from "../lsn.ts";
import type { Metrics } from "../metrics.ts";
import { countConflicts } from "../pg/conflicts.ts";
import { VERSION } from "../version.ts";
import type { TlsKeys } from "../pki/tls_keys.ts";
import type { NodeIdentity } from "../wire/frame.ts";
import type { Copying } from "./copying.ts";
import type { ConflictPolicies } from "./conflict_policies.ts";
import { getConflict, listConflicts } from "./conflict_records.ts";
import { type Database, serverWarnings } from "./database.ts";
import { NodeEvents } from "./events.ts";
import type { Guard } from "./guard.ts";
import type { Leaving } from "./leaving.ts";
import type { Invites } from "./invites.ts";
import type { Jobs } from "./jobs.ts";
import type { ConflictCounts } from "./observers.ts";
import type { GroupKeeper } from "./group_keeper.ts";
import { Peer } from "./peer.ts";
import type { Peers } from "./peers.ts";
import type { PatternChanges } from "./pattern_changes.ts";
import type { PublicationKeeper } from "./publication_keeper.ts";
import type { Quarantine } from "./quarantine.ts";
import type { BehindNode, ReadYourWrites } from "./read_your_writes.ts";
import type { ServerClock } from "./server_clock.ts";
import type { SlotKeeper } from "./slot_keeper.ts";
import {
  differingPolicies,
  inboundState,
  nodeStatus,
  peerStatus,
  type PeerView,
  quarantineProblems,
  readPositions,
  repairProblems,
  tlsStatus,
} from "./status.ts";
import type { Tables } from "./tables.ts";
import { tlsProblems } from "./tls.ts";

interface ControlOptions {
  readonly self: NodeIdentity;
  readonly startedAt: Date;
  readonly peerAddress: string;
  readonly apiAddress: () => string | null;
  /** Where peers can dial this node; null if nowhere. */
  readonly url: string | null;
  readonly database: Database;
  readonly guard: Guard;
  readonly peers: Peers;
  readonly leaving: Leaving;
  readonly slotKeeper: SlotKeeper;
  readonly publications: PublicationKeeper;
  readonly tables: Tables;
  readonly patterns: PatternChanges;
  readonly policies: ConflictPolicies;
  readonly groups: GroupKeeper;
  readonly invites: Invites;
  readonly copying: Copying;
  readonly jobs: Jobs;
  readonly conflicts: ConflictCounts;
  readonly clock: ServerClock;
  readonly quarantine: Quarantine;
  readonly reading: ReadYourWrites;
  readonly metrics: Metrics;
  /** Null on a node that speaks cleartext. */
  readonly tls: TlsKeys | null;
  /** Aborts when the node closes. */
  readonly signal: AbortSignal;
}

/** The control of a running node. */
export function createControl(options: ControlOptions): NodeControl {
  const { peers, leaving, tables, patterns, invites, jobs, quarantine, reading, metrics, database, signal } =
    options;
  const show = async (peer: Peer) => peerStatus(peer, await viewOf(options));
  const query = (doing: string) => database.control.query(doing);
  const events = new NodeEvents({
    query: query("look for conflicts"),
    status: () => status(options),
    jobs: () => jobs.list(),
    signal,
  });
  const change = async (name: string, work: () => Promise<void>) => {
    await work();
    return await show(peers.get(name));
  };
  return {
    status: () => status(options),
    health: () => Promise.resolve(health(options)),
    metrics: async () => {
      updateGauges(options, await viewOf(options));
      return await metrics.render();
    },
    listPeers: async () => {
      const view = await viewOf(options);
      return peers.list().map((peer) => peerStatus(peer, view));
    },
    getPeer: (name) => show(peers.get(name)),
    putPeer: (name, input, putOptions) => putPeer(options, { ...putOptions, name, input }),
    removePeer: async (name, { force, dryRun, precondition }) => {
      const require = (peer: Peer) => precondition?.(peerStatus(peer, unseen(options)));
      if (dryRun) {
        require(peers.get(name));
        return await leaving.preview(name);
      }
      return force ? await leaving.force(name, require) : await peers.remove(name, require);
    },
    pausePeer: (name) => change(name, () => peers.pause(name)),
    resumePeer: (name) => change(name, () => peers.resume(name)),
    renewPeer: (name, way) => change(name, () => peers.renew(name, way)),
    retryPeer: (name) => change(name, () => Promise.resolve(peers.get(name).retry())),
    skipPeer: (name, lsn, skipOptions) =>
      change(name, async () => {
        const peer = peers.get(name);
        await quarantine.skip(name, parseLsn(lsn), skipOptions);
        if (!skipOptions.dryRun) peer.askAgain();
      }),
    listQuarantine: (page) => quarantine.list(page),
    showQuarantined: (id, page) => quarantine.show(id, page),
    retryQuarantined: (id, retryOptions) => quarantine.retry(id, retryOptions),
    discardQuarantined: (id) => quarantine.discard(id),
    giveToken: async (tokenOptions) => {
      const { token, positions } = await reading.token(tokenOptions);
      return { token, positions: positions.map(({ node, lsn }) => ({ node, lsn: formatLsn(lsn) })) };
    },
    waitFor: async (token, waitOptions) => {
      const outcome = await reading.wait(token, waitOptions);
      if (outcome.reached) return { reached: true, waitedSeconds: Math.round(outcome.waitedMs) / 1000 };
      return { ...outcome, behind: outcome.behind.map(showBehind) };
    },
    createInvite: (input) => invites.create(input),
    listInvites: () => invites.list(),
    deleteInvite: (id) => invites.withdraw(id),
    createJob: (input, createOptions) => jobs.create(input, createOptions),
    listJobs: () => jobs.list(),
    getJob: (id) => jobs.get(id),
    removeJob: (id) => jobs.remove(id),
    listTables: async () => {
      await viewOf(options);
      return tables.list();
    },
    getTable: async (table) => {
      await viewOf(options);
      return tables.get(table);
    },
    setTablePolicy: (table, input, setOptions) => tables.setPolicy(table, input, setOptions),
    listPatterns: () => patterns.list(),
    putPattern: (pattern, kind, putOptions) => patterns.put(pattern, kind, putOptions),
    removePattern: (pattern, removeOptions) => patterns.remove(pattern, removeOptions),
    clearTable: (table, clearOptions) => tables.clear(table, clearOptions),
    listConflicts: (filter) => listConflicts(query("list the conflicts"), filter),
    getConflict: (id) => getConflict(query(`show conflict ${id}`), id),
    events: (listenOptions) => events.listen(listenOptions),
  };
}

function showBehind({ node, wantedLsn, appliedLsn, inbound }: BehindNode): ShownBehind {
  const error = inbound.name === "failed" ? inbound.error : null;
  return {
    node,
    wanted_lsn: formatLsn(wantedLsn),
    applied_lsn: appliedLsn === null ? null : formatLsn(appliedLsn),
    behind_bytes: appliedLsn === null ? null : String(wantedLsn - appliedLsn),
    inbound_state: inboundState(inbound),
    last_error: error === null ? null : { kind: error.kind, message: error.message, hint: error.hint },
  };
}

async function putPeer(
  { peers, ...options }: ControlOptions,
  { name, input, dryRun, precondition }: PutPeerOptions & { name: string; input: PeerInput },
): Promise<{ created: boolean; peer: PeerStatus }> {
  const url = input.url == null ? null : parsePeerUrl(input.url).origin;
  const require = (known: Peer | undefined) =>
    precondition?.(known === undefined ? null : peerStatus(known, unseen(options)));
  const view = await viewOf({ peers, ...options });
  if (dryRun) {
    const known = peers.find(name);
    require(known);
    peers.check(name, url);
    const peer = known ?? imagined(name, url);
    return {
      created: known === undefined,
      peer: peerStatus(peer, known === undefined ? unseen(options) : view),
    };
  }
  const { peer, created } = await peers.put(name, url, require);
  await peers.firstAnswer(peer);
  if (created) await peers.refuseStranger(peer);
  return { created, peer: peerStatus(peer, view) };
}

/** What a dry run shows of a peer that is not there yet. */
function imagined(name: string, url: string | null): Peer {
  const observer = { sent: unused, wrote: unused, reconnected: unused };
  const returnPorts = { dial: unused, receive: unused, failed: unused };
  return new Peer(name, url, { ports: unused, returnPorts, observer });
}

/** A peer that is only shown never attempts anything. */
function unused(): never {
  throw new MmliteError("internal", "Cannot start a peer of a dry run");
}

/** What the database says, and why it says nothing. */
interface View extends PeerView {
  readonly problem: MmliteError | null;
  /** Null while unknown. */
  readonly keptConflicts: number | null;
}

/** What is known without the database. */
function unseen({ policies }: Pick<ControlOptions, "policies">): PeerView {
  return { positions: null, policies: policies.digest };
}

/** What the database says now; which tables have diverged is noted in passing. */
async function viewOf(options: ControlOptions): Promise<View> {
  const { database, guard, tables } = options;
  const blind = (problem: MmliteError) => ({ ...unseen(options), keptConflicts: null, problem });
  if (guard.problem !== null) return blind(guard.problem);
  try {
    const [positions, keptConflicts] = await Promise.all([
      readPositions(database.control.query("read the positions")),
      countConflicts(database.control.query("count the conflicts")),
      tables.look(),
    ]);
    return { ...unseen(options), positions, keptConflicts, problem: null };
  } catch (thrown) {
    return blind(toMmliteError(thrown));
  }
}

async function status(options: ControlOptions): Promise<NodeStatus> {
  const { self, database, tables, conflicts } = options;
  const view = await viewOf(options);
  const { positions, problem } = view;
  const peers = options.peers.list().map((peer) => peerStatus(peer, view));
  const { facts } = database;
  return nodeStatus({
    node: {
      name: self.node,
      cluster: self.cluster,
      incarnation: self.incarnation,
      version: VERSION,
      started_at: options.startedAt.toISOString(),
      peer_address: options.peerAddress,
      api_address: options.apiAddress(),
      advertised_url: options.url,
      insecure: options.tls === null,
    },
    tls: options.tls === null ? null : tlsStatus(options.tls.current),
    postgres: {
      connected: positions !== null,
      version: facts.version,
      version_num: facts.versionNumber,
      system_identifier: facts.systemIdentifier,
      timeline: facts.timeline,
      database: facts.database,
      host: `${database.target.host}:${database.target.port}`,
      wal_lsn: positions === null ? null : formatLsn(positions.walLsn),
      track_commit_timestamp: facts.trackCommitTimestamp,
      clock_offset_seconds: options.clock.offsetSeconds,
      problem: problem === null ? null : { kind: problem.kind, message: problem.message, hint: problem.hint },
    },
    peers,
    tables: tables.counts(),
    conflicts: { since_start: { ...conflicts.byType() }, kept: view.keptConflicts },
    quarantine: { transactions: positions?.quarantined ?? null },
    ready: health(options).ready,
    problems: [
      ...serverWarnings(facts),
      ...(problem === null ? [] : [problem]),
      ...tables.problems(),
      ...differingPolicies(peers),
      ...options.slotKeeper.problems(),
      ...repairProblems(options.peers.list()),
      ...options.copying.problems(),
      ...options.groups.problems(),
      ...quarantineProblems(positions?.quarantined ?? null),
      ...options.peers.list().flatMap(({ clock }) => clock.problem ?? []),
      ...(options.tls === null ? [] : tlsProblems(options.tls)),
    ],
  });
}

/** A peer that is down does not make a node unready. */
function health({ guard, publications }: ControlOptions): Health {
  const checks = [
    { name: "postgres", ok: guard.problem === null, message: guard.problem?.message ?? "" },
    { name: "publication", ok: publications.failure === null, message: publications.failure?.message ?? "" },
  ];
  return { ready: checks.every(({ ok }) => ok), checks };
}

function updateGauges({ peers, metrics, tls, groups, tables }: ControlOptions, view: PeerView): void {
  if (tls !== null) metrics.setCertificateExpiry(tls.current);
  metrics.setDivergence({ tombstoneBytes: groups.tombstoneBytes, divergedTables: tables.counts().diverged });
  metrics.setQuarantined(view.positions?.quarantined ?? null);
  for (const peer of peers.list()) {
    const shown = peerStatus(peer, view);
    metrics.setPeer(peer.name, {
      state: shown.state,
      outboundLagSeconds: shown.lag_seconds,
      inboundLagSeconds: shown.inbound.lag_seconds,
      lagBytes: numberOf(shown.lag_bytes),
      slotRetainedWalBytes: numberOf(shown.slot?.retained_wal_bytes),
      slotSafeWalSizeBytes: numberOf(shown.slot?.safe_wal_size),
      clockSkewSeconds: peer.clock.skew?.seconds ?? null,
      awaitedRows: shown.inbound.awaited_rows,
      awaySeconds: peer.awaySince === null
        ? 0
        : Math.max(0, (Date.now() - Date.parse(peer.awaySince)) / 1000),
      isEvicted: peer.evicted !== null,
      isRepairDue: peer.repairDue !== null,
    });
  }
}

function numberOf(digits: string | null | undefined): number | null {
  return digits == null ? null : Number(digits);
}
