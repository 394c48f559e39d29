/**
 * The door of the inbox: who may apply here, from which position, in which epoch.
 */
import { type Applier, type ApplyObserver, openApplier } from "../apply/applier.ts";
import type { AppliedLog, Causes } from "../apply/causes.ts";
import type { ApplyClock } from "../apply/gate.ts";
import type { Trust } from "../apply/trust.ts";
import type { CompressionSetting } from "../config.ts";
import type { TablePolicy } from "../conflict_policy.ts";
import { beginAnew, MmliteError, sendAnew } from "../errors.ts";
import { parsePeerUrl } from "../http/peer_url.ts";
import type { Admission, TransactionSink } from "../inbox/ports.ts";
import { formatLsn, type Lsn } from "../lsn.ts";
import { type PeerRow, readPeer, readSeenBefore, setPeerIdentity } from "../pg/peers.ts";
import {
  ensureOrigin,
  nextEpoch,
  originName,
  readProgressOf,
  setProgressSlot,
  startProgress,
} from "../pg/progress.ts";
import { readSkip } from "../pg/quarantine.ts";
import type { Query } from "../pg/query.ts";
import type { SeenVersions } from "../seen_versions.ts";
import { chooseCompression } from "../wire/compression.ts";
import type { ProvenPeer } from "../wire/channel.ts";
import type { Hello, NodeIdentity } from "../wire/frame.ts";
import { allowedCompressions } from "./compression.ts";
import type { Applied } from "./applied.ts";
import type { Database } from "./database.ts";
import type { UnsentRows } from "./unsent.ts";
import { requireKnown, requireProven } from "./recognition.ts";

interface AdmissionOptions {
  readonly database: Database;
  readonly self: NodeIdentity;
  /** Registers a node of this cluster that dialled first, so that the link back to it starts as well; without URL
   * it cannot be dialled. */
  readonly register: (name: string, url: string | null) => Promise<void>;
  /** Whether this node's link to a peer dials it. */
  readonly dials: (peer: string) => boolean;
  /** A sender was recognised, by this certificate or by none. */
  readonly proven: (peer: string, proven: ProvenPeer | null) => void;
  readonly compression: CompressionSetting;
  readonly observer: (sender: string) => ApplyObserver;
  /** What is known of a sender's transactions beyond one session. */
  readonly trust: (sender: string) => Trust;
  readonly mayGroup: () => boolean;
  readonly policyOf: (schema: string, name: string) => TablePolicy;
  /** All nodes but a sender whose rows may be here, this one included. */
  readonly others: (sender: string) => readonly string[];
  /** What a sender is known to have had of other nodes before what it sends now. */
  readonly seenBy: (sender: string) => SeenVersions;
  /** Is told of what applies. */
  readonly applied: Pick<Applied, "add">;
  /** Rows that await values of senders. */
  readonly unsent: Pick<UnsentRows, "of" | "noted">;
  /** Something that was applied is to be looked at again. */
  readonly notedSecondLook: () => void;
  /** Resolves once a table, by its OID, may have rows of other nodes; throws while that cannot be. */
  readonly awaitTable: (oid: number) => Promise<void>;
  /** Throws while rows of this node are copied, or are to be. */
  readonly requireWhole: () => void;
  /** Stands for all of them. */
  readonly policies: () => string;
  readonly clock: ApplyClock;
  readonly causes: Causes;
  /** Is told how far a sender is applied, which stands where the database says. */
  readonly appliedLog: (sender: NodeIdentity, position: Lsn) => AppliedLog;
  readonly maxClockWaitMs: number;
}

/** Decides whether a sender may apply here, and makes a node that is new here a peer; throws why not. */
export async function recognise(
  options: AdmissionOptions,
  hello: Hello,
  proven: ProvenPeer | null,
): Promise<void> {
  requireProven(hello.identity, proven);
  const { database, self } = options;
  const sender = hello.identity.node;
  const row = await readPeer(database.control.query(`receive from node "${sender}"`), sender);
  requireKnown(hello.identity, { self, row, name: sender });
  requireMeant(hello, self);
  await requireRegistered(options, hello, row);
  options.proven(sender, proven);
}

/** Begins the session of a sender that was recognised: from here on every earlier one can apply nothing. */
export async function admit(options: AdmissionOptions, hello: Hello): Promise<Admission> {
  const { database, self } = options;
  const sender = hello.identity.node;
  const query = database.control.query(`receive from node "${sender}"`);
  await requireProgress(query, hello);
  // Rows that are being copied have to follow what is sent: where that begins is kept before a sender is refused.
  await ensureProgress(query, hello);
  options.requireWhole();
  await setPeerIdentity(query, sender, hello.identity);
  const { lsn, epoch } = await nextEpoch(query, sender);
  const seenBefore = await readSeenBefore(query, sender);
  const skipLsn = await readSkip(query, sender);
  const copied = (await readPeer(query, sender))?.copied ?? null;
  return {
    identity: self,
    resumeLsn: lsn,
    copied: copied === null || lsn >= copied.until ? null : copied,
    dialsBack: options.dials(sender),
    compression: chooseCompression(hello.compression, allowedCompressions(options.compression)),
    policies: options.policies(),
    unsent: options.unsent.of(sender),
    openSink: async (onDurable, signal) => {
      const applier = await openApplier({
        target: database.streamTarget,
        origin: sender,
        originName: originName(sender),
        epoch: BigInt(epoch),
        position: lsn,
        skipLsn,
        onDurable,
        observer: options.observer(sender),
        trust: options.trust(sender),
        mayGroup: options.mayGroup,
        policyOf: options.policyOf,
        awaitTable: options.awaitTable,
        seenBefore,
        seen: options.seenBy(sender),
        others: () => options.others(sender),
        clock: options.clock,
        maxClockWaitMs: options.maxClockWaitMs,
        causes: options.causes,
        applied: options.appliedLog(hello.identity, lsn),
        onUnsent: (nodes) => options.unsent.noted(nodes),
        onSecondLook: options.notedSecondLook,
        signal,
      });
      options.applied.add(applier);
      return toSink(applier);
    },
  };
}

function toSink(applier: Applier): TransactionSink {
  return {
    push: (bytes, start, end) => applier.push(bytes, start, end),
    seen: (nodes) => applier.seen(nodes),
    caughtUp: (committedBefore) => applier.caughtUp(committedBefore),
    passed: (walLsn) => applier.passed(walLsn),
    fetched: ({ schema, name, key }, { columns, values, at }) =>
      applier.fetched({
        ...{ schema, name, columns, at },
        key: key.map(({ column }) => column),
        values: values.map((bytes) => bytes === null ? { kind: "null" } : { kind: "text", bytes }),
      }),
    flush: () => applier.flush(),
    close: () => applier.close(),
    failed: applier.failed,
  };
}

function requireMeant(hello: Hello, self: NodeIdentity): void {
  if (hello.receiver === self.node) return;
  throw new MmliteError(
    "fenced",
    `Cannot receive from node "${hello.identity.node}": it means node "${hello.receiver}", and this is "${self.node}"`,
    {
      hint:
        `Add this node on "${hello.identity.node}" under its own name, "${self.node}", or correct the address`,
    },
  );
}

async function requireRegistered(
  options: AdmissionOptions,
  hello: Hello,
  row: PeerRow | undefined,
): Promise<void> {
  const sender = hello.identity.node;
  if (row?.intent === "removed" || row?.intent === "removing") {
    throw new MmliteError(
      "refused",
      `Cannot receive from node "${sender}": it was removed on "${options.self.node}"`,
      {
        hint:
          `Remove peer "${options.self.node}" on node "${sender}" too, with --force; to have it back, add it on ` +
          "both nodes after that, then repair its rows (docs/OPERATIONS.md, A node that is lost for good)",
      },
    );
  }
  if (row !== undefined) return;
  await options.register(sender, hello.url === null ? null : parsePeerUrl(hello.url).origin);
}

/** Checked before a peer is recorded as the one that was met: a life of its database that is over must not be. */
async function requireProgress(query: Query, hello: Hello): Promise<void> {
  const progress = await readProgressOf(query, hello.identity.node);
  if (progress === undefined && hello.ackedLsn !== null) throw lostProgress(hello);
  if (progress?.slotLsn != null && progress.slotLsn !== hello.slotLsn) throw newSlot(hello, progress.slotLsn);
}

/** Origin and position exist and are committed before the apply session does. */
async function ensureProgress(query: Query, hello: Hello): Promise<void> {
  const sender = hello.identity.node;
  await ensureOrigin(query, sender);
  const progress = await readProgressOf(query, sender);
  if (progress === undefined) {
    if (hello.ackedLsn !== null) throw lostProgress(hello);
    await startProgress(query, sender, formatLsn(hello.slotLsn));
  }
  if (progress?.slotLsn == null) await setProgressSlot(query, sender, formatLsn(hello.slotLsn));
}

/** What the one before still held may be missing, and its positions may be those of a WAL that is gone. */
function newSlot({ identity, receiver, slotLsn }: Hello, known: Lsn): MmliteError {
  return new MmliteError(
    "fenced",
    `Cannot receive from node "${identity.node}": its slot for this node began anew at ${
      formatLsn(slotLsn)
    }, ` +
      `and what came before is of one that began at ${formatLsn(known)}`,
    {
      hint: `If "${identity.node}" was told to renew this node: ${sendAnew(identity.node, receiver)}; ` +
        "if without --only sent, without --only received here too",
    },
  );
}

function lostProgress({ identity, receiver, ackedLsn }: Hello): MmliteError {
  return new MmliteError(
    "fenced",
    `Cannot receive from node "${identity.node}": it has this node's ack of ${formatLsn(ackedLsn!)}, ` +
      "and this database knows nothing of it: it was restored or emptied",
    { hint: beginAnew(receiver, identity.node) },
  );
}
