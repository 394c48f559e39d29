/**
 * The peers of this node: durable rows, their slots and origins, and the links that run for them.
 */
import { delay } from "../backoff.ts";
import type { PeerSecurity } from "../config/peer_url.ts";
import { MmliteError, toMmliteError } from "../errors.ts";
import type { SessionPorts } from "../link/ports.ts";
import { log } from "../log.ts";
import { deleteInvitesOf } from "../pg/invites.ts";
import {
  clearRepairDue,
  forgetPeer,
  type PeerRow,
  readPeer,
  readPeers,
  type RenewedWay,
  savePeer,
  setPeerDialsBack,
  setPeerEvicted,
  setPeerIntent,
  setPeerRemoved,
  setRepairDue,
} from "../pg/peers.ts";
import { ensureOrigin } from "../pg/progress.ts";
import { dropSlot, readSlots, SLOT_PREFIX, slotName } from "../pg/slots.ts";
import { requireAddable } from "./addable.ts";
import type { Database } from "./database.ts";
import { Peer, type PeerObserver } from "./peer.ts";
import type { PeerSlots } from "./peer_slots.ts";
import type { ReturnPorts } from "./return_loop.ts";
import { notDrained, Removals } from "./removal.ts";
import { countUndelivered } from "./undelivered.ts";

/** How long adding a peer waits for the first answer, milliseconds, so that both directions are set up by then. */
const FIRST_ANSWER_MS = 5_000;
/** How long a removal is waited for before it goes on by itself, milliseconds. */
const DRAIN_WAIT_MS = 5_000;

interface PeersOptions {
  readonly database: Database;
  /** This node's name. */
  readonly self: string;
  /** Addresses at which this node itself listens or is advertised. */
  readonly ownUrls: readonly string[];
  /** What this node has to protect connections with. */
  readonly security: PeerSecurity;
  readonly slots: PeerSlots;
  readonly ports: (peer: string) => Omit<SessionPorts, "asksAgain" | "callsBack">;
  readonly returnPorts: (peer: string) => ReturnPorts;
  readonly observer: (peer: string) => PeerObserver;
  /** Ends what a peer is sending here. */
  readonly dropInbound: (peer: string) => Promise<void>;
  /** Ends the streams that a peer has opened for this node to push over. */
  readonly dropReturns: (peer: string) => void;
  /** Called when a peer is gone. */
  readonly removed: (peer: string) => void;
}

/** The registry of peers. Changes to one peer happen one after the other. */
export class Peers {
  readonly #options: PeersOptions;
  readonly #logger = log("peers");
  readonly #peers = new Map<string, Peer>();
  readonly #stop = new AbortController();
  readonly #removals: Removals;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: PeersOptions) {
    this.#options = options;
    this.#removals = new Removals({
      ...options,
      inTurn: (change) => this.#inTurn(change),
      isHeld: (peer) => this.#peers.get(peer.name) === peer,
      removed: (peer) => {
        this.#peers.delete(peer.name);
        options.dropReturns(peer.name);
        options.removed(peer.name);
      },
      signal: this.#stop.signal,
    });
  }

  /** Takes up the peers that the database has. */
  async load(): Promise<void> {
    const query = this.#query("read the peers");
    for (const row of await readPeers(query)) if (row.intent !== "removed") await this.#hold(row);
    const owned = new Set(this.list().map(({ name }) => slotName(name)));
    for (const { name } of await readSlots(query, SLOT_PREFIX)) {
      if (owned.has(name)) continue;
      this.#logger.warn("Replication slot {slot} belongs to no peer and keeps WAL; drop it with {sql}", {
        slot: name,
        sql: `SELECT pg_drop_replication_slot('${name}')`,
      });
    }
  }

  /** Starts the links of all peers taken up, and adds those that the configuration names for the first time. */
  async start(configured: readonly { readonly name: string; readonly url: string | null }[]): Promise<void> {
    for (const peer of this.list()) {
      if (peer.removing) void this.#removals.drain(peer);
      if (peer.link.state.name !== "paused") peer.link.start();
      peer.startReturning();
    }
    // What was changed through the API is durable and wins, a removal too.
    const known = new Set((await readPeers(this.#query("read the peers"))).map(({ name }) => name));
    for (const { name, url } of configured) if (!known.has(name)) await this.#adopt(name, url);
  }

  /** Every peer by name, in order. */
  list(): readonly Peer[] {
    return [...this.#peers.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** Throws `not_found`. */
  get(name: string): Peer {
    const peer = this.#peers.get(name);
    if (peer !== undefined) return peer;
    throw new MmliteError("not_found", `Cannot find peer "${name}": there is none of that name`, {
      hint: "`mmlite peers list` shows them all",
    });
  }

  /** The peer of that name, if there is one. */
  find(name: string): Peer | undefined {
    return this.#peers.get(name);
  }

  /** Throws if a peer of that name and address cannot be added; changes nothing. */
  check(name: string, url: string | null): void {
    requireAddable({ name, url }, { ...this.#options, peers: this.list() });
  }

  /**
   * Adds a peer or gives it another address; returns once its slot holds every later transaction for it.
   * `precondition` is called with the peer as it is before anything changes, and throws to keep it so.
   */
  put(
    name: string,
    url: string | null,
    precondition?: (known: Peer | undefined) => void,
  ): Promise<{ peer: Peer; created: boolean }> {
    return this.#inTurn(() => this.#put(name, url, precondition));
  }

  /**
   * Adds a node that joins, with a slot that begins now: what an attempt that was cut short left is dropped first,
   * because its slot would send what the node has by now. One that has exchanged something stays as it is.
   */
  begin(name: string, url: string | null): Promise<{ created: boolean }> {
    return this.#inTurn(async () => {
      const row = await readPeer(this.#query(`add peer "${name}"`), name);
      if (row?.incarnation != null && row.intent !== "removing") return { created: false };
      this.check(name, url);
      if (row?.incarnation == null) await this.#forgetUnmet(name);
      return await this.#put(name, url);
    });
  }

  /** Adds a node of this cluster that dialled first; an address that the operator gave stays. */
  async register(name: string, url: string | null): Promise<void> {
    if (this.#peers.has(name)) return;
    await this.put(name, url);
  }

  /** A peer sends here, so it is there, and has this node as a peer: a link that waits for that tries again at once. */
  heardFrom(name: string): void {
    const link = this.#peers.get(name)?.link;
    if (link === undefined) return;
    const { state } = link;
    const wasRemoved = state.name === "blocked" && state.error.kind === "refused";
    if (state.name === "backoff" || state.name === "copying" || wasRemoved) link.retry();
  }

  /** A peer said what stands for its policies of conflicts. */
  heardPolicies(name: string, policies: string | null): void {
    const peer = this.#peers.get(name);
    if (peer !== undefined) peer.policies = policies;
  }

  /** A peer asks this node to try its link to it again. */
  askedAgain(name: string): void {
    this.#peers.get(name)?.link.retry();
  }

  /** A peer said whether it dials this node. */
  async heardDialsBack(name: string, dialsBack: boolean): Promise<void> {
    const peer = this.#peers.get(name);
    if (peer === undefined) return;
    if (peer.dialsBack !== dialsBack) {
      await setPeerDialsBack(this.#query(`replicate with peer "${name}"`), name, dialsBack);
      peer.dialsBack = dialsBack;
    }
    if (!dialsBack) peer.startReturning();
    // The link does not wait for what the peer sends here.
    else void peer.returning.stop();
  }

  /** Waits a moment for the link's first answer, whatever it is; not for one that has to dial this node first. */
  async firstAnswer(peer: Peer): Promise<void> {
    if (peer.url === null) return;
    const deadline = performance.now() + FIRST_ANSWER_MS;
    while (peer.link.state.name === "connecting" && performance.now() < deadline) {
      await delay(20, this.#stop.signal);
    }
  }

  /**
   * Takes back a peer that was added a moment ago, if its first answer shows that the two must never exchange rows:
   * it is this node itself, of another cluster, another node than was named, or not to be trusted. Throws why.
   */
  async refuseStranger(peer: Peer): Promise<void> {
    const { state } = peer.link;
    const isStranger = state.name === "fenced" ||
      (state.name === "backoff" && state.error.kind === "untrusted") ||
      (state.name === "blocked" && state.error.kind === "conflict");
    if (!isStranger) return;
    await this.#removals.forget(peer);
    await forgetPeer(this.#query(`take back peer "${peer.name}"`), peer.name);
    throw state.error;
  }

  /**
   * Forgets a peer that has exchanged nothing yet, as if it had never been added, once an addition that is under way
   * has ended; throws `conflict` if it has exchanged something.
   */
  forgetUnmet(name: string): Promise<void> {
    return this.#inTurn(() => this.#forgetUnmet(name));
  }

  /** Stops the link until {@link resume}, also across restarts. */
  pause(name: string): Promise<void> {
    return this.#inTurn(async () => {
      const peer = this.get(name);
      this.#refuseRemoving(peer, "pause");
      await setPeerIntent(this.#query(`pause peer "${name}"`), name, "paused");
      await peer.link.stop();
    });
  }

  /** Starts the link of a paused peer again. */
  resume(name: string): Promise<void> {
    return this.#inTurn(async () => {
      const peer = this.get(name);
      this.#refuseRemoving(peer, "resume");
      await setPeerIntent(this.#query(`resume peer "${name}"`), name, "active");
      peer.link.start();
    });
  }

  /**
   * Removes a peer once it holds every transaction committed here before the call.
   *
   * Resolves to whether it is gone; a drain that takes longer goes on by itself, across restarts too.
   */
  async remove(name: string, precondition?: (known: Peer) => void): Promise<"removed" | "draining"> {
    const peer = await this.#beginRemoval(name, (known) => {
      precondition?.(known);
      if (known.evicted !== null) throw notDrained(known);
    });
    await Promise.race([this.#removals.drain(peer), delay(DRAIN_WAIT_MS)]);
    return this.#peers.get(name) === peer ? "draining" : "removed";
  }

  #beginRemoval(name: string, precondition?: (known: Peer) => void): Promise<Peer> {
    return this.#inTurn(async () => {
      const peer = this.get(name);
      precondition?.(peer);
      const query = this.#query(`remove peer "${name}"`);
      await deleteInvitesOf(query, name);
      await setPeerIntent(query, name, "removing");
      peer.removing = true;
      peer.link.start();
      return peer;
    });
  }

  /**
   * Begins anew with a peer: gives up the slot and makes a new one, or how far the peer is applied here, or both and who
   * it was. Notes that rows may differ until tables were compared. The peer has to do its part with this node.
   */
  renew(name: string, way: RenewedWay): Promise<void> {
    return this.#inTurn(async () => {
      const known = this.get(name);
      this.#refuseRemoving(known, "renew");
      const row = await this.#orGoOn(known, () => this.#removals.renewInTurn(known, way));
      const peer = await this.#hold(row);
      try {
        await ensureOrigin(this.#query(`renew peer "${name}"`), name);
        await this.#options.slots.ensure(name);
      } finally {
        // Its link makes the slot if that failed.
        if (row.intent !== "paused") peer.link.start();
        peer.startReturning();
        // It may have been refused for what is given up now.
        peer.askAgain();
      }
    });
  }

  /**
   * Removes a peer at once, delivered or not. `beforeSlotGoes` is called while its link rests and the slot is there yet.
   */
  async force(
    name: string,
    { precondition, beforeSlotGoes }: {
      readonly precondition?: (known: Peer) => void;
      readonly beforeSlotGoes: () => Promise<void>;
    },
  ): Promise<void> {
    const peer = await this.#beginRemoval(name, precondition);
    await this.#inTurn(async () => {
      if (this.#peers.get(name) !== peer) return;
      await this.#orGoOn(peer, async () => {
        await peer.link.stop();
        await beforeSlotGoes();
        await this.#removals.forgetInTurn(peer);
      });
    });
  }

  /**
   * Gives a peer up whose slot keeps too much: drops the slot, durably, and leaves what comes from it as it is. It has
   * to begin anew. `judge` is asked once no other change of it is under way, and says which bound was passed, if one is.
   */
  evict(name: string, judge: (peer: Peer) => Promise<string | undefined>): Promise<void> {
    return this.#inTurn(async () => {
      const peer = this.#peers.get(name);
      if (peer === undefined || peer.evicted !== null || this.#stop.signal.aborted) return;
      const why = await judge(peer);
      if (why === undefined) return;
      await this.#rest(peer, async () => {
        const query = this.#query(`give up peer "${name}"`);
        const undelivered = await countUndelivered({ database: this.#options.database, peer: name });
        peer.evicted = await setPeerEvicted(query, { name, why });
        await dropSlot(query, slotName(name));
        this.#logger.error(
          "Peer {peer} is given up, for what is kept for it: {why}; not delivered: {undelivered}",
          {
            ...{ peer: name, why, undelivered: JSON.stringify(undelivered) },
          },
        );
      });
    });
  }

  /** Does something while nobody reads the slot of a peer; then its link goes on as before. */
  atRest<Result>(name: string, work: () => Promise<Result>): Promise<Result> {
    return this.#inTurn(() => this.#rest(this.get(name), work));
  }

  /** Rows may differ from those of a peer until they were compared, from now on; for a change that is under way. */
  async repairIsDue(name: string): Promise<void> {
    const peer = this.#peers.get(name);
    if (peer === undefined) return;
    peer.repairDue = await setRepairDue(this.#query(`note that peer "${name}" may differ`), name);
  }

  /**
   * All that both nodes had was compared, and is equal. `due` is what {@link Peer.repairDue} was when that began: it is
   * not any more, but what was noted meanwhile is.
   */
  repaired(name: string, due: string | null): Promise<void> {
    return this.#inTurn(async () => {
      const peer = this.#peers.get(name);
      if (peer === undefined || due === null || peer.repairDue !== due) return;
      await clearRepairDue(this.#query(`note that peer "${name}" has the same rows`), name);
      peer.repairDue = null;
      this.#logger.info("The rows of peer {peer} are equal again", { peer: name });
    });
  }

  /** Breaks every attempt off, because the local PostgreSQL is going down. */
  interrupt(): void {
    for (const peer of this.#peers.values()) peer.link.interrupt();
  }

  /** Stops every link; drains go on with the next start. */
  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.list().map((peer) => peer.stop()));
    await this.#removals.close();
  }

  /** A peer that a change has stopped goes on as before if that fails: its link, what it needs, its removal. */
  async #orGoOn<Result>(peer: Peer, change: () => Promise<Result>): Promise<Result> {
    const wasPaused = peer.link.state.name === "paused";
    try {
      return await change();
    } catch (thrown) {
      if (!this.#stop.signal.aborted) {
        if (!wasPaused) peer.link.start();
        peer.startReturning();
        if (peer.removing) void this.#removals.drain(peer);
      }
      throw thrown;
    }
  }

  /** For a change of the peers that is under way. */
  async #rest<Result>({ link }: Peer, work: () => Promise<Result>): Promise<Result> {
    const wasPaused = link.state.name === "paused";
    await link.stop();
    try {
      return await work();
    } finally {
      if (!wasPaused && !this.#stop.signal.aborted) link.start();
    }
  }

  #query(doing: string) {
    return this.#options.database.control.query(doing);
  }

  async #put(
    name: string,
    url: string | null,
    precondition?: (known: Peer | undefined) => void,
  ): Promise<{ peer: Peer; created: boolean }> {
    const known = this.#peers.get(name);
    precondition?.(known);
    this.check(name, url);
    if (known?.removing) {
      throw new MmliteError("conflict", `Cannot add peer "${name}": it is being removed`, {
        hint: "Wait until it is gone, or remove it with --force",
      });
    }
    const query = this.#query(`add peer "${name}"`);
    const before = await readPeer(query, name);
    const row = await savePeer(query, { name, url });
    try {
      await ensureOrigin(query, name);
      await this.#options.slots.ensure(name);
    } catch (thrown) {
      if (known === undefined) await this.#takeBack(row, before);
      throw thrown;
    }
    const peer = known ?? await this.#hold(row);
    if (known !== undefined && known.url !== url) await this.#move(known, url);
    if (row.intent !== "paused") peer.link.start();
    return { peer, created: known === undefined };
  }

  async #forgetUnmet(name: string): Promise<void> {
    const peer = this.#peers.get(name);
    if (peer === undefined) return;
    const query = this.#query(`take back peer "${name}"`);
    if ((await readPeer(query, name))?.incarnation != null) {
      throw new MmliteError("conflict", `Cannot take back peer "${name}": it has exchanged data already`, {
        hint: "Remove it with `mmlite peers remove`",
      });
    }
    await this.#removals.forgetInTurn(peer);
    await forgetPeer(query, name);
  }

  async #hold({ name, url, intent, dialsBack, ...row }: PeerRow): Promise<Peer> {
    const peer = new Peer(name, url, {
      ports: () => this.#options.ports(name),
      returnPorts: this.#options.returnPorts(name),
      observer: this.#options.observer(name),
    });
    peer.removing = intent === "removing";
    peer.dialsBack = dialsBack;
    peer.awaySince = row.awaySince;
    peer.evicted = row.evicted;
    peer.repairDue = row.repairDue;
    if (intent === "paused") await peer.link.stop();
    this.#peers.set(name, peer);
    return peer;
  }

  /** Gives a peer another address; it learns whether this node dials it when it next says Hello. */
  async #move(peer: Peer, url: string | null): Promise<void> {
    const { dropInbound, dropReturns } = this.#options;
    await peer.stop();
    const turns = (peer.url === null) !== (url === null);
    peer.url = url;
    dropReturns(peer.name);
    if (turns) await dropInbound(peer.name);
    peer.startReturning();
  }

  /** A peer that the configuration names: its link makes the slot, so that one peer's trouble stops no start. */
  #adopt(name: string, url: string | null): Promise<void> {
    return this.#inTurn(async () => {
      this.check(name, url);
      const query = this.#query(`add peer "${name}"`);
      const row = await savePeer(query, { name, url });
      await ensureOrigin(query, name);
      (await this.#hold(row)).link.start();
    });
  }

  /**
   * Undoes what a failed addition left. If that fails too, PostgreSQL is likely down: the peer is kept then, and
   * its link goes on with what is missing.
   */
  async #takeBack(row: PeerRow, before: PeerRow | undefined): Promise<void> {
    try {
      const query = this.#query(`take back peer "${row.name}"`);
      if (before?.slotLsn == null) await dropSlot(query, slotName(row.name));
      if (before === undefined) await forgetPeer(query, row.name);
      else if (before.intent === "removed") await setPeerRemoved(query, row.name);
    } catch (thrown) {
      this.#logger.warn("{error}", { error: toMmliteError(thrown).message });
      (await this.#hold(row)).link.start();
    }
  }

  #refuseRemoving(peer: Peer, verb: string): void {
    if (!peer.removing) return;
    throw new MmliteError("conflict", `Cannot ${verb} peer "${peer.name}": it is being removed`, {
      hint: "Remove it with --force to end it at once",
    });
  }

  #inTurn<Result>(change: () => Promise<Result>): Promise<Result> {
    const turn = this.#turn.then(change, change);
    this.#turn = turn.catch(() => {});
    return turn;
  }
}
