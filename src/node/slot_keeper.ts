/**
 * Watches how much WAL the slots of peers keep, and for how long: warns in time, and where a bound says so gives a peer
 * up before PostgreSQL's disk is full, or PostgreSQL cuts the slot off itself.
 *
 * By age only peers are given up to which nothing goes: one that is paused, blocked or away. By size every one, as
 * the disk does not ask why. What counts of a peer is what it lacks; of one that has been away for a while, all that
 * is kept: before, a long transaction of this node may be all that keeps it.
 */
import { formatByteSize } from "../byte_size.ts";
import type { SlotLimits } from "../config.ts";
import { delay } from "../backoff.ts";
import { MmliteError, toMmliteError } from "../errors.ts";
import { log } from "../log.ts";
import { type Lsn, maxLsn } from "../lsn.ts";
import { readAwayCounted, setAwayCounted, setPeerAway } from "../pg/peers.ts";
import type { Query } from "../pg/query.ts";
import { readWalLsn } from "../pg/server.ts";
import { dropSlot, readSlot, readSlots, SLOT_PREFIX, slotName, type SlotState } from "../pg/slots.ts";
import type { Database } from "./database.ts";
import type { Peer } from "./peer.ts";
import type { Peers } from "./peers.ts";

/** How often it is looked, milliseconds. */
const LOOK_INTERVAL_MS = 5_000;
/** How long a peer has to be away until all that is kept for it counts, seconds. */
const LONG_AWAY_SECONDS = 300;
/** How often it is put on record for how long a peer was seen to be away, seconds. */
const COUNT_SECONDS = 60;
/** How long peers have to come back after this node's start until they count as away, milliseconds. */
const START_GRACE_MS = 300_000;
const SECONDS_OF_UNITS = [["days", 86_400], ["hours", 3_600], ["minutes", 60]] as const;

interface SlotKeeperOptions {
  readonly database: Pick<Database, "control">;
  readonly peers: Pick<Peers, "list" | "evict">;
  readonly limits: SlotLimits;
  /** When this process started: no peer can be blamed for what was before, unless another process saw it. */
  readonly startedAt: Date;
}

/** What is kept for a peer. */
interface Kept {
  readonly bytes: number;
  /** How long nothing has gone to it, seconds; 0 while something does. */
  readonly awaySeconds: number;
  /** As much of that as mmlite has seen, but for a while after each of its starts; 0 in that. */
  readonly age: number;
  /** It copies rows, and takes nothing before. */
  readonly isCopying: boolean;
}

/** Why a peer is warned about. */
interface Warning extends Pick<Kept, "awaySeconds" | "isCopying"> {
  /** To stand behind a colon. */
  readonly why: string;
}

/** See the module's head. */
export class SlotKeeper {
  readonly #options: SlotKeeperOptions;
  readonly #logger = log("peers");
  readonly #warned = new Map<string, Warning>();
  /** Of peers that are away: what was confirmed when that was first seen. */
  readonly #stoodAt = new Map<string, Lsn | null>();
  /** Of peers that are away: for how long earlier processes saw that, and what is on record of it now, seconds. */
  readonly #counted = new Map<string, { readonly before: number; saved: number }>();

  constructor(options: SlotKeeperOptions) {
    this.#options = options;
  }

  /** What an operator should know. */
  problems(): MmliteError[] {
    const names = new Set(this.#options.peers.list().map(({ name }) => name));
    return [...this.#warned].filter(([name]) => names.has(name)).map((
      [name, { why, awaySeconds, isCopying }],
    ) =>
      new MmliteError(
        awaySeconds > 0 ? "unreachable" : "transient",
        `WAL is kept for peer "${name}": ${why}`,
        {
          hint: isCopying
            ? `It takes what is kept once its copy has ended: \`mmlite status\` on "${name}" tells how far that is`
            : `See why it does not receive (\`mmlite peers list\`); if it never comes back run ` +
              `\`mmlite peers remove ${name} --force\``,
        },
      )
    );
  }

  /** Looks at an interval while `usable` says so, until `signal` aborts. */
  async run(signal: AbortSignal, usable: () => boolean): Promise<void> {
    for (;;) {
      await delay(LOOK_INTERVAL_MS, signal);
      if (signal.aborted) return;
      if (!usable()) continue;
      try {
        await this.look(signal);
      } catch (thrown) {
        // The database is away, or busy: there is another time.
        this.#logger.debug("{error}", { error: toMmliteError(thrown).message });
      }
    }
  }

  /** Looks once; links that end because `signal` aborts tell nothing of their peers. */
  async look(signal?: AbortSignal): Promise<void> {
    const query = this.#options.database.control.query("look what is kept for peers");
    const walLsn = await readWalLsn(query);
    const slots = new Map((await readSlots(query, SLOT_PREFIX)).map((slot) => [slot.name, slot]));
    for (const peer of this.#options.peers.list()) {
      if (signal?.aborted) return;
      const slot = slots.get(slotName(peer.name));
      await this.#noteAway(query, peer, slot);
      await this.#count(query, peer);
      // It was given up, and then something broke.
      if (slot !== undefined && peer.evicted !== null) await dropSlot(query, slot.name);
      if (slot === undefined || slot.lost || peer.evicted !== null) this.#warned.delete(peer.name);
      else await this.#judge(peer, this.#keptBy(peer, { slot, walLsn }));
    }
  }

  /** A peer is back once it has taken something, or lacks nothing: a link that is blocked enters catchup at each try. */
  async #noteAway(query: Query, peer: Peer, slot: SlotState | undefined): Promise<void> {
    const confirmed = slot?.confirmedFlushLsn ?? null;
    if (peer.awaySince === null) {
      this.#stoodAt.delete(peer.name);
      this.#counted.delete(peer.name);
      if (flows(peer) || copies(peer)) return;
      this.#stoodAt.set(peer.name, confirmed);
      peer.awaySince = await setPeerAway(query, { name: peer.name, isAway: true });
      return;
    }
    const stoodAt = this.#stoodAt.get(peer.name) ?? confirmed;
    this.#stoodAt.set(peer.name, stoodAt);
    if (!flows(peer)) return;
    const hasTaken = confirmed !== null && stoodAt !== null && confirmed > stoodAt;
    const lacksNothing = peer.link.state.name === "streaming" && peer.outbound.lagSeconds === 0;
    if (!hasTaken && !lacksNothing) return;
    peer.awaySince = await setPeerAway(query, { name: peer.name, isAway: false });
  }

  /** A node that is restarted again and again counts on, and not what was while it was down. */
  async #count(query: Query, { name, awaySince, evicted }: Peer): Promise<void> {
    if (awaySince === null || evicted !== null) return;
    let counted = this.#counted.get(name);
    if (counted === undefined) {
      const before = await readAwayCounted(query, name);
      this.#counted.set(name, counted = { before, saved: before });
    }
    const age = this.#ageOf(name, awaySince);
    if (age < counted.saved + COUNT_SECONDS) return;
    await setAwayCounted(query, name, age);
    counted.saved = age;
  }

  #ageOf(name: string, awaySince: string): number {
    const since = this.#options.startedAt.getTime() + START_GRACE_MS;
    if (Date.now() < since) return 0;
    const before = this.#counted.get(name)?.before ?? 0;
    return before + secondsSince(Math.max(Date.parse(awaySince), since));
  }

  async #judge(peer: Peer, kept: Kept): Promise<void> {
    const { warnSlotWal, warnSlotAge } = this.#options.limits;
    if (this.#isTooMuch(kept) !== undefined) {
      this.#warned.delete(peer.name);
      return await this.#options.peers.evict(peer.name, (held) => this.#isStillTooMuch(held));
    }
    const why = passed(kept, { bytes: warnSlotWal, seconds: warnSlotAge, of: "warn" });
    if (why === undefined) return void this.#warned.delete(peer.name);
    const isKnown = this.#warned.has(peer.name);
    this.#warned.set(peer.name, { ...kept, why });
    if (!isKnown) this.#logger.warn("WAL is kept for peer {peer}: {why}", { peer: peer.name, why });
  }

  /** Why a peer is to be given up; undefined if it is not. */
  #isTooMuch(kept: Kept): string | undefined {
    const { maxSlotWal, maxSlotAge } = this.#options.limits;
    return passed(kept, { bytes: maxSlotWal, seconds: maxSlotAge, of: "max" });
  }

  /** The same as of now: it may have come back, or begun anew, since it was looked at. */
  async #isStillTooMuch(peer: Peer): Promise<string | undefined> {
    const query = this.#options.database.control.query("look again what is kept for a peer");
    const walLsn = await readWalLsn(query);
    const slot = await readSlot(query, slotName(peer.name));
    if (slot === undefined || slot.lost) return undefined;
    return this.#isTooMuch(this.#keptBy(peer, { slot, walLsn }));
  }

  #keptBy(peer: Peer, { slot, walLsn }: { readonly slot: SlotState; readonly walLsn: Lsn }): Kept {
    const { confirmedFlushLsn: confirmed, retainedBytes } = slot;
    const lag = confirmed === null ? 0 : Number(maxLsn(walLsn, confirmed) - confirmed);
    const isCopying = copies(peer);
    if (peer.awaySince === null || flows(peer) || isCopying) {
      return { bytes: lag, awaySeconds: 0, age: 0, isCopying };
    }
    const age = this.#ageOf(peer.name, peer.awaySince);
    const bytes = age < LONG_AWAY_SECONDS ? lag : Number(retainedBytes);
    return { bytes, awaySeconds: secondsSince(Date.parse(peer.awaySince)), age, isCopying };
  }
}

function flows(peer: Peer): boolean {
  return ["streaming", "catchup"].includes(peer.link.state.name);
}

/** It is there, and needs what is kept. */
function copies(peer: Peer): boolean {
  return peer.link.state.name === "copying";
}

function secondsSince(at: number): number {
  return Math.max(0, (Date.now() - at) / 1000);
}

function passed(
  kept: Kept,
  { bytes, seconds, of }: {
    readonly bytes: number | null;
    readonly seconds: number | null;
    readonly of: "warn" | "max";
  },
): string | undefined {
  const away = kept.awaySeconds > 0 ? `, and nothing has gone to it for ${span(kept.awaySeconds)}` : "";
  const copying = kept.isCopying ? ", while it copies rows" : "";
  const amount = `${formatByteSize(kept.bytes)}${away}${copying}`;
  if (bytes !== null && kept.bytes > bytes) {
    return `${amount} (limits.${of}_slot_wal is ${formatByteSize(bytes)})`;
  }
  if (seconds !== null && kept.age > seconds) {
    return `${amount} (limits.${of}_slot_age is ${span(seconds)})`;
  }
  return undefined;
}

function span(seconds: number): string {
  const [unit, size] = SECONDS_OF_UNITS.find(([, size]) => seconds >= 2 * size) ?? ["s", 1];
  return `${Math.floor(seconds / size)} ${unit}`;
}
