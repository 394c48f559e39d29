/**
 * The node on one page: what status, peers and tables show, gathered from the database and the running links.
 */
import type {
  InboundStatus,
  LastError,
  NodeStatus,
  PeerState,
  PeerStatus,
  SlotStatus,
  TlsStatus,
} from "../api/schemas.ts";
import { formatLsn, type Lsn, maxLsn } from "../lsn.ts";
import { type Progress, readProgress } from "../pg/progress.ts";
import { type BlockedTransaction, countQuarantined, readBlocked } from "../pg/quarantine.ts";
import { readWalLsn } from "../pg/server.ts";
import { readSlots, SLOT_PREFIX, slotName, type SlotState } from "../pg/slots.ts";
import type { Query } from "../pg/query.ts";
import { countUnsent } from "../pg/unsent.ts";
import { MmliteError } from "../errors.ts";
import { formatPeerUri } from "../pki/identity.ts";
import type { TlsMaterial } from "../pki/tls_keys.ts";
import type { Peer } from "./peer.ts";

/** States in which transactions get through, so that the age of the oldest un-acked one is the lag. */
const FLOWING: ReadonlySet<PeerState> = new Set<PeerState>(["catchup", "streaming"]);

/** What the database says of all peers, read in one go. */
export interface Positions {
  readonly walLsn: Lsn;
  readonly slots: ReadonlyMap<string, SlotState>;
  readonly progress: ReadonlyMap<string, Progress>;
  /** By the origin. */
  readonly blocked: ReadonlyMap<string, BlockedTransaction>;
  /** How many rows here await values of a node. */
  readonly awaited: ReadonlyMap<string, number>;
  /** Transactions in quarantine. */
  readonly quarantined: number;
}

/** Reads the positions of every peer. */
export async function readPositions(query: Query): Promise<Positions> {
  const [walLsn, slots, progress, blocked, awaited, quarantined] = await Promise.all([
    readWalLsn(query),
    readSlots(query, SLOT_PREFIX),
    readProgress(query),
    readBlocked(query),
    countUnsent(query),
    countQuarantined(query),
  ]);
  return {
    walLsn,
    slots: new Map(slots.map((slot) => [slot.name, slot])),
    progress: new Map(progress.map((row) => [row.origin, row])),
    blocked: new Map(blocked.map((row) => [row.origin, row])),
    awaited,
    quarantined,
  };
}

/** What the status of a peer is made of, besides the peer itself. */
export interface PeerView {
  /** Null while the database cannot be asked. */
  readonly positions: Positions | null;
  /** What stands for this node's policies of conflicts. */
  readonly policies: string;
}

/** One peer's status. */
export function peerStatus(peer: Peer, { positions, policies }: PeerView): PeerStatus {
  const { link, outbound, clock: { skew } } = peer;
  const slot = positions?.slots.get(slotName(peer.name)) ?? null;
  const lagBytes = lagOf(positions, slot);
  return {
    name: peer.name,
    url: peer.url,
    state: link.state.name satisfies PeerState,
    since: link.since.toISOString(),
    awaits_dial: peer.awaitsDial,
    certificate_expires_at: peer.certificateExpiresAt?.toISOString() ?? null,
    removing: peer.removing,
    away_since: peer.awaySince,
    evicted_at: peer.evicted?.at ?? null,
    repair_due_since: peer.repairDue,
    policies_differ: peer.policies !== null && peer.policies !== policies,
    sent_lsn: lsnText(outbound.sentLsn),
    acked_lsn: lsnText(outbound.ackedLsn),
    lag_bytes: lagBytes === null ? null : String(lagBytes),
    lag_seconds: FLOWING.has(link.state.name) ? outbound.lagSeconds : null,
    slot: slot === null ? null : slotStatus(slot),
    clock_skew_seconds: skew?.seconds ?? null,
    clock_skew_uncertainty_seconds: skew?.uncertaintySeconds ?? null,
    inbound: inboundStatus(peer, positions),
    sent_transactions: outbound.sentTransactions,
    compression: FLOWING.has(link.state.name) ? outbound.compression : null,
    sent_message_bytes: String(outbound.sentMessageBytes),
    sent_bytes: String(outbound.sentBytes),
    reconnects: Math.max(0, outbound.attempts - 1),
    last_error: lastError(link.lastError),
  };
}

/** The whole page, from its parts. */
export function nodeStatus(parts: {
  readonly node: NodeStatus["node"];
  readonly tls: NodeStatus["tls"];
  readonly postgres: NodeStatus["postgres"];
  readonly peers: readonly PeerStatus[];
  readonly tables: NodeStatus["tables"];
  readonly conflicts: NodeStatus["conflicts"];
  readonly quarantine: NodeStatus["quarantine"];
  readonly ready: boolean;
  readonly problems: readonly MmliteError[];
}): NodeStatus {
  return {
    ...parts,
    peers: [...parts.peers],
    problems: parts.problems.map(({ kind, message, hint }) => ({ kind, message, hint })),
  };
}

/** Peers that settle conflicts in another way: what an operator should know. */
export function differingPolicies(peers: readonly PeerStatus[]): MmliteError[] {
  return peers.filter(({ policies_differ }) => policies_differ).map(({ name }) =>
    new MmliteError(
      "config",
      `Peer "${name}" settles conflicts by other policies than this node: rows can come to differ`,
      {
        hint:
          `Compare \`mmlite tables list\` and the file's conflicts on both nodes, and make them the same; ` +
          "without track_commit_timestamp a node cannot go by versions",
      },
    )
  );
}

/** Peers whose rows may differ from ours because something was never delivered. */
export function repairProblems(peers: readonly Peer[]): MmliteError[] {
  return peers.filter(({ repairDue }) => repairDue !== null).map(({ name, repairDue }) =>
    new MmliteError(
      "conflict",
      `Rows may differ from those of peer "${name}": something was not delivered before ${repairDue}`,
      {
        hint:
          `Once both links stream, run the repair that goes with what had happened (docs/OPERATIONS.md: A slot that ` +
          `is lost, Fenced, A node that is lost for good); then \`mmlite verify --peer ${name}\`, which clears this`,
      },
    )
  );
}

/** What is in quarantine needs somebody who decides. */
export function quarantineProblems(transactions: number | null): MmliteError[] {
  if (transactions === null || transactions === 0) return [];
  const what = transactions === 1 ? "1 transaction is" : `${transactions} transactions are`;
  return [
    new MmliteError("apply_failed", `${what} in quarantine and not applied here`, {
      hint: "`mmlite quarantine list` shows what of, and `retry` or `discard` ends it",
    }),
  ];
}

/** What this node's own certificate says. */
export function tlsStatus({ name, expiresAt, authorityExpiresAt }: TlsMaterial): TlsStatus {
  return {
    identity: formatPeerUri(name),
    certificate_expires_at: expiresAt.toISOString(),
    ca_expires_at: authorityExpiresAt.toISOString(),
  };
}

/** WAL between what the peer needs and the end, bytes; null while unknown. */
function lagOf(positions: Positions | null, slot: SlotState | null): bigint | null {
  if (positions === null || slot?.confirmedFlushLsn == null) return null;
  return maxLsn(positions.walLsn, slot.confirmedFlushLsn) - slot.confirmedFlushLsn;
}

function slotStatus(slot: SlotState): SlotStatus {
  return {
    name: slot.name,
    confirmed_flush_lsn: lsnText(slot.confirmedFlushLsn),
    restart_lsn: lsnText(slot.restartLsn),
    retained_wal_bytes: String(slot.retainedBytes),
    wal_status: slot.walStatus,
    safe_wal_size: slot.safeWalSizeBytes === null ? null : String(slot.safeWalSizeBytes),
    active: slot.activePid !== null,
  };
}

function inboundStatus({ name, inbound }: Peer, positions: Positions | null): InboundStatus {
  const progress = positions?.progress.get(name);
  const blocked = positions?.blocked.get(name);
  const state = inboundState(inbound.state);
  return {
    // While the sender looks whether it can go on, it cannot.
    state: state === "streaming" && blocked !== undefined ? "blocked" : state,
    applied_lsn: progress === undefined ? null : formatLsn(progress.lsn),
    applied_commit_timestamp: progress?.commitTimestamp ?? null,
    lag_seconds: inbound.lagSeconds,
    transactions: inbound.transactions,
    changes: inbound.changes,
    last_error: lastError(inbound.lastError),
    blocked_lsn: lsnText(blocked?.commitLsn ?? null),
    awaited_rows: positions === null ? null : positions.awaited.get(name) ?? 0,
  };
}

/** What comes from a peer, in one word. */
export function inboundState(state: Peer["inbound"]["state"]): InboundStatus["state"] {
  if (state.name !== "failed") return state.name;
  if (state.error.kind === "copying") return "copying";
  switch (state.error.disposition) {
    case "retry":
      return "disconnected";
    case "block":
      return "blocked";
    case "fence":
      return "fenced";
  }
}

function lastError(last: { readonly error: MmliteError; readonly at: Date } | undefined): LastError | null {
  if (last === undefined) return null;
  const { kind, message, hint } = last.error;
  return { kind, message, hint, at: last.at.toISOString() };
}

function lsnText(lsn: Lsn | null): string | null {
  return lsn === null ? null : formatLsn(lsn);
}
