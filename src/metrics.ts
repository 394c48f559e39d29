/**
 * The metrics of one node, in Prometheus's text format.
 *
 * One registry per call of {@link createMetrics}: nothing global, so that several nodes can live in one process.
 * The parts of the node report through the small methods of {@link Metrics}; nobody else knows the client library.
 */
import {
  collectDefaultMetrics,
  Counter,
  Gauge,
  Histogram,
  type LabelValues,
  Registry,
} from "@prometheus-io/client";
import { PEER_STATES, type PeerState } from "./peer_state.ts";

/** How often the event loop is looked at, milliseconds: the library's 10 and 100 ms cost 1 % of a core at rest. */
const EVENT_LOOP_SAMPLE_MS = 1_000;

/** Upper bounds of the apply duration's buckets, seconds: a small commit takes under 1 ms, a large one minutes. */
const APPLY_BUCKETS = [
  0.0005,
  0.001,
  0.0025,
  0.005,
  0.01,
  0.025,
  0.05,
  0.1,
  0.25,
  0.5,
  1,
  2.5,
  5,
  10,
  60,
  300,
];

/** The gauges of one peer; null is unknown, and then the series is absent. */
export interface PeerGauges {
  /** Its series is 1 and those of the other states are 0. */
  readonly state: PeerState;
  readonly lagBytes: number | null;
  /** Behind in what goes to the peer, seconds. */
  readonly outboundLagSeconds: number | null;
  /** Behind in what comes from the peer, seconds. */
  readonly inboundLagSeconds: number | null;
  readonly slotRetainedWalBytes: number | null;
  readonly slotSafeWalSizeBytes: number | null;
  /** The clock of the peer's PostgreSQL minus that of ours, seconds. */
  readonly clockSkewSeconds: number | null;
  /** Rows here that await values of the peer. */
  readonly awaitedRows: number | null;
  /** Seconds in which nothing has gone to the peer; 0 while something does. */
  readonly awaySeconds: number;
  /** Its slot was given up, for the WAL that it kept. */
  readonly isEvicted: boolean;
  /** Rows may differ from its own. */
  readonly isRepairDue: boolean;
}

/** When the certificates of this node expire. */
export interface CertificateTimes {
  readonly expiresAt: Date;
  readonly authorityExpiresAt: Date;
}

/** Kinds of change that are counted as applied. */
export type ChangeKind = "insert" | "update" | "delete" | "truncate";

/** Where the parts of a node report what they did. */
export interface Metrics {
  /** Replaces the gauges of a peer. */
  setPeer(peer: string, gauges: PeerGauges): void;
  /** Drops every series of a peer that was removed. */
  removePeer(peer: string): void;
  /** Counts transactions read from a slot: `local` ones go on, `filtered` ones came from elsewhere or change nothing published. */
  countDecoded(kind: "local" | "filtered", transactions?: number): void;
  /** Counts pgoutput messages sent, as PostgreSQL made them. */
  countSentMessageBytes(peer: string, bytes: number): void;
  /** Counts what was put on the stream to a peer: messages in frames, compressed if they are. */
  countSentBytes(peer: string, bytes: number): void;
  countReconnect(peer: string): void;
  /** Counts transactions of a node that one local transaction applied here, and the seconds from its first change to
   * its commit. */
  observeApplied(origin: string, applied: { transactions: number; seconds: number }): void;
  /** Counts changes of a node that were applied here. */
  countChanges(origin: string, kind: ChangeKind, changes: number): void;
  /** Counts conflicts of one of PostgreSQL's types, such as `update_missing`, by what was done about them. */
  countConflict(type: string, resolution: string, conflicts?: number): void;
  /** Counts that transactions were let through without those of a node that caused them. */
  countCausalTimeout(peer: string): void;
  /** Rows of a table were copied to this node, about as many. */
  countCopied(table: string, rows: number): void;
  /** Sets when this node's certificate expires, and the CA's that issued it. */
  setCertificateExpiry(times: CertificateTimes): void;
  /** Sets what is kept of deleted rows, bytes, and of how many tables nodes may hold different rows. */
  setDivergence(kept: { tombstoneBytes: number; divergedTables: number }): void;
  /** Sets how many transactions are in quarantine; null for unknown. */
  setQuarantined(transactions: number | null): void;
  /** The exposition format, version 0.0.4. */
  render(): Promise<string>;
}

/** The metrics of one node, which runs `version` of the program. */
export function createMetrics(version: string): Metrics {
  const registry = new Registry();
  collectDefaultMetrics({
    register: registry,
    eventLoopMonitoringPrecision: EVENT_LOOP_SAMPLE_MS,
    eventLoopUtilizationTimeout: EVENT_LOOP_SAMPLE_MS,
  });
  const series = createSeries(registry);
  series.buildInfo.set({ version }, 1);
  for (const kind of ["local", "filtered"]) series.decodedTransactions.inc({ kind }, 0);
  return {
    setPeer: (peer, gauges) => setPeer(series, { peer, gauges }),
    removePeer: (peer) => removePeer(series, peer),
    countDecoded: (kind, transactions = 1) => series.decodedTransactions.inc({ kind }, transactions),
    countSentMessageBytes: (peer, bytes) => series.sentMessageBytes.inc({ peer }, bytes),
    countSentBytes: (peer, bytes) => series.sentBytes.inc({ peer }, bytes),
    countReconnect: (peer) => series.reconnects.inc({ peer }),
    observeApplied: (origin, { transactions, seconds }) => {
      series.appliedTransactions.inc({ origin }, transactions);
      series.applyDuration.observe(seconds);
    },
    countChanges: (origin, kind, changes) => series.appliedChanges.inc({ origin, kind }, changes),
    countConflict: (type, resolution, conflicts = 1) => series.conflicts.inc({ type, resolution }, conflicts),
    countCausalTimeout: (peer) => series.causalTimeouts.inc({ peer }),
    countCopied: (table, rows) => series.copiedRows.inc({ table }, rows),
    setCertificateExpiry: ({ expiresAt, authorityExpiresAt }) => {
      series.certificateExpiry.set({ certificate: "node" }, expiresAt.getTime() / 1000);
      series.certificateExpiry.set({ certificate: "ca" }, authorityExpiresAt.getTime() / 1000);
    },
    setDivergence: ({ tombstoneBytes, divergedTables }) => {
      series.tombstones.set(tombstoneBytes);
      series.divergedTables.set(divergedTables);
    },
    setQuarantined: (transactions) => setOrReset(series.quarantined, transactions),
    render: () => registry.metrics(),
  };
}

type Series = ReturnType<typeof createSeries>;

function createSeries(registry: Registry) {
  const registers = [registry];
  const gauge = <Label extends string>(name: string, help: string, labelNames: Label[]) =>
    new Gauge({ name, help, labelNames, registers });
  const counter = <Label extends string>(name: string, help: string, labelNames: Label[]) =>
    new Counter({ name, help, labelNames, registers });
  return {
    buildInfo: gauge("mmlite_build_info", "Always 1; the version is a label", ["version"]),
    peerState: gauge("mmlite_peer_state", "1 for the state that the link to the peer is in", [
      "peer",
      "state",
    ]),
    lagSeconds: gauge("mmlite_replication_lag_seconds", "Time between commit there and here", [
      "peer",
      "direction",
    ]),
    lagBytes: gauge("mmlite_replication_lag_bytes", "WAL that the peer has not acknowledged", ["peer"]),
    slotRetained: gauge("mmlite_slot_retained_wal_bytes", "WAL that the peer's slot keeps on disk", ["peer"]),
    slotSafe: gauge("mmlite_slot_safe_wal_size_bytes", "WAL that can be written before the slot is lost", [
      "peer",
    ]),
    clockSkew: gauge(
      "mmlite_clock_skew_seconds",
      "Clock of the peer's PostgreSQL minus clock of this node's",
      ["peer"],
    ),
    awaitedRows: gauge("mmlite_awaited_rows", "Rows here that await values of the peer", ["peer"]),
    awaySeconds: gauge("mmlite_peer_away_seconds", "Time in which nothing has gone to the peer", ["peer"]),
    evicted: gauge("mmlite_peer_evicted", "1 if the peer was given up for the WAL that was kept for it", [
      "peer",
    ]),
    repairDue: gauge("mmlite_peer_repair_due", "1 if rows may differ from those of the peer", ["peer"]),
    quarantined: gauge(
      "mmlite_quarantined_transactions",
      "Transactions that were set aside, not applied",
      [],
    ),
    certificateExpiry: gauge(
      "mmlite_certificate_expiry_timestamp_seconds",
      "When the certificate expires, seconds since 1970",
      ["certificate"],
    ),
    decodedTransactions: counter("mmlite_decoded_transactions_total", "Transactions read from slots", [
      "kind",
    ]),
    sentMessageBytes: counter(
      "mmlite_sent_message_bytes_total",
      "Bytes of pgoutput messages sent to the peer, as PostgreSQL made them",
      ["peer"],
    ),
    sentBytes: counter(
      "mmlite_sent_bytes_total",
      "Bytes put on the stream to the peer: framed, and compressed if they are",
      ["peer"],
    ),
    reconnects: counter("mmlite_reconnects_total", "Attempts to connect to the peer after the first", [
      "peer",
    ]),
    appliedTransactions: counter(
      "mmlite_applied_transactions_total",
      "Transactions of other nodes applied here",
      [
        "origin",
      ],
    ),
    appliedChanges: counter("mmlite_applied_changes_total", "Changes of other nodes applied here", [
      "origin",
      "kind",
    ]),
    causalTimeouts: counter(
      "mmlite_causal_timeouts_total",
      "Times that transactions were let through after waiting for earlier ones of the peer in vain",
      ["peer"],
    ),
    copiedRows: counter("mmlite_copy_rows_total", "Rows copied to this node from a peer", ["table"]),
    conflicts: counter("mmlite_conflicts_total", "Conflicts met while applying", ["type", "resolution"]),
    tombstones: gauge(
      "mmlite_tombstone_bytes",
      "What is kept of deleted rows until every node has passed them",
      [],
    ),
    divergedTables: gauge("mmlite_diverged_tables", "Tables of which nodes may hold different rows", []),
    applyDuration: new Histogram({
      name: "mmlite_apply_duration_seconds",
      help: "Time of one local transaction that applied one or more of another node",
      buckets: APPLY_BUCKETS,
      registers,
    }),
  };
}

function setPeer(series: Series, { peer, gauges }: { peer: string; gauges: PeerGauges }): void {
  for (const state of PEER_STATES) series.peerState.set({ peer, state }, state === gauges.state ? 1 : 0);
  // Counters exist from the first look at a peer on: a rate over a series that begins at 1 misses the first step.
  series.sentMessageBytes.inc({ peer }, 0);
  series.sentBytes.inc({ peer }, 0);
  series.reconnects.inc({ peer }, 0);
  series.causalTimeouts.inc({ peer }, 0);
  const { lagSeconds, lagBytes, slotRetained, slotSafe, clockSkew, awaitedRows } = series;
  setOrRemove(lagSeconds, { labels: { peer, direction: "outbound" }, value: gauges.outboundLagSeconds });
  setOrRemove(lagSeconds, { labels: { peer, direction: "inbound" }, value: gauges.inboundLagSeconds });
  setOrRemove(lagBytes, { labels: { peer }, value: gauges.lagBytes });
  setOrRemove(slotRetained, { labels: { peer }, value: gauges.slotRetainedWalBytes });
  setOrRemove(slotSafe, { labels: { peer }, value: gauges.slotSafeWalSizeBytes });
  setOrRemove(clockSkew, { labels: { peer }, value: gauges.clockSkewSeconds });
  setOrRemove(awaitedRows, { labels: { peer }, value: gauges.awaitedRows });
  series.awaySeconds.set({ peer }, gauges.awaySeconds);
  series.evicted.set({ peer }, gauges.isEvicted ? 1 : 0);
  series.repairDue.set({ peer }, gauges.isRepairDue ? 1 : 0);
}

function setOrRemove<Label extends string>(
  gauge: Gauge<Label>,
  { labels, value }: { labels: LabelValues<Label>; value: number | null },
): void {
  if (value === null) gauge.remove(labels);
  else gauge.set(labels, value);
}

/** A gauge without labels; not a number stands for unknown. */
function setOrReset(gauge: Gauge, value: number | null): void {
  gauge.set(value ?? NaN);
}

function removePeer(series: Series, peer: string): void {
  for (const state of PEER_STATES) series.peerState.remove({ peer, state });
  for (const direction of ["outbound", "inbound"]) series.lagSeconds.remove({ peer, direction });
  const { lagBytes, slotRetained, slotSafe, clockSkew, awaitedRows } = series;
  const { awaySeconds, evicted, repairDue } = series;
  const ofState = [awaySeconds, evicted, repairDue];
  for (const gauge of [lagBytes, slotRetained, slotSafe, clockSkew, awaitedRows, ...ofState]) {
    gauge.remove({ peer });
  }
  series.sentMessageBytes.remove({ peer });
  series.sentBytes.remove({ peer });
  series.reconnects.remove({ peer });
  series.causalTimeouts.remove({ peer });
}
