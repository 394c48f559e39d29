/**
 * The ports of a link: how an attempt gets its slot, its peer and its bookkeeping from this node.
 */
import { MmliteError, toMmliteError } from "../errors.ts";
import { dialPeer } from "../http/peer_client.ts";
import type { SessionPorts } from "../link/ports.ts";
import { formatLsn, type Lsn } from "../lsn.ts";
import { closeClient, openClient } from "../pg/client.ts";
import { sqlState } from "../pg/errors.ts";
import { type PeerRow, readPeer, setPeerIdentity, setPeerSlot, storeAck } from "../pg/peers.ts";
import { PUBLICATIONS } from "../pg/publication.ts";
import { type Query, queryWith } from "../pg/query.ts";
import { readWalLsn } from "../pg/server.ts";
import { createSlot, requireSlot, slotName } from "../pg/slots.ts";
import type { PostgresTarget } from "../pg/target.ts";
import { openSource, type SourceObserver } from "../source/source.ts";
import { type NodeIdentity, PROTOCOL_VERSION } from "../wire/frame.ts";
import type { Database } from "./database.ts";
import { requireKnown } from "./recognition.ts";

/** How long making a slot may wait for transactions that run, milliseconds. */
const SLOT_TIMEOUT_MS = 30_000;
/** SQLSTATE of a statement that its timeout ended. */
const QUERY_CANCELED = "57014";

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
      const slotLsn = await ensurePeerSlot(database, row);
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

/**
 * The slot of a peer, made if it never was; returns where it began.
 *
 * A slot that was made before and is gone is `slot_lost`, never made anew in silence: what it held is missing.
 */
export async function ensurePeerSlot(
  { control, target }: Database,
  { name, slotLsn }: PeerRow,
): Promise<Lsn> {
  const query = control.query(`set up the slot for peer "${name}"`);
  if (slotLsn !== null) {
    await requireSlot(query, slotName(name));
    return slotLsn;
  }
  const madeAt = await makeSlot(target, slotName(name));
  await setPeerSlot(query, name, formatLsn(madeAt));
  return madeAt;
}

/** On a connection of its own: making a slot waits for every transaction that runs, and nobody should wait for ever. */
async function makeSlot(target: PostgresTarget, slot: string): Promise<Lsn> {
  const client = await openClient(target, {
    applicationName: "mmlite slot",
    settings: { statement_timeout: String(SLOT_TIMEOUT_MS) },
  });
  try {
    return await createSlot(queryWith(client), slot);
  } catch (thrown) {
    const error = toMmliteError(thrown);
    if (sqlState(error.cause) !== QUERY_CANCELED) throw error;
    throw new MmliteError(
      "transient",
      `Cannot create replication slot "${slot}": running transactions did not end within ${
        SLOT_TIMEOUT_MS / 1000
      } s`,
      { hint: "End the oldest one (pg_stat_activity shows them by xact_start), then try again" },
    );
  } finally {
    await closeClient(client);
  }
}

async function requireRow(query: Query, peer: string): Promise<PeerRow> {
  const row = await readPeer(query, peer);
  if (row !== undefined) return row;
  throw new MmliteError("not_found", `Cannot replicate to peer "${peer}": it is not registered`);
}
