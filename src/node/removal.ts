/**
 * Removing a peer: everything committed before is delivered first, unless forced; then its slot goes.
 *
 * The name stays on record as removed, so that the other node's link does not bring it back. The origin stays:
 * dropping it while WAL names it would make old transactions look local on 15 and older.
 */
import { delay } from "../backoff.ts";
import { MmliteError, toMmliteError } from "../errors.ts";
import { log } from "../log.ts";
import type { Lsn } from "../lsn.ts";
import {
  keepLastProgress,
  type PeerRow,
  type RenewedWay,
  setPeerRemoved,
  setPeerRenewed,
} from "../pg/peers.ts";
import { forgetProgress } from "../pg/progress.ts";
import { forgetSkip } from "../pg/quarantine.ts";
import type { Query } from "../pg/query.ts";
import { readWalLsn } from "../pg/server.ts";
import { dropSlot, readSlot, slotName } from "../pg/slots.ts";
import { giveUpUnsent } from "../pg/unsent.ts";
import type { Database } from "./database.ts";
import type { Peer } from "./peer.ts";

/** How often a peer that is being removed is looked at, milliseconds. */
const DRAIN_POLL_MS = 500;

interface RemovalOptions {
  readonly database: Database;
  /** Ends what a peer is sending here. */
  readonly dropInbound: (peer: string) => Promise<void>;
  /** Runs a change after those before it. */
  readonly inTurn: <Result>(change: () => Promise<Result>) => Promise<Result>;
  readonly isHeld: (peer: Peer) => boolean;
  /** Called when the peer is gone. */
  readonly removed: (peer: Peer) => void;
  readonly signal: AbortSignal;
}

/** The removals of a node, each at most once at a time. */
export class Removals {
  readonly #options: RemovalOptions;
  readonly #logger = log("peers");
  readonly #drains = new Map<string, Promise<void>>();

  constructor(options: RemovalOptions) {
    this.#options = options;
  }

  /**
   * Resolves when the peer holds everything committed here before the call and is gone, or at the signal; when its slot
   * was given up, too: then it stays, as not everything was delivered.
   */
  drain(peer: Peer): Promise<void> {
    const running = this.#drains.get(peer.name);
    if (running !== undefined) return running;
    const drain = this.#run(peer).finally(() => this.#drains.delete(peer.name));
    this.#drains.set(peer.name, drain);
    return drain;
  }

  /** Drops what there is of a peer, whatever it holds. */
  forget(peer: Peer): Promise<void> {
    return this.#options.inTurn(() => this.forgetInTurn(peer));
  }

  /** The same, for a change of the peers that is under way. */
  async forgetInTurn(peer: Peer): Promise<void> {
    const { isHeld, removed } = this.#options;
    if (!isHeld(peer)) return;
    const query = this.#query(peer);
    await peer.stop();
    await this.#options.dropInbound(peer.name);
    await dropSlot(query, slotName(peer.name));
    await forgetSkip(query, peer.name);
    await giveUpUnsent(query, peer.name);
    await keepLastProgress(query, peer.name);
    await forgetProgress(query, peer.name);
    await setPeerRemoved(query, peer.name);
    removed(peer);
    this.#logger.info("Peer {peer} is removed", { peer: peer.name });
  }

  /**
   * Gives up the slot for a peer that stays one, or how far it is applied, or both and who it was, for a change of the
   * peers that is under way; returns its row. What was not delivered that way never is. Cut short, it is to be done again.
   */
  async renewInTurn(peer: Peer, way: RenewedWay): Promise<PeerRow> {
    const query = this.#query(peer);
    await peer.stop();
    await this.#options.dropInbound(peer.name);
    if (way !== "received") await dropSlot(query, slotName(peer.name));
    if (way !== "sent") await forgetSkip(query, peer.name);
    if (way === "both") await giveUpUnsent(query, peer.name);
    const row = await setPeerRenewed(query, peer.name, way);
    // It may have come again before its positions were gone.
    await this.#options.dropInbound(peer.name);
    this.#options.removed(peer);
    this.#logger.warn(
      "Peer {peer} begins anew ({way}): until a repair has ended, rows may differ from its own",
      {
        ...{ peer: peer.name, way },
      },
    );
    return row;
  }

  /** Resolves when every drain has ended, after the signal. */
  async close(): Promise<void> {
    await Promise.all(this.#drains.values());
  }

  async #run(peer: Peer): Promise<void> {
    const { isHeld, signal } = this.#options;
    const query = this.#query(peer);
    let target: Lsn | undefined;
    while (!signal.aborted && isHeld(peer)) {
      try {
        target ??= await readWalLsn(query);
        const slot = await readSlot(query, slotName(peer.name));
        if (peer.evicted !== null) return this.#logger.error("{error}", { error: notDrained(peer).message });
        if (slot === undefined || (slot.confirmedFlushLsn ?? 0n) >= target) return await this.forget(peer);
      } catch (thrown) {
        this.#logger.warn("{error}", { error: toMmliteError(thrown).message });
      }
      await delay(DRAIN_POLL_MS, signal);
    }
  }

  #query(peer: Peer): Query {
    return this.#options.database.control.query(`remove peer "${peer.name}"`);
  }
}

/** Of a peer whose slot was given up: it did not get everything, and never will. */
export function notDrained({ name, evicted }: Peer): MmliteError {
  return new MmliteError(
    "conflict",
    `Cannot remove peer "${name}" once it has everything: its slot was given up at ${evicted!.at}`,
    { hint: `\`mmlite peers remove ${name} --force\` removes it without what it lacks` },
  );
}
