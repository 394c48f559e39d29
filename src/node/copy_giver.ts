/**
 * Rows of this node given to peers that copy them.
 */
import type { OwnDeletes } from "../apply/own_deletes.ts";
import { delay } from "../backoff.ts";
import { giveCopy } from "../copy/giving.ts";
import type { GivenRows } from "../copy/given_rows.ts";
import { MmliteError, toMmliteError } from "../errors.ts";
import { log } from "../log.ts";
import { type Lsn, maxLsn, ZERO_LSN } from "../lsn.ts";
import { readSettledBefore } from "../pg/copy_source.ts";
import { readPeer } from "../pg/peers.ts";
import { readProgressOf } from "../pg/progress.ts";
import type { Query } from "../pg/query.ts";
import type { Channel } from "../wire/channel.ts";
import type { AppliedPositions } from "./applied_positions.ts";
import type { Database } from "./database.ts";
import { readComparableTables } from "./digest_jobs.ts";
import { type GroupKeeper, SKEW_MARGIN_MS } from "./group_keeper.ts";
import { noteDeletes } from "./outbound.ts";
import type { Patterns } from "./table_patterns.ts";

interface CopyGiverOptions {
  readonly database: Database;
  /** This node's name. */
  readonly self: string;
  readonly patterns: Patterns;
  readonly positions: AppliedPositions;
  readonly groups: GroupKeeper;
  readonly ownDeletes: OwnDeletes;
  /** Throws `copying` where rows are copied to this node. */
  readonly requireEnded: () => void;
  /** Resolves once a table, by its OID, is published; throws `transient` while it is not. */
  readonly awaitKnown: (oid: number) => Promise<void>;
  /** Aborts when the node closes. */
  readonly signal: AbortSignal;
}

/** Another reader may hold the slot for a moment: it is tried again for this long, milliseconds. */
const SLOT_WAIT_MS = 15_000;
const SLOT_RETRY_MS = 200;

/** See the module's head. */
export class CopyGiver {
  readonly #options: CopyGiverOptions;
  readonly #logger = log("copy");
  /** Copies under way, for their further channels. */
  readonly #given = new Map<string, GivenRows>();

  constructor(options: CopyGiverOptions) {
    this.#options = options;
  }

  /** Gives the rows of this node to a peer; who is none is told so. */
  async accept(channel: Channel, peer: string): Promise<void> {
    const { database, self, patterns, groups, ownDeletes, requireEnded, awaitKnown, signal } = this.#options;
    const query = database.control.query(`give rows to peer "${peer}"`);
    await giveCopy(channel, {
      ...{ target: database.target, query, self, peer },
      serverVersion: database.facts.versionNumber,
      isVersioned: database.facts.trackCommitTimestamp,
      requireAllowed: async () => {
        await requirePeer(query, peer);
        requireEnded();
        this.#logger.info("Peer {peer} copies the rows of this node", { peer });
      },
      readTables: (query) => readComparableTables(query, patterns),
      awaitTable: ({ oid }) => awaitKnown(oid),
      requireWhole: requireEnded,
      appliedOf: (node) => this.#appliedOf(query, node),
      noteOwnDeletes: async (until, signal) => {
        if (!database.facts.trackCommitTimestamp) return;
        await patiently(() => noteDeletes({ database, ownDeletes, peer, until, signal }), signal);
      },
      watchRemovals: () => ownDeletes.watchRemovals(),
      holdDeletes: () => groups.holdDeletes(),
      failed: (error) =>
        this.#logger.warn("Rows cannot be given to peer {peer}: {error}", { peer, error: error.message }),
      underWay: this.#given,
      oldBefore: async () => {
        const horizon = groups.horizon(peer);
        if (horizon === undefined) return "-infinity";
        return await readSettledBefore(query, { horizon, marginMs: SKEW_MARGIN_MS });
      },
    }, signal);
  }

  async #appliedOf(query: Query, node: string): Promise<Lsn | undefined> {
    const told = this.#options.positions.of(node)?.lsn;
    const stored = (await readProgressOf(query, node))?.lsn;
    return told === undefined && stored === undefined
      ? undefined
      : maxLsn(told ?? ZERO_LSN, stored ?? ZERO_LSN);
  }
}

/** A certificate outlives membership: only a peer of this node gets its rows. */
async function requirePeer(query: Query, node: string): Promise<void> {
  const row = await readPeer(query, node);
  if (row?.intent === "active" || row?.intent === "paused") return;
  throw new MmliteError("refused", `Cannot give rows to node "${node}": it is no peer`);
}

/** Tries again for a while what another one is in the way of. */
async function patiently(work: () => Promise<void>, signal: AbortSignal): Promise<void> {
  const until = performance.now() + SLOT_WAIT_MS;
  for (;;) {
    try {
      return await work();
    } catch (thrown) {
      const error = toMmliteError(thrown);
      if (error.disposition !== "retry" || performance.now() > until || signal.aborted) throw error;
      await delay(SLOT_RETRY_MS, signal);
    }
  }
}
