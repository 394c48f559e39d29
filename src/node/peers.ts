/**
 * The peers of this node: durable rows, their slots and origins, and the links that run for them.
 */
import { delay } from "../backoff.ts";
import { MmliteError, toMmliteError } from "../errors.ts";
import type { SessionPorts } from "../link/ports.ts";
import { log } from "../log.ts";
import type { Lsn } from "../lsn.ts";
import { forgetPeer, type PeerRow, readPeers, savePeer, setPeerIntent, setPeerRemoved } from "../pg/peers.ts";
import { ensureOrigin, forgetProgress } from "../pg/progress.ts";
import { readWalLsn } from "../pg/server.ts";
import { dropSlot, readSlot, slotName } from "../pg/slots.ts";
import type { Database } from "./database.ts";
import { ensurePeerSlot } from "./outbound.ts";
import { Peer, type PeerObserver } from "./peer.ts";

/** How long adding a peer waits for the first answer, milliseconds, so that both directions are set up by then. */
const FIRST_ANSWER_MS = 5_000;
/** How often a peer that is being removed is looked at, milliseconds. */
const DRAIN_POLL_MS = 500;
/** How long a removal is waited for before it goes on by itself, milliseconds. */
const DRAIN_WAIT_MS = 5_000;

interface PeersOptions {
  readonly database: Database;
  /** This node's name. */
  readonly self: string;
  /** Addresses at which this node itself listens or is advertised. */
  readonly ownUrls: readonly string[];
  readonly ports: (peer: string) => SessionPorts;
  readonly observer: (peer: string) => PeerObserver;
  /** Ends what a peer is sending here. */
  readonly dropInbound: (peer: string) => Promise<void>;
}

/** The registry of peers. Changes to one peer happen one after the other. */
export class Peers {
  readonly #options: PeersOptions;
  readonly #logger = log("peers");
  readonly #peers = new Map<string, Peer>();
  readonly #stop = new AbortController();
  readonly #drains = new Map<string, Promise<void>>();
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: PeersOptions) {
    this.#options = options;
  }

  /** Takes up the peers that the database has. */
  async load(): Promise<void> {
    for (const row of await readPeers(this.#query("read the peers"))) {
      if (row.intent !== "removed") await this.#hold(row);
    }
  }

  /** Starts the links of all peers taken up, and adds those that the configuration names for the first time. */
  async start(configured: readonly { readonly name: string; readonly url: string }[]): Promise<void> {
    for (const peer of this.list()) {
      if (peer.removing) void this.#drain(peer);
      if (peer.link.state.name !== "paused") peer.link.start();
    }
    // What was changed through the API is durable and wins, a removal too.
    const known = new Set((await readPeers(this.#query("read the peers"))).map(({ name }) => name));
    for (const { name, url } of configured) if (!known.has(name)) await this.put(name, url);
  }

  /** Every peer by name, in order. */
  list(): readonly Peer[] {
    return [...this.#peers.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** Throws `not_found`. */
  get(name: string): Peer {
    const peer = this.#peers.get(name);
    if (peer !== undefined) return peer;
    throw new MmliteError("not_found", `No peer is called "${name}"`, {
      hint: "`mmlite peers list` shows them all",
    });
  }

  find(name: string): Peer | undefined {
    return this.#peers.get(name);
  }

  /** Throws if a peer of that name and address cannot be added; changes nothing. */
  check(name: string, url: string): void {
    const { self, ownUrls } = this.#options;
    if (name === self) {
      throw new MmliteError("conflict", `Cannot add peer "${name}": that is this node itself`, {
        hint: "Name the other node and give its address",
      });
    }
    if (ownUrls.some((own) => sameAddress(own, url))) {
      throw new MmliteError("conflict", `Cannot add peer "${name}": ${url} is this node's own address`, {
        hint: "Give the address of the other node's peer port",
      });
    }
    const taken =
      this.list().find((other) => slotName(other.name) === slotName(name) && other.name !== name) ??
        (slotName(self) === slotName(name) ? { name: self } : undefined);
    if (taken !== undefined) {
      throw new MmliteError(
        "conflict",
        `Cannot add peer "${name}": its slot name is taken by "${taken.name}"`,
        {
          hint: "Choose a name that differs in more than - and _",
        },
      );
    }
    const twice = this.list().find((other) =>
      other.name !== name && other.url !== null && sameAddress(other.url, url)
    );
    if (twice !== undefined) {
      throw new MmliteError("conflict", `Cannot add peer "${name}": ${url} is already peer "${twice.name}"`, {
        hint: `Give the address of node "${name}", or remove peer "${twice.name}" first`,
      });
    }
  }

  /** Adds a peer or gives it another address; returns once its slot holds every later transaction for it. */
  put(name: string, url: string): Promise<{ peer: Peer; created: boolean }> {
    return this.#inTurn(async () => {
      this.check(name, url);
      const known = this.#peers.get(name);
      if (known?.removing) {
        throw new MmliteError("conflict", `Cannot add peer "${name}": it is being removed`, {
          hint: "Wait until it is gone, or remove it with --force",
        });
      }
      const query = this.#query(`add peer "${name}"`);
      const row = await savePeer(query, { name, url });
      try {
        await ensureOrigin(query, name);
        await ensurePeerSlot(this.#options.database, row);
      } catch (thrown) {
        await forgetPeer(query, name);
        throw thrown;
      }
      const peer = known ?? await this.#hold(row);
      if (known !== undefined && known.url !== url) {
        await known.link.stop();
        known.url = url;
      }
      if (row.intent !== "paused") peer.link.start();
      return { peer, created: known === undefined };
    });
  }

  /** Waits a moment for the link's first answer, whatever it is. */
  async firstAnswer(peer: Peer): Promise<void> {
    const deadline = performance.now() + FIRST_ANSWER_MS;
    while (peer.link.state.name === "connecting" && performance.now() < deadline) {
      await delay(20, this.#stop.signal);
    }
  }

  /**
   * Takes back a peer that was added a moment ago, if its first answer shows that the two must never exchange rows:
   * it is this node itself, of another cluster, or another node than was named. Throws why.
   */
  async refuseStranger(peer: Peer): Promise<void> {
    const { state } = peer.link;
    const isStranger = state.name === "fenced" ||
      (state.name === "blocked" && state.error.kind === "conflict");
    if (!isStranger) return;
    await this.#forget(peer);
    await forgetPeer(this.#query(`take back peer "${peer.name}"`), peer.name);
    const { kind, message, hint } = state.error;
    throw new MmliteError(kind, `Cannot add peer "${peer.name}": ${message}`, { hint });
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

  resume(name: string): Promise<void> {
    return this.#inTurn(async () => {
      const peer = this.get(name);
      this.#refuseRemoving(peer, "resume");
      await setPeerIntent(this.#query(`resume peer "${name}"`), name, "active");
      peer.link.start();
    });
  }

  /**
   * Removes a peer: at once if forced, otherwise once it holds every transaction committed here before the call.
   *
   * Resolves to whether it is gone; a drain that takes longer goes on by itself, across restarts too.
   */
  async remove(name: string, { force }: { force: boolean }): Promise<"removed" | "draining"> {
    const peer = await this.#inTurn(async () => {
      const peer = this.get(name);
      await setPeerIntent(this.#query(`remove peer "${name}"`), name, "removing");
      peer.removing = true;
      peer.link.start();
      return peer;
    });
    if (force) {
      await this.#forget(peer);
      return "removed";
    }
    const drained = this.#drain(peer);
    const outcome = await Promise.race([drained.then(() => true), delay(DRAIN_WAIT_MS).then(() => false)]);
    return outcome ? "removed" : "draining";
  }

  /** Breaks every attempt off, because the local PostgreSQL is going down. */
  interrupt(): void {
    for (const peer of this.#peers.values()) peer.link.interrupt();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.all([...this.#peers.values()].map((peer) => peer.link.stop()));
    await Promise.all(this.#drains.values());
  }

  #query(doing: string) {
    return this.#options.database.control.query(doing);
  }

  async #hold({ name, url, intent }: PeerRow): Promise<Peer> {
    const peer = new Peer(name, url, {
      ports: () => this.#options.ports(name),
      observer: this.#options.observer(name),
    });
    peer.removing = intent === "removing";
    if (intent === "paused") await peer.link.stop();
    this.#peers.set(name, peer);
    return peer;
  }

  #refuseRemoving(peer: Peer, verb: string): void {
    if (!peer.removing) return;
    throw new MmliteError("conflict", `Cannot ${verb} peer "${peer.name}": it is being removed`, {
      hint: "Remove it with --force to end it at once",
    });
  }

  #drain(peer: Peer): Promise<void> {
    const running = this.#drains.get(peer.name);
    if (running !== undefined) return running;
    const drain = this.#runDrain(peer).finally(() => this.#drains.delete(peer.name));
    this.#drains.set(peer.name, drain);
    return drain;
  }

  async #runDrain(peer: Peer): Promise<void> {
    let target: Lsn | undefined;
    const query = this.#query(`drain peer "${peer.name}"`);
    while (!this.#stop.signal.aborted && this.#peers.get(peer.name) === peer) {
      try {
        target ??= await readWalLsn(query);
        const slot = await readSlot(query, slotName(peer.name));
        if (slot === undefined || (slot.confirmedFlushLsn ?? 0n) >= target) return await this.#forget(peer);
      } catch (thrown) {
        this.#logger.warn("{error}", { error: toMmliteError(thrown).message });
      }
      await delay(DRAIN_POLL_MS, this.#stop.signal);
    }
  }

  /**
   * Drops the slot and keeps the name as removed, so that the other node's link does not bring it back. The origin
   * stays: dropping it while WAL names it would make old transactions look local on 15 and older.
   */
  #forget(peer: Peer): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#peers.get(peer.name) !== peer) return;
      const query = this.#query(`remove peer "${peer.name}"`);
      await peer.link.stop();
      await this.#options.dropInbound(peer.name);
      await dropSlot(query, slotName(peer.name));
      await forgetProgress(query, peer.name);
      await setPeerRemoved(query, peer.name);
      this.#peers.delete(peer.name);
      this.#logger.info("Peer {peer} is removed", { peer: peer.name });
    });
  }

  #inTurn<Result>(change: () => Promise<Result>): Promise<Result> {
    const turn = this.#turn.then(change, change);
    this.#turn = turn.catch(() => {});
    return turn;
  }
}

function sameAddress(a: string, b: string): boolean {
  const [left, right] = [URL.parse(a), URL.parse(b)];
  return left !== null && right !== null && left.host === right.host;
}
