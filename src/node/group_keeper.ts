/**
 * Forgets what was noted of the rows of applied groups, and of deleted rows, once no older version can come: a
 * group's own time is as good as the exact one for whatever is newer than the group, and nothing that is newer than
 * its delete asks for a row's tombstone.
 *
 * Below PostgreSQL 14 a group's line is also all that says which node wrote its rows. That is asked for while the node
 * may change them without having seen all that the others did before it wrote them, so its groups stay until then.
 *
 * What other nodes still have on its way is known by their saying up to when they have sent everything. The times
 * are kept in memory only: they come again every few seconds.
 *
 * What stays of deleted rows is put together into longer lists, so that few have to be searched.
 */
import { delay } from "../backoff.ts";
import { MmliteError, toMmliteError } from "../errors.ts";
import { log } from "../log.ts";
import { forgetFrozenRepairs, forgetGroups, readGroups } from "../pg/apply_groups.ts";
import { MergeHorizon } from "../pg/merge_horizon.ts";
import { forgetTombstones, mergeTombstones, readTombstones } from "../pg/tombstones.ts";
import { SeenVersions } from "../seen_versions.ts";
import { unixMs } from "./clock.ts";
import type { Database } from "./database.ts";

/** How often it is looked what can go, milliseconds. */
const LOOK_INTERVAL_MS = 10_000;
/** How far clocks may be apart, and at most a commit's time before its record is written, milliseconds. */
export const SKEW_MARGIN_MS = 60_000;
/** With more kept than this, bytes, no further groups are made: a node that is away for days keeps them all. */
const MAX_KEPT_BYTES = 256 * 1024 * 1024;
/** With more kept of deleted rows than this, bytes, an operator is told: they cannot be given up. */
const MAX_TOMBSTONE_BYTES = 256 * 1024 * 1024;
/** No more groups of a node than this wait for what it sees, about 100 bytes each: it may be cut off for days. */
const MAX_UNNAMED_GROUPS = 1_000_000;

interface GroupKeeperOptions {
  readonly database: Pick<Database, "control">;
  /** Names of all nodes that may send here. */
  readonly peers: () => readonly string[];
  /** Where commit records name no node (below PostgreSQL 14): this node's name. */
  readonly unnamed?: {
    readonly self: string;
    /** {@link MAX_UNNAMED_GROUPS} where left out. */
    readonly maxGroups?: number;
  };
  /** Whether a node may lack what was deleted here, or somewhere else: a repair has to know of it. */
  readonly mayLackDeletes?: () => boolean;
  /** {@link MAX_KEPT_BYTES} where left out. */
  readonly maxKeptBytes?: number;
  /** {@link MAX_TOMBSTONE_BYTES} where left out. */
  readonly maxTombstoneBytes?: number;
}

/** See the module's head. */
export class GroupKeeper {
  readonly #options: GroupKeeperOptions;
  readonly #logger = log("apply");
  /** Of each sender, up to when everything is applied here, milliseconds since 1970-01-01 UTC. */
  readonly #caughtUp = new Map<string, number>();
  /** What each sender had of other nodes then. */
  readonly #seen = new Map<string, SeenVersions>();
  readonly #mergeHorizon = new MergeHorizon();
  /** Those who want deleted rows kept. */
  readonly #holding = new Set<object>();
  #hasRoom = true;
  #tombstoneBytes = 0;

  constructor(options: GroupKeeperOptions) {
    this.#options = options;
  }

  /** Whether more may be kept. */
  get hasRoom(): boolean {
    return this.#hasRoom;
  }

  /** What was kept of deleted rows at the last look, bytes. */
  get tombstoneBytes(): number {
    return this.#tombstoneBytes;
  }

  /** What an operator should know. */
  problems(): MmliteError[] {
    const most = this.#options.maxTombstoneBytes ?? MAX_TOMBSTONE_BYTES;
    return this.#tombstoneBytes > most ? [this.#tooManyTombstones()] : [];
  }

  /** Everything that a node committed before this time, microseconds since 2000-01-01 UTC, is applied here; whatever it
   * commits later has `seen` at least. */
  caughtUp(origin: string, committedBefore: bigint, seen: SeenVersions): void {
    this.#caughtUp.set(origin, unixMs(committedBefore));
    this.#seen.set(origin, seen);
  }

  /** Up to when everything of a node is applied here, milliseconds since 1970-01-01 UTC by its clock; undefined where it
   * has not said so. */
  caughtUpUntil(origin: string): number | undefined {
    return this.#caughtUp.get(origin);
  }

  /** What a sender had at least of other nodes before all that it sends from now on, also where it was restarted. */
  seenBy(origin: string): SeenVersions {
    return this.#seen.get(origin)?.times() ?? SeenVersions.NOTHING;
  }

  /** Forgets what a node has said that was removed. */
  forgetNode(name: string): void {
    this.#caughtUp.delete(name);
    this.#seen.delete(name);
  }

  /** Forgets at an interval while `usable` says so, until `signal` aborts. */
  async run(signal: AbortSignal, usable: () => boolean): Promise<void> {
    for (;;) {
      await delay(LOOK_INTERVAL_MS, signal);
      if (signal.aborted) return;
      if (usable()) await this.#tryForget();
    }
  }

  async #tryForget(): Promise<void> {
    try {
      await this.forget();
    } catch (thrown) {
      // The database is away, or busy: there is another time.
      this.#logger.debug("{error}", { error: toMmliteError(thrown).message });
    }
  }

  /** Forgets what can go now. */
  async forget(): Promise<void> {
    const query = this.#options.database.control.query("forget the versions of applied groups");
    let kept = 0;
    for (const { origin, groups, bytes } of await readGroups(query)) {
      const before = this.#groupHorizon(origin, groups);
      kept += bytes;
      if (before !== undefined) kept -= await forgetGroups(query, origin, new Date(before).toISOString());
    }
    await forgetFrozenRepairs(query);
    this.#hasRoom = kept < (this.#options.maxKeptBytes ?? MAX_KEPT_BYTES);
    await this.#forgetDeleted();
  }

  /** Forgets no deleted rows until the returned function is called; idempotent. */
  holdDeletes(): () => void {
    const held = {};
    this.#holding.add(held);
    return () => void this.#holding.delete(held);
  }

  async #forgetDeleted(): Promise<void> {
    if (this.#holding.size > 0) return;
    const query = this.#options.database.control.query("forget deleted rows");
    let kept = 0;
    const seen = await this.#mergeHorizon.read(query);
    const areNeeded = this.#options.mayLackDeletes?.() ?? false;
    for (const { origin, bytes } of await readTombstones(query)) {
      const before = areNeeded ? undefined : this.horizon(origin);
      kept += bytes;
      if (before !== undefined) kept -= await forgetTombstones(query, origin, new Date(before).toISOString());
      while (seen !== undefined && await mergeTombstones(query, origin, seen) > 0);
    }
    this.#tombstoneBytes = kept;
  }

  /** Of a node's groups nothing older than this is asked for; undefined while that may be any. */
  #groupHorizon(origin: string, groups: number): number | undefined {
    const horizon = this.horizon(origin);
    const { unnamed, peers } = this.#options;
    if (unnamed === undefined || groups > (unnamed.maxGroups ?? MAX_UNNAMED_GROUPS)) return horizon;
    if (!peers().includes(origin)) return horizon;
    const others = [unnamed.self, ...peers()].filter((name) => name !== origin);
    const seen = this.#seen.get(origin)?.lowerBound(others);
    if (horizon === undefined || seen === undefined) return undefined;
    return Math.min(horizon, unixMs(seen) - SKEW_MARGIN_MS);
  }

  /**
   * Nothing older than this, milliseconds since 1970-01-01 UTC, comes from any other node than `origin`; undefined while
   * one has not said so.
   */
  horizon(origin: string): number | undefined {
    let horizon = Date.now();
    for (const peer of this.#options.peers()) {
      if (peer === origin) continue;
      const caughtUp = this.#caughtUp.get(peer);
      if (caughtUp === undefined) return undefined;
      horizon = Math.min(horizon, caughtUp);
    }
    return horizon - SKEW_MARGIN_MS;
  }

  /** The nodes that have not said yet up to when they have sent everything, else the one that is furthest behind. */
  #holdUp(): readonly string[] {
    const peers = this.#options.peers();
    const silent = peers.filter((peer) => !this.#caughtUp.has(peer));
    if (silent.length > 0) return silent;
    return [...peers].sort((a, b) => this.#caughtUp.get(a)! - this.#caughtUp.get(b)!).slice(0, 1);
  }

  #tooManyTombstones(): MmliteError {
    const nodes = this.#holdUp();
    const named = nodes.map((node) => `"${node}"`).join(", ");
    return new MmliteError(
      "unreachable",
      `Cannot forget deleted rows, which take much room in mmlite.tombstone: older changes may come from ${named}`,
      {
        hint: `Let it catch up, or if it never comes back run \`mmlite peers remove ${nodes[0]} --force\``,
      },
    );
  }
}
