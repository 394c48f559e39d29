/**
 * Assembly: one page that joins the roles to the adapters, and closes them in the mirrored order.
 */
import { AppliedHistory } from "../applied_history.ts";
import type { NodeControl } from "../api/control.ts";
import type { Config } from "../config.ts";
import { advertisedUrl, formatAddress, isLoopbackHost, peerScheme } from "../config/address.ts";
import { toMmliteError } from "../errors.ts";
import { PeerDialler } from "../http/peer_dialler.ts";
import { listenForPeers } from "../http/peer_server.ts";
import type { Inbox } from "../inbox/inbox.ts";
import { log } from "../log.ts";
import { createMetrics } from "../metrics.ts";
import { readProgress } from "../pg/progress.ts";
import { ORIGINS_SINCE, readWalClock } from "../pg/server.ts";
import { VERSION } from "../version.ts";
import type { ProvenPeer } from "../wire/channel.ts";
import type { NodeIdentity } from "../wire/frame.ts";
import { Applied } from "./applied.ts";
import { AppliedPositions } from "./applied_positions.ts";
import { Causality } from "./causality.ts";
import { parseTimestamp } from "./clock.ts";
import { ConflictKeeper } from "./conflict_keeper.ts";
import { ConflictPolicies } from "./conflict_policies.ts";
import { CopyGiver } from "./copy_giver.ts";
import { Copying } from "./copying.ts";
import { createControl } from "./control.ts";
import { type Database, openDatabase, serverWarnings } from "./database.ts";
import { GroupKeeper } from "./group_keeper.ts";
import { Guard } from "./guard.ts";
import { openDial } from "./dial.ts";
import { Merging } from "./merging.ts";
import { openInbox } from "./inbound.ts";
import { ensureIncarnation } from "./incarnation.ts";
import { Leaving } from "./leaving.ts";
import { Invites } from "./invites.ts";
import { applyObserver, ConflictCounts, conflictObserver, sourceObserver } from "./observers.ts";
import { outboundPorts } from "./outbound.ts";
import { openOwnDeletes } from "./own_deletes.ts";
import { PeerSlots } from "./peer_slots.ts";
import { Peers } from "./peers.ts";
import { Jobs } from "./jobs.ts";
import { PublicationKeeper } from "./publication_keeper.ts";
import { Quarantine } from "./quarantine.ts";
import { PatternChanges } from "./pattern_changes.ts";
import { TablePatterns } from "./table_patterns.ts";
import { Tables } from "./tables.ts";
import { ReadYourWrites } from "./read_your_writes.ts";
import { ReturnStreams } from "./return_streams.ts";
import { Reception } from "./reception.ts";
import { SecondLook } from "./second_look.ts";
import { ServerClock } from "./server_clock.ts";
import { SlotKeeper } from "./slot_keeper.ts";
import { authorityFiles, openTls } from "./tls.ts";
import { Repair, Resync } from "./repair.ts";
import { RowWriters } from "./row_writers.ts";
import { Verification } from "./verification.ts";

interface StartOptions {
  readonly signal: AbortSignal;
  /** Where the control API listens, once it does. */
  readonly apiAddress: () => string | null;
}

/** A node that runs. */
export interface RunningNode {
  readonly control: NodeControl;
  /** Where peers reach it: address and port. */
  readonly peerAddress: string;
  /** Settles when the node is closed; rejects with what made it impossible to go on. */
  readonly closed: Promise<void>;
  /** Reads the files of TLS again; changes nothing where they cannot be used. */
  reload(): Promise<void>;
  /** Ends every link and session, then lets go of the database. */
  close(): Promise<void>;
}

/** Starts a node; throws the first thing that stands in the way. */
export async function startNode(config: Config, { signal, apiAddress }: StartOptions): Promise<RunningNode> {
  const logger = log("node");
  const startedAt = new Date();
  const stop = new AbortController();
  const ended = AbortSignal.any([signal, stop.signal]);
  const tls = await openTls(config);
  const tlsKeys = tls?.keys ?? null;
  const security = { tls: tls !== null, insecure: config.insecure };
  const database = await openDatabase(config.postgres.url, ended);
  const cleanup: (() => unknown)[] = [() => database.close()];
  const close = async () => {
    stop.abort();
    for (const step of cleanup.splice(0).reverse()) await step();
  };
  try {
    const self = await identify(config, database);
    const metrics = createMetrics(VERSION);
    const patterns = new TablePatterns(config.tables);
    await patterns.load(database.control.query("read the patterns of tables"));
    const publications = new PublicationKeeper({ database, patterns });
    for (const { message, hint } of serverWarnings(database.facts)) {
      logger.warn("{message}; {hint}", { message, hint });
    }
    await publications.sync();
    const policies = new ConflictPolicies({
      database,
      configured: config.conflicts,
      // Statements are made for a policy: every session that applies makes them anew when it comes again.
      changed: () => inbox.interrupt(),
    });
    await policies.load();
    // The lock is let go of after everything that it protects.
    let watching: Promise<unknown> = Promise.resolve();
    cleanup.push(() => watching.catch(() => {}));

    let url: string | null = null;
    const ownUrls: string[] = [];
    const conflicts = new ConflictCounts();
    const clock = new ServerClock(database);
    await clock.measure();
    const history = await readHistory(database);
    const causes = new Causality({
      consistency: config.conflicts.consistency,
      isSender: (node) => peers.find(node)?.removing === false,
      timedOut: (node) => metrics.countCausalTimeout(node),
    });
    const groups = new GroupKeeper({
      database,
      peers: () => peers.list().map(({ name }) => name),
      mayLackDeletes: () => peers.list().some((peer) => peer.mayLackDeletes),
      unnamed: database.facts.versionNumber < ORIGINS_SINCE ? { self: self.node } : undefined,
    });
    const positions = new AppliedPositions();
    const applied = new Applied();
    await applied.load(database.control.query("read what was applied"));
    const policyOf = (schema: string, name: string) => policies.policyOf(schema, name);
    const ownDeletes = openOwnDeletes({
      database,
      self: self.node,
      policyOf,
      applied,
      observer: conflictObserver({ metrics, conflicts }),
      signal: ended,
    });
    cleanup.push(() => ownDeletes.close());
    const secondLook = new SecondLook({ database, deletes: ownDeletes });
    const quarantine = new Quarantine({
      database,
      onError: config.conflicts.onError,
      withoutInbound: (sender, work) => {
        copying.requireWhole();
        return inbox.without(sender, work);
      },
      observer: (sender) =>
        applyObserver({ peer: peers.find(sender), sender, metrics, conflicts, groups, applied, history }),
      policyOf,
      awaitTable: (oid) => publications.awaitKnown(oid),
      applied,
      clock,
      maxClockWaitMs: config.conflicts.maxClockWaitMs,
      signal: ended,
    });
    const slots = new PeerSlots(database, () => publications.trySync());
    const dialler = new PeerDialler({ tls: tlsKeys, self: self.node });
    cleanup.push(() => dialler.close());
    const dial = openDial({ dialler, cluster: self.cluster, security });
    const returns = new ReturnStreams({ self: self.node, urlOf: (peer) => peers.find(peer)?.url });
    const proven = (name: string, by: ProvenPeer | null) => {
      const peer = peers.find(name);
      if (peer !== undefined) peer.certificateExpiresAt = by?.expiresAt ?? null;
    };
    const peers: Peers = new Peers({
      database,
      slots,
      self: self.node,
      ownUrls,
      security,
      ports: (peer) =>
        outboundPorts({
          database,
          self,
          url: () => url,
          slots,
          compression: config.compression,
          dial,
          returns,
          dialsBack: (peer, dialsBack) => peers.heardDialsBack(peer, dialsBack),
          policies: () => policies.digest,
          heardPolicies: (peer, policies) => peers.heardPolicies(peer, policies),
          proven,
          clock,
          history,
          sourceObserver: sourceObserver(metrics),
          ownDeletes,
        }, peer),
      returnPorts: (peer) => ({
        dial: (signal) => dial({ name: peer, url: peers.get(peer).url! }, "return", signal),
        receive: (channel, signal) => inbox.accept(channel, { sender: peer, signal }),
        failed: (error) => inbox.failed(peer, error),
      }),
      observer: (peer) => ({
        sent: (bytes) => metrics.countSentMessageBytes(peer, bytes),
        wrote: (bytes) => metrics.countSentBytes(peer, bytes),
        reconnected: () => metrics.countReconnect(peer),
      }),
      dropInbound: (peer) => inbox.drop(peer),
      dropReturns: (peer) => returns.drop(peer),
      removed: (peer) => {
        metrics.removePeer(peer);
        history.forget(peer);
        groups.forgetNode(peer);
        causes.forget(peer);
        positions.forget(peer);
      },
    });
    const inbox: Inbox = openInbox({
      database,
      self,
      peers,
      proven,
      compression: config.compression,
      metrics,
      conflicts,
      policies,
      groups,
      applied,
      secondLook,
      quarantine,
      clock,
      history,
      causes,
      positions,
      maxClockWaitMs: config.conflicts.maxClockWaitMs,
      awaitTable: (oid) => publications.awaitKnown(oid),
      requireWhole: () => copying.requireWhole(),
      calledBack: (sender) => void verification.calledBack(sender),
    });
    const verifyDialler = new PeerDialler({ tls: tlsKeys, self: self.node });
    cleanup.push(() => verifyDialler.close());
    const dialBeside = openDial({ dialler: verifyDialler, cluster: self.cluster, security });
    const writers = new RowWriters({
      ...{ database, self: self.node, applied },
      awaitTable: (oid) => publications.awaitKnown(oid),
      requireWhole: () => copying.requireWhole(),
    });
    const verification = new Verification({
      database,
      self: self.node,
      peers,
      patterns,
      dial: dialBeside,
      writers,
      signal: ended,
    });
    const repair = new Repair({ self: self.node, peers, verification, writers });
    const copying: Copying = new Copying({
      schemaOf: (peer, context) =>
        verification.withSides(peers.get(peer), context, ({ there }) => there.schema()),
      created: () => publications.sync(),
      lookAgain: () => secondLook.noted(),
      awaitKnown: (oid) => publications.awaitKnown(oid),
      merging: new Merging({ self: self.node, peers, repair, writers }),
      ...{ database, self: self.node, peers, patterns, groups, clock },
      dial: dialBeside,
      copied: (table, rows) => metrics.countCopied(table, rows),
      dropInbound: (sender) => inbox.drop(sender),
      signal: ended,
    });
    await copying.load();
    const copyGiver = new CopyGiver({
      ...{ database, self: self.node, patterns, positions, groups, ownDeletes, signal: ended },
      requireEnded: () => copying.requireEnded(),
      awaitKnown: (oid) => publications.awaitKnown(oid),
    });
    const kinds = { verify: verification, repair, resync: new Resync(repair), copy: copying };
    const jobs = new Jobs({ database, kinds, signal: ended });
    cleanup.push(() => jobs.close());
    const invites = new Invites({
      database,
      self,
      tls: tlsKeys,
      authorityFiles: authorityFiles(config),
      url: () => url,
    });
    await invites.load();
    await peers.load();
    const server = await listenForPeers({
      address: config.listen.peers.address,
      tls: tlsKeys,
      accept: (channel) => inbox.accept(channel),
      acceptReturn: (channel, node) => returns.offer(node, channel),
      acceptQuestions: (channel, node) => verification.acceptQuestions(channel, node),
      acceptAnswers: (channel, node) => verification.acceptAnswers(channel, node),
      acceptCopy: (channel, node) => copyGiver.accept(channel, node),
      join: tlsKeys && new Reception({
        ...{ database, self, invites, peers, tls: tlsKeys, patterns, signal: ended },
      }),
      signal: ended,
    });
    cleanup.push(() => server.close(), () => returns.close(), () => inbox.close(), () => peers.close());
    const peerAddress = formatAddress(server.address);
    url = advertisedUrl(config.listen.peers, server.address);
    ownUrls.push(`${peerScheme(tls)}://${peerAddress}`, ...(url === null ? [] : [url]));
    await peers.start(config.peers);
    await jobs.load();

    const reading = new ReadYourWrites({
      self,
      query: database.control.query("tell how far nodes are applied"),
      positions,
      findPeer: (name) => peers.find(name),
      problem: () => guard.problem,
      signal: ended,
    });
    const guard = new Guard({
      database,
      node: { ...config.node, incarnation: self.incarnation },
      interrupt: () => {
        peers.interrupt();
        inbox.interrupt();
        reading.forget();
        void ownDeletes.close();
      },
    });
    const usable = () => guard.problem === null;
    const keeper = new SlotKeeper({ database, peers, limits: config.limits, startedAt });
    watching = Promise.all([
      guard.run(ended),
      keeper.run(ended, usable),
      publications.run(ended, {
        usable,
        // What was refused for want of a table.
        grown: () => peers.list().forEach((peer) => peer.askAgain()),
      }),
      groups.run(ended, usable),
      // What is copied of it is about rows that have not come yet.
      secondLook.run(ended, () => usable() && !copying.isUnderWay),
      clock.run(ended, usable),
      new ConflictKeeper({ database, keepSeconds: config.conflicts.keepSeconds }).run(ended, usable),
      tls?.run(ended),
    ]);
    logger.info("Node {node} of cluster {cluster} listens for peers on {address}", {
      node: self.node,
      cluster: self.cluster,
      address: peerAddress,
    });
    if (tls === null && !isLoopbackHost(server.address.host)) {
      logger.warn(
        "The peer port speaks cleartext: whoever is on the network can read and change what is replicated",
      );
    }
    return {
      control: createControl({
        self,
        startedAt,
        peerAddress,
        apiAddress,
        url,
        database,
        guard,
        peers,
        slotKeeper: keeper,
        leaving: new Leaving({ database, self: self.node, peers, verification, signal: ended }),
        publications,
        tables: new Tables({ database, publications, policies }),
        patterns: new PatternChanges({ database, patterns, publications }),
        policies,
        groups,
        invites,
        copying,
        jobs,
        conflicts,
        clock,
        quarantine,
        reading,
        metrics,
        tls: tlsKeys,
        signal: ended,
      }),
      peerAddress,
      reload: async () => {
        if (tls === null) logger.info("There are no certificate files to read again");
        else await tls.keys.reload();
      },
      closed: watching.then(close, async (thrown) => {
        await close();
        throw toMmliteError(thrown);
      }),
      close,
    };
  } catch (thrown) {
    await close();
    throw thrown;
  }
}

/** What is applied here of other nodes, as earlier processes left it. */
async function readHistory({ control }: Database): Promise<AppliedHistory> {
  const history = new AppliedHistory();
  const query = control.query("read the positions");
  const progress = await readProgress(query);
  // After the positions: they are visible to whatever is committed behind it.
  history.reached((await readWalClock(query)).walLsn);
  for (const { origin, lsn, commitTimestamp } of progress) {
    const timestamp = commitTimestamp === null ? undefined : parseTimestamp(commitTimestamp);
    history.begin(origin, { position: lsn, timestamp });
  }
  return history;
}

/** Who this node is: its name, and which life of which database it runs on. */
async function identify({ node, state }: Config, { control, facts }: Database): Promise<NodeIdentity> {
  const incarnation = await ensureIncarnation(control.query("identify this node"), { ...node, state });
  return {
    cluster: node.cluster,
    node: node.name,
    incarnation,
    systemIdentifier: facts.systemIdentifier,
    timeline: facts.timeline,
    serverVersion: facts.versionNumber,
    program: VERSION,
  };
}
