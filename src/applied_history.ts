/**
 * Which transactions of other nodes had been applied here when a local one was committed, by its place in this
 * server's WAL: after it, before it, or too close to tell.
 *
 * The commit record of an applied transaction lies between two positions that are known: where the WAL had been seen
 * to reach when it was written, and where it ended once it was visible. A local transaction behind the second has
 * certainly been committed after it, one before the first cannot have seen it.
 *
 * The first position is what keeps causes acyclic. It is at or behind every local transaction that this process has
 * read from a slot, and so behind everything that another node can have seen of this one: what came back because of a
 * local transaction is never taken for a cause of it, however late that one is read for a slower peer. More exactly,
 * with r(t) the moment at which a transaction was first read at its own node: t counts as a cause of a local u only if
 * t was written here before r(u), and t had been sent before, so after r(t). Along causes r only goes back.
 */
import { type Lsn, maxLsn, ZERO_LSN } from "./lsn.ts";
import { NEVER, type SeenNode } from "./seen_versions.ts";
import { Steps } from "./steps.ts";

/** What is kept of one node. */
interface Origin {
  /** Ends of its transactions, from where on they may be seen. */
  readonly positions: Steps<Lsn>;
  /** Times up to which it is applied, from where on that is certain. */
  readonly timestamps: Steps<bigint>;
  /** What is being committed: until it is visible, its time holds for nothing. */
  committing: { readonly endLsn: Lsn; readonly timestamp: bigint }[];
  /** A time up to which it is known to be applied, and for which no position is known yet. */
  caughtUp: bigint | undefined;
}

/** See the module's head. Empty after a start of the process, but for what {@link begin} is told. */
export class AppliedHistory {
  readonly #origins = new Map<string, Origin>();
  /** The local WAL has reached at least this. */
  #walLsn = ZERO_LSN;
  #version = 0;

  /** Changes with everything that may change an answer. */
  get version(): number {
    return this.#version;
  }

  /** The local WAL has been seen to reach a position. */
  reached(walLsn: Lsn): void {
    this.#walLsn = maxLsn(this.#walLsn, walLsn);
  }

  /** A node stands where an earlier process, or an earlier session, left it, as the database says now. */
  begin(node: string, stands: { readonly position: Lsn; readonly timestamp: bigint | undefined }): void {
    const origin = this.#origins.get(node);
    if (origin !== undefined) return void (origin.committing = []);
    const positions = new Steps<Lsn>("upper");
    positions.add(ZERO_LSN, stands.position);
    const begun: Origin = { positions, timestamps: new Steps("lower"), committing: [], caughtUp: undefined };
    if (stands.timestamp !== undefined) begun.timestamps.add(this.#walLsn, stands.timestamp);
    this.#origins.set(node, begun);
    this.#version++;
  }

  /** Transactions of a node up to an end are committed from now on, the latest of which was committed there at a time. */
  committing(node: string, endLsn: Lsn, timestamp: bigint): void {
    const origin = this.#origins.get(node);
    if (origin === undefined) return;
    const { positions, committing } = origin;
    if (endLsn > positions.last!) positions.add(this.#walLsn, endLsn);
    committing.push({ endLsn, timestamp });
    this.#version++;
  }

  /** Everything of a node up to an end was visible when the local WAL ended at a position. */
  visible(node: string, endLsn: Lsn, walLsn: Lsn): void {
    this.reached(walLsn);
    const origin = this.#origins.get(node);
    if (origin === undefined) return;
    const before = origin.timestamps.last ?? NEVER;
    let timestamp = origin.caughtUp ?? NEVER;
    origin.caughtUp = undefined;
    while (origin.committing.length > 0 && origin.committing[0].endLsn <= endLsn) {
      const done = origin.committing.shift()!.timestamp;
      if (done > timestamp) timestamp = done;
    }
    if (timestamp <= before) return;
    origin.timestamps.add(this.#walLsn, timestamp);
    this.#version++;
  }

  /** Everything that a node committed before a time is visible; counts from the next {@link visible} on. */
  caughtUp(node: string, timestamp: bigint): void {
    const origin = this.#origins.get(node);
    if (origin !== undefined) origin.caughtUp = timestamp;
  }

  /** Forgets a node that was removed. */
  forget(node: string): void {
    this.#origins.delete(node);
    this.#version++;
  }

  /** What a local transaction whose commit record begins at a position had of each node, and from where on that may
   * be something else. */
  before(commitLsn: Lsn): { readonly nodes: SeenNode[]; readonly until: Lsn | undefined } {
    let until: Lsn | undefined;
    const sooner = (next: Lsn | undefined) => {
      if (next !== undefined && (until === undefined || next < until)) until = next;
    };
    const nodes: SeenNode[] = [];
    for (const [node, { positions, timestamps }] of this.#origins) {
      const [position, timestamp] = [positions.at(commitLsn), timestamps.at(commitLsn)];
      sooner(position.next);
      sooner(timestamp.next);
      nodes.push({ node, position: position.value ?? ZERO_LSN, timestamp: timestamp.value ?? NEVER });
    }
    return { nodes, until };
  }
}

/** What has changed from one transaction of a stream to the next. */
export class SeenCursor {
  readonly #history: AppliedHistory;
  readonly #said = new Map<string, SeenNode>();
  #version = -1;
  #until: Lsn | undefined;

  constructor(history: AppliedHistory) {
    this.#history = history;
  }

  /** The nodes that are to be said anew before a local transaction; undefined if none. */
  next(commitLsn: Lsn): SeenNode[] | undefined {
    const isSame = this.#version === this.#history.version &&
      (this.#until === undefined || commitLsn < this.#until);
    if (isSame) return undefined;
    this.#version = this.#history.version;
    const { nodes, until } = this.#history.before(commitLsn);
    this.#until = until;
    const changed = nodes.filter((now) => {
      const said = this.#said.get(now.node);
      return said === undefined || now.position > said.position || now.timestamp > said.timestamp;
    });
    for (const one of changed) this.#said.set(one.node, one);
    return changed.length === 0 ? undefined : changed;
  }
}
