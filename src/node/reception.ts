/**
 * The member's side of a join: gives a certificate for a token, then registers the node and tells it what it asks.
 */
import { MmliteError } from "../errors.ts";
import type { JoinRoutes } from "../http/join_routes.ts";
import { parsePeerUrl } from "../http/peer_url.ts";
import { log } from "../log.ts";
import { formatLsn } from "../lsn.ts";
import { readPeer, readPeers, requirePeer } from "../pg/peers.ts";
import { readInvites } from "../pg/invites.ts";
import { formatTableName } from "../table_name.ts";
import type { TlsKeys } from "../pki/tls_keys.ts";
import type { PeerName } from "../wire/channel.ts";
import type { Database } from "./database.ts";
import { DigestJobs, readComparableTables } from "./digest_jobs.ts";
import type { Invites } from "./invites.ts";
import { issueByInvite } from "./issuing.ts";
import {
  type JoinAnswer,
  type JoinRequest,
  type JoinRequestOf,
  parseJoinRequest,
  TABLES_PER_MESSAGE,
} from "./join_messages.ts";
import type { Peers } from "./peers.ts";
import type { Patterns } from "./table_patterns.ts";

interface ReceptionOptions {
  readonly database: Database;
  readonly self: PeerName;
  readonly tls: TlsKeys;
  readonly invites: Invites;
  readonly peers: Peers;
  readonly patterns: Patterns;
  /** Ends what is under way. */
  readonly signal: AbortSignal;
}

/** See the module. */
export class Reception implements JoinRoutes {
  readonly #options: ReceptionOptions;
  readonly #logger = log("join");
  readonly #jobs: DigestJobs;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: ReceptionOptions) {
    this.#options = options;
    this.#jobs = new DigestJobs(options);
  }

  isOpen(): boolean {
    return this.#options.invites.isOpen;
  }

  ca(): string {
    return this.#options.tls.current.authorities.join("\n");
  }

  /** Answers a request; `peer` is whom the certificate names that it came with, null without one. */
  async join(body: unknown, peer: PeerName | null): Promise<unknown> {
    const request = parseJoinRequest(body);
    if (request.step === "issue") return await this.#inTurn(() => this.#issue(request));
    if (peer === null) throw new MmliteError("unauthenticated", "Cannot answer this without a certificate");
    return await this.#answer(peer.node, request);
  }

  async #answer(node: string, request: Exclude<JoinRequest, { step: "issue" }>): Promise<unknown> {
    switch (request.step) {
      case "register":
        return await this.#register(node, request);
      case "tables":
        await this.#requirePeer(node);
        return await this.#listTables(request);
      case "digest":
        await this.#requirePeer(node);
        return await this.#jobs.answer(node, request);
      case "leave":
        return await this.#leave(node);
    }
  }

  /** A certificate outlives membership: only a peer of this node learns what it holds. */
  async #requirePeer(node: string): Promise<void> {
    const row = await readPeer(this.#query(`tell node "${node}" of the tables`), node);
    if (row?.intent === "active" || row?.intent === "paused") return;
    throw new MmliteError(
      "refused",
      `Cannot tell node "${node}" of the tables: it is no peer of "${this.#options.self.node}"`,
      { hint: `Run \`mmlite join\` on "${node}" again` },
    );
  }

  async #issue(request: JoinRequestOf<"issue">): Promise<JoinAnswer<"issue">> {
    const { self, invites, peers } = this.#options;
    const { certificate, authority } = await issueByInvite({
      query: this.#query(`take in node "${request.name}"`),
      self,
      invites,
      checkName: (name) => peers.check(name, null),
    }, request);
    this.#logger.info("Node {node} got a certificate by invite {id}", { node: request.name, id: request.id });
    const others = this.#options.tls.current.authorities.filter((one) => one.trim() !== authority.trim());
    return { certificate, authorities: [authority, ...others].join("\n") };
  }

  /** When this has answered, what is committed here is kept for the node. */
  async #register(node: string, { url }: JoinRequestOf<"register">): Promise<JoinAnswer<"register">> {
    const { peers, patterns } = this.#options;
    const row = await readPeer(this.#query(`register node "${node}"`), node);
    if (row?.intent === "removed" && !await this.#isInvited(node)) {
      throw new MmliteError(
        "refused",
        `Cannot register node "${node}": it was removed on "${this.#options.self.node}"`,
        { hint: `Run \`mmlite peers add ${node}${url === null ? "" : ` ${url}`}\` there` },
      );
    }
    // An address that was given on this node stays, once the node was met under it.
    const { created } = await peers.begin(node, url === null ? null : parsePeerUrl(url).origin);
    if (created) this.#logger.info("Node {node} joins and is a peer now", { node });
    return {
      tables: { include: [...patterns.include], exclude: [...patterns.exclude] },
      members: this.#members(node),
      removed: await this.#removed(node),
      slot_lsn: formatLsn((await requirePeer(this.#query(`register node "${node}"`), node)).slotLsn!),
    };
  }

  #members(except: string): JoinAnswer<"register">["members"] {
    const members = this.#options.peers.list().filter(({ name, removing }) => name !== except && !removing);
    return members.map(({ name, url }) => ({ name, url }));
  }

  async #removed(except: string): Promise<string[]> {
    const rows = await readPeers(this.#query(`register node "${except}"`));
    const gone = rows.filter(({ name, intent }) =>
      name !== except && (intent === "removed" || intent === "removing")
    );
    return gone.map(({ name }) => name);
  }

  async #isInvited(node: string): Promise<boolean> {
    const invites = await readInvites(this.#query(`register node "${node}"`));
    return invites.some(({ usedBy, remainingSeconds }) => usedBy === node && remainingSeconds > 0);
  }

  async #listTables({ after }: JoinRequestOf<"tables">): Promise<JoinAnswer<"tables">> {
    const tables = await readComparableTables(this.#query("list the tables"), this.#options.patterns);
    const last = after === null ? "" : formatTableName(after);
    const byName = new Map(
      tables.map(({ schema, name }) => [formatTableName({ schema, name }), { schema, name }]),
    );
    const left = [...byName.keys()].filter((name) => name > last).sort();
    const items = left.slice(0, TABLES_PER_MESSAGE).map((name) => byName.get(name)!);
    return { items, more: left.length > items.length };
  }

  /** Takes back what {@link Reception.#register} did, for a node that has not exchanged anything yet. */
  async #leave(node: string): Promise<JoinAnswer<"leave">> {
    this.#jobs.stop(node);
    await this.#options.peers.forgetUnmet(node);
    return {};
  }

  #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const turn = this.#turn.then(work, work);
    this.#turn = turn.catch(() => {});
    return turn;
  }

  #query(doing: string) {
    return this.#options.database.control.query(doing);
  }
}
