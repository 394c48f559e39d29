/**
 * Watches how much WAL the slots of peers keep, and for how long: warns in time, and where a bound says so gives a peer
 * up before PostgreSQL's disk is full, or PostgreSQL cuts the slot off itself.
 *
 * By age only peers are given up to which nothing goes: one that is paused, blocked or away. By size every one, as
 * the disk does not ask why.
 */
import { formatByteSize } from "../byte_size.ts";
import type { SlotLimits } from "../config.ts";
import { delay } from "../backoff.ts";
import { MmliteError, toMmliteError } from "../errors.ts";
import { log } from "../log.ts";
import { maxLsn } from "../lsn.ts";
import { setPeerAway } from "../pg/peers.ts";
import { readWalLsn } from "../pg/server.ts";
import { dropSlot, readSlots, SLOT_PREFIX, slotName, type SlotState } from "../pg/slots.ts";
import type { Database } from "./database.ts";
import type { Peer } from "./peer.ts";
import type { Peers } from "./peers.ts";

/** How often it is looked, milliseconds. */
const LOOK_INTERVAL_MS = 5_000;
const SECONDS_OF_UNITS = [["days", 86_400], ["hours", 3_600], ["minutes", 60]] as const;

interface SlotKeeperOptions {
  readonly database: Pick<Database, "control">;
  readonly peers: Pick<Peers, "list" | "evict">;
  readonly limits: SlotLimits;
}

/** What is kept for a peer. */
interface Kept {
  readonly bytes: number;
  /** How long nothing has gone to it, seconds; 0 while something does. */
  readonly awaySeconds: number;
}

/** See the module's head. */
export class SlotKeeper {
  readonly #options: SlotKeeperOptions;
  readonly #logger = log("peers");
  /** Of peers that are warned about: why, to stand behind a colon. */
  readonly #warned = new Map<string, { readonly why: string; readonly isAway: boolean }>();

  constructor(options: SlotKeeperOptions) {
    this.#options = options;
  }

  /** What an operator should know. */
  problems(): MmliteError[] {
    const names = new Set(this.#options.peers.list().map(({ name }) => name));
    return [...this.#warned].filter(([name]) => names.has(name)).map(([name, { why, isAway }]) =>
      new MmliteError(isAway ? "unreachable" : "transient", `WAL is kept for peer "${name}": ${why}`, {
        hint: `See why it does not receive (\`mmlite peers list\`); if it never comes back run ` +
          `\`mmlite peers remove ${name} --force\``,
      })
    );
  }

  /** Looks at an interval while `usable` says so, until `signal` aborts. */
  async run(signal: AbortSignal, usable: () => boolean): Promise<void> {
    for (;;) {
      await delay(LOOK_INTERVAL_MS, signal);
      if (signal.aborted) return;
      if (!usable()) continue;
      try {
        await this.look();
      } catch (thrown) {
        // The database is away, or busy: there is another time.
        this.#logger.debug("{error}", { error: toMmliteError(thrown).message });
      }
    }
  }

  /** Looks once. */
  async look(): Promise<void> {
    const query = this.#options.database.control.query("look what is kept for peers");
    const walLsn = await readWalLsn(query);
    const slots = new Map((await readSlots(query, SLOT_PREFIX)).map((slot) => [slot.name, slot]));
    for (const peer of this.#options.peers.list()) {
      const isAway = !["streaming", "catchup"].includes(peer.link.state.name);
      if (isAway !== (peer.awaySince !== null)) peer.awaySince = await setPeerAway(query, peer.name, isAway);
      const slot = slots.get(slotName(peer.name));
      // It was given up, and then something broke.
      if (slot !== undefined && peer.evicted !== null) await dropSlot(query, slot.name);
      if (slot === undefined || slot.lost || peer.evicted !== null) this.#warned.delete(peer.name);
      else await this.#judge(peer, keptBy(peer, { slot, lag: lagOf(slot, walLsn) }));
    }
  }

  async #judge(peer: Peer, kept: Kept): Promise<void> {
    const { maxSlotWal, maxSlotAge, warnSlotWal, warnSlotAge } = this.#options.limits;
    const tooMuch = passed(kept, { bytes: maxSlotWal, seconds: maxSlotAge, of: "max" });
    if (tooMuch !== undefined) {
      this.#warned.delete(peer.name);
      return await this.#options.peers.evict(peer.name, tooMuch);
    }
    const why = passed(kept, { bytes: warnSlotWal, seconds: warnSlotAge, of: "warn" });
    if (why === undefined) return void this.#warned.delete(peer.name);
    const isKnown = this.#warned.has(peer.name);
    this.#warned.set(peer.name, { why, isAway: kept.awaySeconds > 0 });
    if (!isKnown) this.#logger.warn("WAL is kept for peer {peer}: {why}", { peer: peer.name, why });
  }
}

function lagOf({ confirmedFlushLsn }: SlotState, walLsn: bigint): number {
  return confirmedFlushLsn === null
    ? 0
    : Number(maxLsn(walLsn as typeof confirmedFlushLsn, confirmedFlushLsn) - confirmedFlushLsn);
}

/** A peer that receives is not to blame for what a long transaction of this node keeps: only what it lacks counts. */
function keptBy(
  peer: Peer,
  { slot, lag }: { readonly slot: SlotState; readonly lag: number },
): Kept {
  if (peer.awaySince === null) return { bytes: lag, awaySeconds: 0 };
  const awaySeconds = Math.max(0, (Date.now() - Date.parse(peer.awaySince)) / 1000);
  return { bytes: Number(slot.retainedBytes), awaySeconds };
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
  const amount = `${formatByteSize(kept.bytes)}${away}`;
  if (bytes !== null && kept.bytes > bytes) {
    return `${amount} (limits.${of}_slot_wal is ${formatByteSize(bytes)})`;
  }
  if (seconds !== null && kept.awaySeconds > seconds) {
    return `${amount} (limits.${of}_slot_age is ${span(seconds)})`;
  }
  return undefined;
}

function span(seconds: number): string {
  const [unit, size] = SECONDS_OF_UNITS.find(([, size]) => seconds >= 2 * size) ?? ["s", 1];
  return `${Math.floor(seconds / size)} ${unit}`;
}
