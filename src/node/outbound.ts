/**
 * The ports of a link: how an attempt gets its slot, its peer and its bookkeeping from this node.
 */
import type { CompressionSetting } from "../config.ts";
import { type PeerSecurity, requireSafeUrl } from "../config/peer_url.ts";
import { MmliteError } from "../errors.ts";
import type { PeerDialler } from "../http/peer_dialler.ts";
import type { SessionPorts } from "../link/ports.ts";
import { formatLsn } from "../lsn.ts";
import { requirePeer, setPeerIdentity, storeAck } from "../pg/peers.ts";
import { PUBLICATIONS } from "../pg/publication.ts";
import { readWalLsn } from "../pg/server.ts";
import { requireSlot, slotName } from "../pg/slots.ts";
import { openSource, type SourceObserver } from "../source/source.ts";
import { type NodeIdentity, PROTOCOL_VERSION } from "../wire/frame.ts";
import { offeredCompressions } from "./compression.ts";
import type { Database } from "./database.ts";
import type { PeerSlots } from "./peer_slots.ts";
import { requireKnown, requireProven } from "./recognition.ts";

interface OutboundOptions {
  readonly database: Database;
  readonly self: NodeIdentity;
  /** Where peers can dial this node; null if nowhere. */
  readonly url: () => string | null;
  readonly slots: PeerSlots;
  readonly compression: CompressionSetting;
  readonly dialler: PeerDialler;
  /** What this node has to protect connections with. */
  readonly security: PeerSecurity;
  /** Is told what decoding yields. */
  readonly sourceObserver: SourceObserver;
}

/** The ports of the link to one peer. */
export function outboundPorts(options: OutboundOptions, peer: string): SessionPorts {
  const { database, self } = options;
  const query = database.control.query(`replicate to peer "${peer}"`);
  return {
    prepare: async () => void await options.slots.ensure(peer),
    connect: async (signal) => {
      const { url } = await requirePeer(query, peer);
      if (url === null) throw new MmliteError("refused", `Cannot dial peer "${peer}": it has no address`);
      requireSafeUrl(url, options.security);
      const name = { cluster: self.cluster, node: peer };
      return await options.dialler.dial(new URL(url), { peer: name, path: "push", signal });
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
      };
    },
    recognise: async (identity, proven) => {
      requireProven(identity, proven);
      const row = await requirePeer(query, peer);
      requireKnown(identity, { self, row, name: peer });
      await setPeerIdentity(query, peer, identity);
    },
    openSource: async (startLsn, signal) =>
      await openSource({
        target: database.target,
        slot: slotName(peer),
        publications: PUBLICATIONS,
        startLsn,
        // Not `startLsn`: the peer holds that, but its disk may not yet.
        flushLsn: await requireSlot(query, slotName(peer)),
        serverVersion: self.serverVersion,
        observer: options.sourceObserver,
        signal,
      }),
    storeAck: (endLsn) => storeAck(query, peer, formatLsn(endLsn)),
  };
}
