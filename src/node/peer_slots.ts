/**
 * The slot of each peer: made when the peer is added or, if that was cut short, by the first attempt of its link.
 */
import { MmliteError } from "../errors.ts";
import { formatLsn, type Lsn } from "../lsn.ts";
import { closeClient, openClient } from "../pg/client.ts";
import { requirePeer, setPeerSlot } from "../pg/peers.ts";
import { queryWith } from "../pg/query.ts";
import { createSlot, requireSlot, slotName } from "../pg/slots.ts";
import type { PostgresTarget } from "../pg/target.ts";
import type { Database } from "./database.ts";

/** How long making a slot may wait for transactions that run, milliseconds. */
const SLOT_TIMEOUT_MS = 30_000;

/** The slots of a node's peers. Those who ask for one peer's slot at once get the same one. */
export class PeerSlots {
  readonly #database: Database;
  readonly #publish: () => Promise<unknown>;
  readonly #underWay = new Map<string, Promise<Lsn>>();

  /** `publish` publishes new tables with their rows: a peer that has these rows already must not be sent them again. */
  constructor(database: Database, publish: () => Promise<unknown> = () => Promise.resolve()) {
    this.#database = database;
    this.#publish = publish;
  }

  /**
   * The slot of a peer, made if it never was; returns where it began.
   *
   * A slot that was made before and is gone is `slot_lost`, never made anew in silence: what it held is missing.
   */
  ensure(peer: string): Promise<Lsn> {
    const underWay = this.#underWay.get(peer);
    if (underWay !== undefined) return underWay;
    const made = this.#ensure(peer).finally(() => this.#underWay.delete(peer));
    this.#underWay.set(peer, made);
    return made;
  }

  async #ensure(peer: string): Promise<Lsn> {
    const { control, target } = this.#database;
    const query = control.query(`set up the slot for peer "${peer}"`);
    const { slotLsn, evicted } = await requirePeer(query, peer);
    if (evicted !== null) {
      throw new MmliteError(
        "slot_lost",
        `Cannot send to peer "${peer}": its slot was given up at ${evicted.at}, for what was kept for it: ${evicted.why}`,
      );
    }
    if (slotLsn !== null) {
      await requireSlot(query, slotName(peer));
      return slotLsn;
    }
    await this.#publish();
    const madeAt = await makeSlot(target, slotName(peer));
    await setPeerSlot(query, peer, formatLsn(madeAt));
    return madeAt;
  }
}

/** On a connection of its own: making a slot waits for every transaction that runs, and nobody should wait for ever. */
async function makeSlot(target: PostgresTarget, name: string): Promise<Lsn> {
  const client = await openClient(target, { applicationName: "mmlite slot" });
  try {
    return await createSlot(queryWith(client), { target, name, timeoutMs: SLOT_TIMEOUT_MS });
  } finally {
    await closeClient(client);
  }
}
