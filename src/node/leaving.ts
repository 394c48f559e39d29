/**
 * Peers that go: what is not delivered to one that is removed by force, and whether the nodes that stay have the same of
 * it. Said before it is too late to ask, and beforehand by a dry run.
 */
import type { ReceivedOf, RemovalReport, Undelivered } from "../api/removal_schemas.ts";
import { toMmliteError } from "../errors.ts";
import { log } from "../log.ts";
import { formatLsn } from "../lsn.ts";
import { type LastApplied, readLastApplied } from "../pg/peers.ts";
import type { Database } from "./database.ts";
import type { Peer } from "./peer.ts";
import type { Peers } from "./peers.ts";
import { countUndelivered } from "./undelivered.ts";
import type { Verification } from "./verification.ts";

/** How long the other peers have to answer, milliseconds. */
const ASK_MS = 5_000;

interface LeavingOptions {
  readonly database: Database;
  /** This node's name. */
  readonly self: string;
  readonly peers: Peers;
  readonly verification: Pick<Verification, "askApplied">;
  /** Aborts when the node closes. */
  readonly signal: AbortSignal;
}

type Other = ReceivedOf["others"][number];

/** See the module's head. */
export class Leaving {
  readonly #options: LeavingOptions;
  readonly #logger = log("peers");

  constructor(options: LeavingOptions) {
    this.#options = options;
  }

  /** What a removal by force would leave undelivered. Its link rests while that is counted. */
  async preview(name: string): Promise<RemovalReport> {
    const received = await this.#received(name);
    const undelivered = await this.#options.peers.atRest(name, () => this.#count(name));
    return this.#report(name, { removed: false, undelivered, received });
  }

  /** Removes a peer at once; what it did not get is counted before its slot goes. */
  async force(name: string, precondition?: (known: Peer) => void): Promise<RemovalReport> {
    const { peers } = this.#options;
    peers.get(name);
    const received = await this.#received(name);
    let undelivered: Undelivered | undefined;
    await peers.force(name, {
      precondition,
      beforeSlotGoes: async () => {
        // Noted first: once the peer is gone nobody asks again.
        for (const { peer, compared } of received.others) {
          if (compared !== "equal") await peers.repairIsDue(peer);
        }
        undelivered = await this.#count(name);
      },
    });
    const report = this.#report(name, { removed: true, undelivered: undelivered!, received });
    this.#logger.warn("Peer {peer} was removed by force: {undelivered}; {received}", {
      peer: name,
      undelivered: JSON.stringify(report.undelivered),
      received: JSON.stringify(report.received),
    });
    for (const remedy of report.remedies) this.#logger.warn("{remedy}", { remedy });
    return report;
  }

  #count(name: string): Promise<Undelivered> {
    return countUndelivered({ database: this.#options.database, peer: name });
  }

  async #received(name: string): Promise<ReceivedOf> {
    const { database, peers } = this.#options;
    const here = await readLastApplied(database.control.query(`look how far "${name}" is applied`), name);
    const others = peers.list().filter((peer) => peer.name !== name && !peer.removing);
    return {
      applied_lsn: here.lsn === null ? null : formatLsn(here.lsn),
      committed_at: here.at,
      others: await Promise.all(others.map((peer) => this.#ask(peer, name, here))),
    };
  }

  async #ask(peer: Peer, node: string, here: LastApplied): Promise<Other> {
    const signal = AbortSignal.any([AbortSignal.timeout(ASK_MS), this.#options.signal]);
    try {
      const there = await this.#options.verification.askApplied(peer, { node, signal });
      return {
        peer: peer.name,
        applied_lsn: there.lsn === null ? null : formatLsn(there.lsn),
        committed_at: there.at,
        compared: compare(here, there),
        problem: there.lsn === null ? `it knows nothing of "${node}"` : null,
      };
    } catch (thrown) {
      const problem = signal.aborted ? `no answer within ${ASK_MS / 1000} s` : toMmliteError(thrown).message;
      return { peer: peer.name, applied_lsn: null, committed_at: null, compared: "unknown", problem };
    }
  }

  #report(
    name: string,
    parts: Pick<RemovalReport, "removed" | "undelivered" | "received">,
  ): RemovalReport {
    return { peer: name, ...parts, remedies: remediesOf(name, { ...parts, self: this.#options.self }) };
  }
}

/** Positions of one node's WAL; of a node of which nothing was applied it is where its slot began. */
export function compare(here: LastApplied, there: LastApplied): Other["compared"] {
  if (here.lsn === null || there.lsn === null) return "unknown";
  if (here.at === null && there.at === null) return "equal";
  if (here.lsn === there.lsn) return "equal";
  return here.lsn > there.lsn ? "lacks" : "has_more";
}

function remediesOf(
  name: string,
  { self, undelivered, received }: Pick<RemovalReport, "undelivered" | "received"> & {
    readonly self: string;
  },
): string[] {
  const position = (lsn: string | null, at: string | null) =>
    `${lsn ?? "an unknown position"}${at === null ? "" : ` (committed ${at})`}`;
  const mine = position(received.applied_lsn, received.committed_at);
  const gaps = received.others.flatMap(({ peer, compared, applied_lsn, committed_at, problem }) => {
    if (compared === "equal") return [];
    const repair =
      `once "${name}" is removed on both, run \`mmlite verify --peer ${peer} --repair --newest\` on ` +
      `"${self}"`;
    if (compared === "unknown") {
      return [
        `"${peer}" could not be asked how far it has applied "${name}" (${
          problem ?? "not known here"
        }): ${repair}`,
      ];
    }
    const theirs = position(applied_lsn, committed_at);
    const lacking = compared === "lacks" ? peer : self;
    return [
      `"${peer}" has applied "${name}" up to ${theirs}, "${self}" up to ${mine}: "${lacking}" lacks what it committed ` +
      `after that; ${repair}`,
    ];
  });
  if (undelivered.complete && undelivered.changes === 0) return gaps;
  return [
    ...gaps,
    `What "${name}" did not get is lost to it alone. If it comes back, it begins anew: ` +
    `\`mmlite peers remove ${self} --force\` on "${name}", \`mmlite peers add\` on both nodes, then ` +
    `\`mmlite verify --repair --source ${self}\` on "${name}" (docs/OPERATIONS.md, A node that is lost for good)`,
  ];
}
