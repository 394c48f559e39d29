/**
 * The ports of a link: how an attempt gets its slot, its peer and its bookkeeping from this node.
 */
import { MmliteError } from "../errors.ts";
import { dialPeer } from "../http/peer_client.ts";
import type { SessionPorts } from "../link/ports.ts";
import { formatLsn, type Lsn } from "../lsn.ts";
import { type PeerRow, readPeer, setPeerIdentity, setPeerSlot, storeAck } from "../pg/peers.ts";
import { PUBLICATIONS } from "../pg/publication.ts";
import type { Query } from "../pg/query.ts";
import { readWalLsn } from "../pg/server.ts";
import { ensureSlot, requireSlot, slotName } from "../pg/slots.ts";
import { openSource, type SourceObserver } from "../source/source.ts";
import { type NodeIdentity, PROTOCOL_VERSION } from "../wire/frame.ts";
import type { Database } from "./database.ts";
import { requireKnown } from "./recognition.ts";

interface OutboundOptions {
  readonly database: Database;
  readonly self: NodeIdentity;
  /** Where peers can dial this node. */
  readonly url: () => string;

  readonly sourceObserver: SourceObserver;
}

/** The ports of the link to one peer. */
export function outboundPorts(options: OutboundOptions, peer: string): SessionPorts {
  const { database, self } = options;
  const query = database.control.query(`replicate to peer "${peer}"`);
  return {
    hello: async () => {
      const row = await requireRow(query, peer);
      const slotLsn = await ensurePeerSlot(query, row);
      return {
        kind: "hello",
        protocol: PROTOCOL_VERSION,
        identity: self,
        receiver: peer,
        url: options.url(),
        slotLsn,
        ackedLsn: row.ackedLsn,
        walLsn: await readWalLsn(query),
      };
    },
    dial: async (signal) => {
      const { url } = await requireRow(query, peer);
      if (url === null) throw new MmliteError("refused", `Cannot dial peer "${peer}": it has no address`);
      return await dialPeer(new URL(url), { signal });
    },
    recognise: async (identity) => {
      const row = await requireRow(query, peer);
      requireKnown(identity, { self, row, name: peer });
      await setPeerIdentity(query, peer, identity);
    },
    openSource: (startLsn, signal) =>
      openSource({
        target: database.target,
        slot: slotName(peer),
        publications: PUBLICATIONS,
        startLsn,
        serverVersion: self.serverVersion,
        observer: options.sourceObserver,
        signal,
      }),
    storeAck: (endLsn) => storeAck(query, peer, formatLsn(endLsn)),
  };
}

/**
 * The slot of a peer, made if it never was; returns where it began.
 *
 * A slot that was made before and is gone is `slot_lost`, never made anew in silence: what it held is missing.
 */
export async function ensurePeerSlot(query: Query, { name, slotLsn }: PeerRow): Promise<Lsn> {
  if (slotLsn !== null) {
    await requireSlot(query, slotName(name));
    return slotLsn;
  }
  const { lsn: madeAt } = await ensureSlot(query, slotName(name));
  await setPeerSlot(query, name, formatLsn(madeAt));
  return madeAt;
}

async function requireRow(query: Query, peer: string): Promise<PeerRow> {
  const row = await readPeer(query, peer);
  if (row !== undefined) return row;
  throw new MmliteError("not_found", `Cannot replicate to peer "${peer}": it is not registered`);
}
