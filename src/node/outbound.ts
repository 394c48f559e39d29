/**
 * The ports of a link: how an attempt gets its slot, its peer and its bookkeeping from this node.
 */
import type { AppliedHistory } from "../applied_history.ts";
import { DeletesReader, type OwnDeletes } from "../apply/own_deletes.ts";
import type { CompressionSetting } from "../config.ts";
import { beginAnew, MmliteError, sendAnew } from "../errors.ts";
import type { SessionPorts } from "../link/ports.ts";
import { formatLsn, type Lsn } from "../lsn.ts";
import { countActivePeers, requirePeer, setPeerIdentity, storeAck } from "../pg/peers.ts";
import { PUBLICATIONS } from "../pg/publication.ts";
import { readPublishedRow } from "../pg/unsent.ts";
import { readWalLsn } from "../pg/server.ts";
import type { Query } from "../pg/query.ts";
import { readSlot, requireSlot, slotName } from "../pg/slots.ts";
import type { Source } from "../pgoutput/source.ts";
import { BinaryValues } from "../source/binary_values.ts";
import { openSource, type SourceObserver } from "../source/source.ts";
import type { ProvenPeer } from "../wire/channel.ts";
import type { SenderClock } from "../wire/clock_exchange.ts";
import { type NodeIdentity, PROTOCOL_VERSION } from "../wire/frame.ts";
import { MAX_ROW_BYTES } from "../wire/row_frames.ts";
import { CommitTimes } from "./commit_times.ts";
import { offeredCompressions } from "./compression.ts";
import type { Database } from "./database.ts";
import type { Dial } from "./dial.ts";
import type { PeerSlots } from "./peer_slots.ts";
import { requireKnown, requireProven } from "./recognition.ts";
import type { ReturnStreams } from "./return_streams.ts";

/** Bytes of all values of a row that is sent when it is asked for; names of columns come on top. */
const MAX_ROW_VALUES = MAX_ROW_BYTES - 0x10_0000;

interface OutboundOptions {
  readonly database: Database;
  readonly self: NodeIdentity;
  /** Where peers can dial this node; null if nowhere. */
  readonly url: () => string | null;
  readonly slots: PeerSlots;
  readonly compression: CompressionSetting;
  readonly dial: Dial;
  readonly returns: ReturnStreams;
  /** A peer said whether it dials this node. */
  readonly dialsBack: (peer: string, dialsBack: boolean) => Promise<void>;
  /** Stands for this node's policies of conflicts. */
  readonly policies: () => string;
  /** A peer said what stands for its policies. */
  readonly heardPolicies: (peer: string, policies: string | null) => void;
  /** A peer was recognised, by this certificate or by none. */
  readonly proven: (peer: string, proven: ProvenPeer | null) => void;
  readonly clock: SenderClock;
  readonly history: AppliedHistory;
  /** Is told what decoding yields. */
  readonly sourceObserver: SourceObserver;
  /** Notes what is deleted here. */
  readonly ownDeletes: OwnDeletes;
}

/** The ports of the link to one peer. */
export function outboundPorts(
  options: OutboundOptions,
  peer: string,
): Omit<SessionPorts, "asksAgain" | "callsBack"> {
  const { database, self } = options;
  const query = database.control.query(`replicate to peer "${peer}"`);
  const commitTimes = new CommitTimes(query);
  const binaryValues = new BinaryValues({ query, serverVersion: self.serverVersion });
  return {
    prepare: async () => {
      try {
        await options.slots.ensure(peer);
      } catch (thrown) {
        throw await withRemedy(thrown, { self: self.node, peer, query });
      }
    },
    connect: async (signal) => {
      const { url } = await requirePeer(query, peer);
      if (url === null) return await options.returns.take(peer, signal);
      return await options.dial({ name: peer, url }, "push", signal);
    },
    hello: async (remote) => {
      const slotLsn = await options.slots.ensure(peer);
      const { ackedLsn } = await requirePeer(query, peer);
      return {
        kind: "hello",
        protocol: PROTOCOL_VERSION,
        identity: self,
        receiver: peer,
        url: options.url(),
        slotLsn,
        ackedLsn,
        walLsn: await readWalLsn(query),
        compression: offeredCompressions(options.compression, remote),
        policies: options.policies(),
      };
    },
    recognise: async ({ identity, dialsBack, policies }, proven) => {
      requireProven(identity, proven);
      const row = await requirePeer(query, peer);
      requireKnown(identity, { self, row, name: peer });
      await setPeerIdentity(query, peer, identity);
      options.proven(peer, proven);
      options.heardPolicies(peer, policies);
      await options.dialsBack(peer, dialsBack);
    },
    openSource: async (startLsn, { copied, binaryTypes }, signal) =>
      notingDeletes(
        options.ownDeletes,
        await openSource({
          target: database.streamTarget,
          slot: slotName(peer),
          publications: PUBLICATIONS,
          startLsn,
          copied,
          binary: await binaryValues.session(startLsn, binaryTypes),
          // Not `startLsn`: the peer holds that, but its disk may not yet.
          flushLsn: await requireSlot(query, slotName(peer)),
          serverVersion: self.serverVersion,
          sharers: await countActivePeers(query),
          observer: options.sourceObserver,
          signal,
        }),
      ),
    clock: options.clock,
    history: options.history,
    readClock: () => commitTimes.read(),
    readRow: (want) =>
      readPublishedRow(query, want, { serverVersion: self.serverVersion, maxBytes: MAX_ROW_VALUES }),
    storeAck: (endLsn) => storeAck(query, peer, formatLsn(endLsn)),
  };
}

/**
 * A slot that is gone is gone for good: the commands that are due. One that is not there at all was dropped, or never
 * was there: a standby and most backups have none, and then the rows here are not those to go by.
 */
async function withRemedy(
  thrown: unknown,
  { self, peer, query }: { readonly self: string; readonly peer: string; readonly query: Query },
): Promise<unknown> {
  if (!(thrown instanceof MmliteError) || thrown.kind !== "slot_lost") return thrown;
  const isMissing = (await requirePeer(query, peer)).evicted === null &&
    await readSlot(query, slotName(peer)) === undefined;
  const hint = isMissing
    ? `If only the slot was dropped: ${
      sendAnew(self, peer)
    }. If this server was restored from a backup, or was a ` +
      `standby: ${beginAnew(self, peer)}`
    : sendAnew(self, peer);
  return new MmliteError("slot_lost", thrown.message, { hint, cause: thrown.cause });
}

/** What {@link noteDeletes} needs. */
interface NotingOptions {
  readonly database: Database;
  readonly ownDeletes: OwnDeletes;
  /** A node whose slot is read, by nobody else meanwhile. */
  readonly peer: string;
  readonly until: Lsn;
  readonly signal: AbortSignal;
}

/** Resolves once everything that was deleted here, and commits before `until`, is noted; that has to be on disk. Throws what reading throws. */
export async function noteDeletes(
  { database, ownDeletes, peer, until, signal }: NotingOptions,
): Promise<void> {
  const query = database.control.query("note what was deleted here");
  const startLsn = await requireSlot(query, slotName(peer));
  const source = notingDeletes(
    ownDeletes,
    await openSource({
      ...{ target: database.streamTarget, slot: slotName(peer), publications: PUBLICATIONS },
      ...{ startLsn, flushLsn: startLsn, serverVersion: database.facts.versionNumber, signal },
    }),
  );
  try {
    for await (const { walEnd } of source.batches()) if (walEnd >= until) return;
  } finally {
    await source.close();
  }
}

/** A source of which nothing is passed on before what it deletes is noted. */
function notingDeletes(deletes: OwnDeletes, source: Source): Source {
  const reader = new DeletesReader(deletes);
  return {
    async *batches() {
      for await (const batch of source.batches()) {
        await reader.take(batch.messages);
        yield batch;
      }
    },
    confirm: (endLsn) => source.confirm(endLsn),
    close: () => source.close(),
  };
}
