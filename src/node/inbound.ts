/**
 * The inbox of this node: who may push to it, and who is told of what arrives.
 */
import type { AppliedHistory } from "../applied_history.ts";
import { Trust } from "../apply/trust.ts";
import type { CompressionSetting } from "../config.ts";
import { Inbox } from "../inbox/inbox.ts";
import type { Lsn } from "../lsn.ts";
import type { Metrics } from "../metrics.ts";
import type { ProvenPeer } from "../wire/channel.ts";
import type { NodeIdentity } from "../wire/frame.ts";
import { admit, recognise } from "./admission.ts";
import type { Applied } from "./applied.ts";
import type { AppliedPositions } from "./applied_positions.ts";
import type { Causality } from "./causality.ts";
import type { ConflictPolicies } from "./conflict_policies.ts";
import type { Database } from "./database.ts";
import type { GroupKeeper } from "./group_keeper.ts";
import { applyObserver, type ConflictCounts } from "./observers.ts";
import type { Peers } from "./peers.ts";
import { lifeOf } from "./position_token.ts";
import type { Quarantine } from "./quarantine.ts";
import type { SecondLook } from "./second_look.ts";
import type { ServerClock } from "./server_clock.ts";
import { UnsentRows } from "./unsent.ts";

interface InboundOptions {
  readonly database: Database;
  readonly self: NodeIdentity;
  readonly peers: Peers;
  /** A sender was recognised, by this certificate or by none. */
  readonly proven: (sender: string, proven: ProvenPeer | null) => void;
  readonly compression: CompressionSetting;
  readonly metrics: Metrics;
  readonly conflicts: ConflictCounts;
  readonly policies: ConflictPolicies;
  readonly groups: GroupKeeper;
  readonly applied: Applied;
  readonly secondLook: SecondLook;
  readonly quarantine: Quarantine;
  readonly clock: ServerClock;
  readonly history: AppliedHistory;
  readonly causes: Causality;
  readonly positions: AppliedPositions;
  readonly maxClockWaitMs: number;
  /** Resolves once a table, by its OID, may have rows of other nodes; throws while that cannot be. */
  readonly awaitTable: (oid: number) => Promise<void>;
  /** Throws while rows of this node are copied, or are to be. */
  readonly requireWhole: () => void;
  /** A sender asks this node to open a stream on which it answers about its tables. */
  readonly calledBack: (sender: string) => void;
}

/** An inbox whose senders are this node's peers, or become so. */
export function openInbox(
  {
    peers,
    metrics,
    conflicts,
    policies,
    groups,
    applied,
    quarantine,
    history,
    positions,
    calledBack,
    ...options
  }: InboundOptions,
): Inbox {
  const trusts = new Map<string, Trust>();
  const trust = (sender: string) => {
    const known = trusts.get(sender) ?? new Trust();
    trusts.set(sender, known);
    return known;
  };
  const admission = {
    ...options,
    register: (name: string, url: string | null) => peers.register(name, url),
    dials: (peer: string) => peers.find(peer)?.url !== null,
    observer: (sender: string) =>
      applyObserver({ peer: peers.find(sender), sender, metrics, conflicts, groups, applied, history }),
    appliedLog: ({ node: sender, incarnation }: NodeIdentity, position: Lsn) => {
      history.begin(sender, { position, timestamp: undefined });
      options.causes.committed(sender, position);
      positions.set(sender, { life: lifeOf(incarnation), lsn: position });
      return {
        committing: (endLsn: Lsn, timestamp: bigint) => history.committing(sender, endLsn, timestamp),
        committed: (endLsn: Lsn) => {
          options.causes.committed(sender, endLsn);
          positions.reached(sender, endLsn);
        },
        visible: (endLsn: Lsn, walLsn: Lsn) => history.visible(sender, endLsn, walLsn),
      };
    },
    trust,
    mayGroup: () => groups.hasRoom,
    seenBy: (sender: string) => groups.seenBy(sender),
    policyOf: (schema: string, name: string) => policies.policyOf(schema, name),
    others: (sender: string) =>
      [options.self.node, ...peers.list().map(({ name }) => name)].filter((name) => name !== sender),
    policies: () => policies.digest,
    applied,
    unsent: new UnsentRows(options.database),
    notedSecondLook: () => options.secondLook.noted(),
  };
  return new Inbox({
    recognise: async (hello, proven) => {
      await recognise(admission, hello, proven);
      peers.heardFrom(hello.identity.node);
      peers.heardPolicies(hello.identity.node, hello.policies);
    },
    admit: (hello) => admit(admission, hello),
    judge: (sender, error) => quarantine.judge(sender, error),
    askedAgain: (sender) => peers.askedAgain(sender),
    calledBack,
    clock: options.clock,
    clockOf: (sender, offset) => peers.find(sender)?.clock.heard(offset),
    observe: (sender, state) => peers.find(sender)?.inbound.enter(state),
  });
}
