/**
 * The node as the control API sees it: the port that the API declares, over the running parts.
 */
import type { Health, NodeControl, PutPeerOptions } from "../api/control.ts";
import type { NodeStatus, PeerInput, PeerStatus } from "../api/schemas.ts";
import { MmliteError, toMmliteError } from "../errors.ts";
import { parsePeerUrl } from "../http/peer_url.ts";
import { formatLsn } from "../lsn.ts";
import type { Metrics } from "../metrics.ts";
import { VERSION } from "../version.ts";
import type { TlsKeys } from "../pki/tls_keys.ts";
import type { NodeIdentity } from "../wire/frame.ts";
import { type Database, serverWarnings } from "./database.ts";
import type { Guard } from "./guard.ts";
import type { Invites } from "./invites.ts";
import type { ConflictCounts } from "./observers.ts";
import { Peer } from "./peer.ts";
import type { Peers } from "./peers.ts";
import type { PublicationKeeper } from "./publication_keeper.ts";
import type { ServerClock } from "./server_clock.ts";
import { nodeStatus, peerStatus, type Positions, readPositions, tlsStatus } from "./status.ts";
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
  readonly tables: PublicationKeeper;
  readonly invites: Invites;
  readonly conflicts: ConflictCounts;
  readonly clock: ServerClock;
  readonly metrics: Metrics;
  /** Null on a node that speaks cleartext. */
  readonly tls: TlsKeys | null;
}

/** The control of a running node. */
export function createControl(options: ControlOptions): NodeControl {
  const { peers, tables, invites, metrics } = options;
  const show = async (peer: Peer) => peerStatus(peer, (await positionsOf(options)).positions);
  const change = async (name: string, work: () => Promise<void>) => {
    await work();
    return await show(peers.get(name));
  };
  return {
    status: () => status(options),
    health: () => Promise.resolve(health(options)),
    metrics: async () => {
      updateGauges(options, (await positionsOf(options)).positions);
      return await metrics.render();
    },
    listPeers: async () => {
      const { positions } = await positionsOf(options);
      return peers.list().map((peer) => peerStatus(peer, positions));
    },
    getPeer: (name) => show(peers.get(name)),
    putPeer: (name, input, putOptions) => putPeer(options, { ...putOptions, name, input }),
    removePeer: (name, { force, precondition }) =>
      peers.remove(name, { force, precondition: (peer) => precondition?.(peerStatus(peer, null)) }),
    pausePeer: (name) => change(name, () => peers.pause(name)),
    resumePeer: (name) => change(name, () => peers.resume(name)),
    retryPeer: (name) => change(name, () => Promise.resolve(peers.get(name).link.retry())),
    createInvite: (input) => invites.create(input),
    listInvites: () => invites.list(),
    deleteInvite: (id) => invites.withdraw(id),
    listTables: () => Promise.resolve(tables.list()),
    getTable: (schema, name) => Promise.resolve(tables.get(schema, name)),
  };
}

async function putPeer(
  { peers, ...options }: ControlOptions,
  { name, input, dryRun, precondition }: PutPeerOptions & { name: string; input: PeerInput },
): Promise<{ created: boolean; peer: PeerStatus }> {
  const url = input.url == null ? null : parsePeerUrl(input.url).origin;
  const require = (known: Peer | undefined) =>
    precondition?.(known === undefined ? null : peerStatus(known, null));
  const { positions } = await positionsOf({ peers, ...options });
  if (dryRun) {
    const known = peers.find(name);
    require(known);
    peers.check(name, url);
    return { created: known === undefined, peer: known ? peerStatus(known, positions) : imagined(name, url) };
  }
  const { peer, created } = await peers.put(name, url, require);
  await peers.firstAnswer(peer);
  if (created) await peers.refuseStranger(peer);
  return { created, peer: peerStatus(peer, positions) };
}

/** What a dry run shows of a peer that is not there yet. */
function imagined(name: string, url: string | null): PeerStatus {
  const observer = { sent: unused, wrote: unused, reconnected: unused };
  const returnPorts = { dial: unused, receive: unused, failed: unused };
  return peerStatus(new Peer(name, url, { ports: unused, returnPorts, observer }), null);
}

/** A peer that is only shown never attempts anything. */
function unused(): never {
  throw new MmliteError("internal", "Cannot start a peer of a dry run");
}

/** The database's view, or why there is none. */
async function positionsOf(
  { database, guard }: ControlOptions,
): Promise<{ positions: Positions | null; problem: MmliteError | null }> {
  if (guard.problem !== null) return { positions: null, problem: guard.problem };
  try {
    return { positions: await readPositions(database.control.query("read the positions")), problem: null };
  } catch (thrown) {
    return { positions: null, problem: toMmliteError(thrown) };
  }
}

async function status(options: ControlOptions): Promise<NodeStatus> {
  const { self, database, peers, tables, conflicts } = options;
  const { positions, problem } = await positionsOf(options);
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
    peers: peers.list().map((peer) => peerStatus(peer, positions)),
    tables: tables.counts(),
    conflicts: conflicts.byType(),
    ready: health(options).ready,
    problems: [
      ...serverWarnings(facts),
      ...(problem === null ? [] : [problem]),
      ...tables.problems(),
      ...peers.list().flatMap(({ clock }) => clock.problem ?? []),
      ...(options.tls === null ? [] : tlsProblems(options.tls)),
    ],
  });
}

/** A peer that is down does not make a node unready. */
function health({ guard, tables }: ControlOptions): Health {
  const checks = [
    { name: "postgres", ok: guard.problem === null, message: guard.problem?.message ?? "" },
    { name: "publication", ok: tables.failure === null, message: tables.failure?.message ?? "" },
  ];
  return { ready: checks.every(({ ok }) => ok), checks };
}

function updateGauges({ peers, metrics, tls }: ControlOptions, positions: Positions | null): void {
  if (tls !== null) metrics.setCertificateExpiry(tls.current);
  for (const peer of peers.list()) {
    const shown = peerStatus(peer, positions);
    metrics.setPeer(peer.name, {
      state: shown.state,
      outboundLagSeconds: shown.lag_seconds,
      inboundLagSeconds: shown.inbound.lag_seconds,
      lagBytes: numberOf(shown.lag_bytes),
      slotRetainedWalBytes: numberOf(shown.slot?.retained_wal_bytes),
      slotSafeWalSizeBytes: numberOf(shown.slot?.safe_wal_size),
      clockSkewSeconds: peer.clock.skew?.seconds ?? null,
    });
  }
}

function numberOf(digits: string | null | undefined): number | null {
  return digits == null ? null : Number(digits);
}
