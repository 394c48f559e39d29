/**
 * Reading on one node what was written, or read, on another: a token of what a node had, and the wait for it elsewhere.
 *
 * A wait asks the database nothing: applying tells how far each node is visible here. Only what an earlier process had
 * applied is read, once, and again after the database was lost.
 */
import { MmliteError } from "../errors.ts";
import { formatLsn, type Lsn, maxLsn, ZERO_LSN } from "../lsn.ts";
import type { Query } from "../pg/query.ts";
import { readWalLsn } from "../pg/server.ts";
import { readApplied, readServerStanding, type ServerStanding } from "../pg/standing.ts";
import type { NodeIdentity } from "../wire/frame.ts";
import type { AppliedPositions } from "./applied_positions.ts";
import type { Peer } from "./peer.ts";
import { decodeToken, encodeToken, lifeOf, type NodePosition } from "./position_token.ts";

/** Requests that may wait at a time: each holds a connection and some 20 KiB. */
export const MAX_WAITING = 2_000;

interface ReadYourWritesOptions {
  readonly self: Pick<NodeIdentity, "cluster" | "node" | "incarnation">;
  readonly query: Query;
  readonly positions: AppliedPositions;
  readonly findPeer: (name: string) => Pick<Peer, "inbound"> | undefined;
  /** Why the database cannot be used at the moment; null while it can. */
  readonly problem: () => MmliteError | null;
  /** Aborts when the node closes. */
  readonly signal: AbortSignal;
}

/** A token, and what it says. */
export interface GivenToken {
  readonly token: string;
  readonly positions: readonly NodePosition[];
}

/** A node that is not applied as far as was waited for. */
export interface BehindNode {
  readonly node: string;
  readonly wantedLsn: Lsn;
  /** Null if nothing of it is applied here. */
  readonly appliedLsn: Lsn | null;
  /** What comes from it. */
  readonly inbound: Peer["inbound"]["state"];
}

/** What became of a wait. */
export type WaitOutcome =
  | { readonly reached: true; readonly waitedMs: number }
  /** The time has run out. */
  | { readonly reached: false; readonly behind: readonly BehindNode[]; readonly error: MmliteError };

/** See the module's head. */
export class ReadYourWrites {
  readonly #options: ReadYourWritesOptions;
  readonly #standing: Shared<ServerStanding>;
  readonly #walLsn: Shared<Lsn>;
  /** Up to here this server's WAL is known to reach. */
  #ownLsn = ZERO_LSN;
  #loading: Promise<void> | undefined;
  /** How often the database was lost. */
  #losses = 0;
  #waiting = 0;

  constructor(options: ReadYourWritesOptions) {
    this.#options = options;
    this.#standing = new Shared(() => readServerStanding(options.query));
    this.#walLsn = new Shared(() => readWalLsn(options.query));
  }

  /** A token of all that is visible here now; with `own` of what was committed here alone. */
  async token({ own }: { readonly own: boolean }): Promise<GivenToken> {
    const { self } = this.#options;
    this.#requireDatabase();
    const { lsn, applied } = await this.#standing.next();
    this.#ownLsn = maxLsn(this.#ownLsn, lsn);
    const others = own ? [] : applied.map(({ node, incarnation, lsn }) => ({
      node,
      life: lifeOf(incarnation),
      lsn,
    }));
    const positions = [{ node: self.node, life: lifeOf(self.incarnation), lsn }, ...others] as const;
    return { token: encodeToken({ cluster: self.cluster, positions }), positions };
  }

  /**
   * Waits until all that a token stands for is visible here. Throws `invalid_input` for what is no token, `conflict` for
   * one that can never be met here, `aborted` when the node closes or the caller's `signal` aborts.
   */
  async wait(
    text: string,
    { timeoutMs, signal }: { readonly timeoutMs: number; readonly signal: AbortSignal },
  ): Promise<WaitOutcome> {
    const startedAt = performance.now();
    const { cluster, positions } = decodeToken(text);
    this.#requireCluster(cluster);
    await this.#load();
    if (!await this.#isMet(positions)) {
      await this.#waitFor(positions, { signal, until: startedAt + timeoutMs });
      // It may have been lost meanwhile.
      await this.#load();
      const behind = this.#behind(positions);
      if (behind.length > 0) return { reached: false, behind, error: timeout(behind, timeoutMs) };
    }
    return { reached: true, waitedMs: performance.now() - startedAt };
  }

  /** The database was lost: what it had applied and not on disk may be gone. */
  forget(): void {
    this.#options.positions.forgetAll();
    this.#ownLsn = ZERO_LSN;
    this.#loading = undefined;
    this.#losses++;
  }

  /** Whether there is nothing to wait for. */
  async #isMet(positions: readonly NodePosition[]): Promise<boolean> {
    const own = positions.find(({ node }) => node === this.#options.self.node);
    if (own !== undefined) await this.#requireOwn(own);
    return this.#behind(positions).length === 0;
  }

  async #waitFor(
    positions: readonly NodePosition[],
    { signal, until }: { readonly signal: AbortSignal; readonly until: number },
  ): Promise<void> {
    if (this.#waiting >= MAX_WAITING) throw tooMany();
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(), Math.max(0, until - performance.now()));
    const { positions: applied, signal: closing } = this.#options;
    const enough = AbortSignal.any([signal, closing, late.signal]);
    this.#waiting++;
    try {
      for (const { node, life, lsn } of positions) {
        while (!enough.aborted && this.#isBehind({ node, life, lsn })) {
          await applied.changed(node, lsn, enough);
        }
      }
    } finally {
      this.#waiting--;
      clearTimeout(timer);
    }
    if (closing.aborted || signal.aborted) {
      const why = closing.aborted ? "this node is stopping" : "nobody waits any more";
      throw new MmliteError("aborted", `Cannot wait for the token: ${why}`, {
        hint: "Try again with the same token, here once it is back or on another node",
      });
    }
  }

  #behind(positions: readonly NodePosition[]): BehindNode[] {
    return positions.filter((position) => this.#isBehind(position)).map(({ node, lsn }) => ({
      node,
      wantedLsn: lsn,
      appliedLsn: this.#options.positions.of(node)?.lsn ?? null,
      inbound: this.#options.findPeer(node)!.inbound.state,
    }));
  }

  /** Throws `conflict` for a position that nobody can wait for here. */
  #isBehind({ node, life, lsn }: NodePosition): boolean {
    const { self, positions, findPeer } = this.#options;
    if (node === self.node) return false;
    if (findPeer(node) === undefined) throw unknownNode(node);
    const standing = positions.of(node);
    if (standing !== undefined && standing.life !== life) throw anotherLife(node);
    return standing === undefined || standing.lsn < lsn;
  }

  /** What is committed here is visible; but the database may have been set back since. */
  async #requireOwn({ node, life, lsn }: NodePosition): Promise<void> {
    const { self } = this.#options;
    if (life !== lifeOf(self.incarnation)) throw anotherLife(node);
    if (lsn <= this.#ownLsn) return;
    this.#ownLsn = await this.#walLsn.next();
    if (lsn <= this.#ownLsn) return;
    throw new MmliteError(
      "conflict",
      `Cannot wait for the token: it tells of this node's WAL up to ${formatLsn(lsn)}, and that ends at ` +
        `${formatLsn(this.#ownLsn)}: this database was restored or rolled back since`,
      { hint: "What the token stood for is lost here: ask for a new one" },
    );
  }

  #requireCluster(cluster: string): void {
    const { self } = this.#options;
    if (cluster === self.cluster) return;
    throw new MmliteError(
      "conflict",
      `Cannot wait for the token: it is of cluster "${cluster}", and this node of cluster "${self.cluster}"`,
      { hint: "Ask a node of this cluster for the token, or wait on a node of that one" },
    );
  }

  #requireDatabase(): void {
    const problem = this.#options.problem();
    if (problem !== null) throw problem;
  }

  /** Reads how far nodes were applied before this process, or before the database was lost. */
  async #load(): Promise<void> {
    this.#requireDatabase();
    await (this.#loading ??= this.#read());
  }

  async #read(): Promise<void> {
    const { query, positions } = this.#options;
    const losses = this.#losses;
    const applied = await readApplied(query).catch((thrown) => {
      this.#loading = undefined;
      throw thrown;
    });
    if (losses !== this.#losses) return await this.#load();
    for (const { node, incarnation, lsn } of applied) {
      // What a session has told meanwhile is newer.
      if (positions.of(node) === undefined) positions.set(node, { life: lifeOf(incarnation), lsn });
    }
  }
}

/** One reading for all who ask before it begins. */
class Shared<Result> {
  readonly #read: () => Promise<Result>;
  #next: Promise<Result> | undefined;
  #running: Promise<unknown> = Promise.resolve();

  constructor(read: () => Promise<Result>) {
    this.#read = read;
  }

  /** What is read from now on. */
  next(): Promise<Result> {
    return this.#next ??= this.#running.then(() => {
      this.#next = undefined;
      const reading = this.#read();
      this.#running = reading.catch(() => {});
      return reading;
    });
  }
}

function timeout(behind: readonly BehindNode[], timeoutMs: number): MmliteError {
  const said = behind.map(describeBehind).join("; ");
  return new MmliteError("timeout", `Cannot wait longer than ${timeoutMs / 1000} s: ${said}`, {
    hint: hintFor(behind),
  });
}

/** What stands in the way of one node stays when the others have come. */
function hintFor(behind: readonly BehindNode[]): string {
  const stuck = behind.find(({ inbound }) => inbound.name !== "streaming");
  if (stuck === undefined) {
    return "Try again with the same token, or allow more time; `mmlite status` shows the lag";
  }
  return refusalOf(stuck)?.hint ??
    `See whether node "${stuck.node}" runs, can be reached, and has not paused this one as its peer`;
}

function describeBehind(one: BehindNode): string {
  const { node, wantedLsn, appliedLsn, inbound } = one;
  const wanted = `of node "${node}" what ends at ${formatLsn(wantedLsn)} is wanted`;
  const applied = appliedLsn === null
    ? "nothing is applied yet"
    : `${formatLsn(appliedLsn)} is applied, ${wantedLsn - appliedLsn} bytes of its WAL behind`;
  if (inbound.name === "streaming") return `${wanted}, and ${applied}`;
  const refusal = refusalOf(one);
  const why = refusal === undefined
    ? "nothing comes from it"
    : `what it sends is refused: ${refusal.message}`;
  return `${wanted}, ${applied}, and ${why}`;
}

/** Why nothing more of a node is applied, where that is not for want of a connection. */
function refusalOf({ inbound }: BehindNode): MmliteError | undefined {
  return inbound.name === "failed" && inbound.error.disposition !== "retry" ? inbound.error : undefined;
}

function unknownNode(node: string): MmliteError {
  return new MmliteError(
    "conflict",
    `Cannot wait for the token: it tells of node "${node}", which is no peer of this node`,
    {
      hint:
        `Add it here as a peer, or wait on a node that has it. Where another node gave the token, one that is ` +
        "asked for with `?own` leaves out what that node had of others",
    },
  );
}

function anotherLife(node: string): MmliteError {
  return new MmliteError(
    "conflict",
    `Cannot wait for the token: it tells of another life of the database of node "${node}" than is known here`,
    { hint: "Ask for a new token; if that is refused too, see `mmlite status` on both nodes" },
  );
}

function tooMany(): MmliteError {
  return new MmliteError("transient", `Cannot wait for the token: ${MAX_WAITING} requests wait already`, {
    hint:
      "Try again in a moment; many that wait mean that this node is behind: `mmlite status` shows the lag",
  });
}
