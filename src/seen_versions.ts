/**
 * What the sender of a transaction had of other nodes, as its `seen` frames say (docs/PROTOCOL.md 4.10).
 *
 * Two bounds, which differ in direction. The position is an upper one: whatever of a node's transactions can have been
 * a cause ends at or before it. The time is a lower one: whatever a node committed at or before it had been applied at
 * the sender before this transaction was committed there, so a change of such a version is no conflict.
 */
import { type Lsn, ZERO_LSN } from "./lsn.ts";

/** What a node's transactions were to the sender of another. */
export interface SeenNode {
  readonly node: string;
  /** In that node's WAL. */
  readonly position: Lsn;
  /** Microseconds since 2000-01-01 UTC; {@link NEVER} if nothing is known. */
  readonly timestamp: bigint;
}

/** Before every commit: the least of 64 bits, which PostgreSQL takes for -infinity. */
export const NEVER = -(2n ** 63n);

/** See the module's head. Does not change. */
export class SeenVersions {
  static readonly NOTHING = new SeenVersions(new Map());
  readonly #nodes: ReadonlyMap<string, SeenNode>;

  private constructor(nodes: ReadonlyMap<string, SeenNode>) {
    this.#nodes = nodes;
  }

  /** With other values for some nodes. What the sender once had it still has: after a restart it may know less of that. */
  with(changed: readonly SeenNode[]): SeenVersions {
    const entries = changed.map((one) => {
      const before = this.#nodes.get(one.node)?.timestamp ?? NEVER;
      return [one.node, before > one.timestamp ? { ...one, timestamp: before } : one] as const;
    });
    return new SeenVersions(new Map([...this.#nodes, ...entries]));
  }

  /** The times alone, for a session to begin with: positions are said anew. */
  times(): SeenVersions {
    return new SeenVersions(
      new Map([...this.#nodes].map(([node, one]) => [node, { ...one, position: ZERO_LSN }])),
    );
  }

  /** The time up to which the sender had everything of a node, microseconds since 2000-01-01 UTC; undefined if nothing
   * is known. */
  before(node: string): bigint | undefined {
    const timestamp = this.#nodes.get(node)?.timestamp;
    return timestamp === NEVER ? undefined : timestamp;
  }

  /** The time up to which the sender had everything of all these nodes; undefined if of one nothing is known. */
  lowerBound(nodes: Iterable<string>): bigint | undefined {
    let least: bigint | undefined;
    for (const node of nodes) {
      const timestamp = this.before(node);
      if (timestamp === undefined) return undefined;
      if (least === undefined || timestamp < least) least = timestamp;
    }
    return least;
  }

  /** Up to where the causes go, node by node. */
  causes(): Iterable<SeenNode> {
    return this.#nodes.values();
  }
}
