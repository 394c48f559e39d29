/**
 * Comparing this node's tables with those of its peers, and answering peers that do so.
 *
 * Its streams are on connections of their own, so that nothing that is replicated waits for them.
 */
import type { Job, VerifyInput, VerifyReport } from "../api/job_schemas.ts";
import { delay } from "../backoff.ts";
import { MmliteError, toMmliteError } from "../errors.ts";
import { log } from "../log.ts";
import { type LastApplied, readPeer } from "../pg/peers.ts";
import { parseTablePattern } from "../pg/table_pattern.ts";
import type { TableName } from "../table_name.ts";
import { answerQuestions, refuseQuestions } from "../verify/answering.ts";
import { LocalSide } from "../verify/local_side.ts";
import { RemoteSide } from "../verify/remote_side.ts";
import { verifyTables } from "../verify/verify.ts";
import type { Channel } from "../wire/channel.ts";
import type { Database } from "./database.ts";
import type { Dial } from "./dial.ts";
import { readComparableTables } from "./digest_jobs.ts";
import type { JobContext, JobKind } from "./jobs.ts";
import type { Peer } from "./peer.ts";
import type { Peers } from "./peers.ts";
import type { RowWriters } from "./row_writers.ts";
import type { Patterns } from "./table_patterns.ts";
import { ownSchema } from "./table_schema.ts";

/** A peer that dials this node has this long to do so, milliseconds. */
const CALL_BACK_MS = 15_000;

interface VerificationOptions {
  readonly database: Database;
  /** This node's name. */
  readonly self: string;
  readonly peers: Peers;
  readonly patterns: Patterns;
  /** On connections that nothing else uses. */
  readonly dial: Dial;
  /** For peers that repair rows here. */
  readonly writers: RowWriters;
  /** Aborts when the node closes. */
  readonly signal: AbortSignal;
}

type PeerReport = VerifyReport["peers"][number];
type Outcome = VerifyReport["outcome"];

/** What is compared. */
interface Sides {
  readonly here: LocalSide;
  readonly there: RemoteSide;
  /** Since when rows might differ as it began; see {@link Peer.repairDue}. */
  readonly due: string | null;
}

/** See the module's head. */
export class Verification implements JobKind<VerifyInput> {
  readonly interruptedHint = "Run `mmlite verify` again: it changes nothing, so nothing has to be undone";
  readonly #options: VerificationOptions;
  readonly #logger = log("verify");
  /** Takes the stream that a peer opens for this node's questions. */
  readonly #awaited = new Map<string, (channel: Channel) => Promise<void>>();
  /** Ends the stream on which a peer is answered: a newer one takes its place. */
  readonly #answering = new Map<string, AbortController>();

  constructor(options: VerificationOptions) {
    this.#options = options;
  }

  check({ tables = [], peers = [] }: VerifyInput): void {
    for (const pattern of tables) requirePattern(pattern);
    for (const name of peers) this.#requireNamed(name);
    if (this.#wanted(peers).length > 0) return;
    throw new MmliteError("invalid_input", "Cannot verify anything: this node has no peers", {
      hint: "Add one with `mmlite peers add`",
    });
  }

  async run(input: VerifyInput, { progress, signal }: JobContext): Promise<Job["result"]> {
    const reports: PeerReport[] = [];
    for (const peer of this.#wanted(input.peers ?? [])) {
      reports.push(await this.#verify(peer, input, { progress, signal }));
    }
    return {
      node: this.#options.self,
      outcome: worst(reports.map(({ outcome }) => outcome)),
      peers: reports,
    };
  }

  /** Answers what a peer asks; a node that is none is told so. */
  async acceptQuestions(channel: Channel, node: string): Promise<void> {
    try {
      await this.#requirePeer(node);
    } catch (why) {
      return await refuseQuestions(channel, { why, signal: this.#options.signal });
    }
    await this.#answer(channel, node, this.#takePlace(node));
  }

  /** Takes a stream that a peer opened for this node's questions; one that nobody waits for is broken off. */
  async acceptAnswers(channel: Channel, node: string): Promise<void> {
    const take = this.#awaited.get(node);
    this.#awaited.delete(node);
    if (take === undefined) return channel.destroy();
    await take(channel);
  }

  /** A peer that cannot dial this node wants to ask: dials it. */
  async calledBack(node: string): Promise<void> {
    try {
      const { url } = this.#options.peers.get(node);
      if (url === null) return;
      const signal = this.#takePlace(node);
      const channel = await this.#options.dial({ name: node, url }, "answer", signal);
      await this.#answer(channel, node, signal);
    } catch (thrown) {
      this.#logger.debug("Peer {peer} cannot be answered: {error}", {
        peer: node,
        error: toMmliteError(thrown).message,
      });
    }
  }

  /** Exit code 1 of `mmlite verify` is for tables that differ, so a name that is none is wrong input. */
  #requireNamed(name: string): void {
    if (this.#options.peers.find(name) !== undefined) return;
    throw new MmliteError("invalid_input", `Cannot verify with peer "${name}": there is none of that name`, {
      hint: "`mmlite peers list` shows them all",
    });
  }

  #wanted(names: readonly string[]): Peer[] {
    return this.#options.peers.list().filter(({ name, removing }) =>
      !removing && (names.length === 0 || names.includes(name))
    );
  }

  async #verify(peer: Peer, input: VerifyInput, { progress, signal }: JobContext): Promise<PeerReport> {
    let bytes = () => 0;
    try {
      const tables = await this.withSides(peer, { progress, signal }, async ({ here, there, due }) => {
        bytes = () => there.bytes;
        const tables = await verifyTables({
          ...{ here, there, patterns: input.tables, share: input.share, limit: input.limit, signal },
          settleMs: input.settle_seconds * 1000,
          progress: { expect: (rows) => progress.expect(rows), read: (rows) => progress.read(rows) },
        });
        await this.noteEqual(peer, { there, due, patterns: input.tables, tables });
        return tables;
      });
      return {
        peer: peer.name,
        outcome: worst(tables.map(({ outcome }) => outcome)),
        error: null,
        bytes: bytes(),
        tables: tables as PeerReport["tables"],
      };
    } catch (thrown) {
      const { kind, message, hint } = toMmliteError(thrown);
      if (signal.aborted || kind === "invalid_input") throw thrown;
      return {
        peer: peer.name,
        outcome: "failed",
        error: { kind, message, hint },
        bytes: bytes(),
        tables: [],
      };
    }
  }

  /** Asks a peer how far a third node is applied there. */
  async askApplied(
    peer: Peer,
    { node, signal }: { readonly node: string; readonly signal: AbortSignal },
  ): Promise<LastApplied> {
    const release = Promise.withResolvers<void>();
    const remote = new RemoteSide(peer.name, await this.#connect(peer, release.promise, signal));
    const breakOff = () => remote.breakOff();
    signal.addEventListener("abort", breakOff, { once: true });
    if (signal.aborted) breakOff();
    try {
      return await remote.applied(node);
    } finally {
      signal.removeEventListener("abort", breakOff);
      await remote.close();
      release.resolve();
    }
  }

  /** Once all tables are equal no repair is due any more, here and there, that was when they were begun with. */
  async noteEqual(
    peer: Peer,
    { there, due, patterns, tables }: Pick<Sides, "there" | "due"> & {
      readonly patterns: readonly string[] | undefined;
      readonly tables: readonly { readonly outcome: Outcome }[];
    },
  ): Promise<void> {
    if ((patterns ?? []).length > 0 || worst(tables.map(({ outcome }) => outcome)) !== "equal") return;
    await this.#options.peers.repaired(peer.name, due);
    await there.tellEqual();
  }

  /** Does some work with this node's tables and a peer's, on connections that end with it. */
  async withSides<Result>(
    peer: Peer,
    { progress, signal }: JobContext,
    work: (sides: Sides) => Promise<Result>,
  ): Promise<Result> {
    const here = this.#localSide(peer.name, signal);
    const due = this.#options.peers.find(peer.name)?.repairDue ?? null;
    const release = Promise.withResolvers<void>();
    const before = progress.bytes();
    let there: RemoteSide | undefined;
    const breakOff = () => there?.breakOff();
    signal.addEventListener("abort", breakOff, { once: true });
    try {
      const remote = there = new RemoteSide(peer.name, await this.#connect(peer, release.promise, signal));
      progress.bytes = () => before + remote.bytes;
      if (signal.aborted) breakOff();
      return await work({ here, there, due });
    } finally {
      signal.removeEventListener("abort", breakOff);
      await there?.close();
      release.resolve();
      await here.close();
    }
  }

  /** A stream to ask a peer on; one that the peer opened is its until `released`. */
  async #connect(peer: Peer, released: Promise<void>, signal: AbortSignal): Promise<Channel> {
    const { name, url } = peer;
    if (url !== null) return await this.#options.dial({ name, url }, "ask", signal);
    const { promise, resolve } = Promise.withResolvers<Channel>();
    const take = (channel: Channel) => {
      resolve(channel);
      return released;
    };
    this.#awaited.set(name, take);
    const waiting = new AbortController();
    try {
      peer.callBack();
      const late = delay(CALL_BACK_MS, AbortSignal.any([signal, waiting.signal])).then(() => null);
      const channel = await Promise.race([promise, late]);
      if (channel !== null) return channel;
    } finally {
      waiting.abort();
      if (this.#awaited.get(name) === take) this.#awaited.delete(name);
    }
    const why = `it has to dial this node, and did not within ${CALL_BACK_MS / 1000} s`;
    throw new MmliteError("unreachable", `Cannot ask peer "${name}" about its tables: ${why}`, {
      hint: `Check that mmlite runs on "${name}", and that the link to it streams (\`mmlite peers list\`)`,
    });
  }

  async #answer(channel: Channel, node: string, signal: AbortSignal): Promise<void> {
    this.#logger.info("Peer {peer} compares its tables with those here", { peer: node });
    const due = this.#options.peers.find(node)?.repairDue ?? null;
    await answerQuestions(channel, {
      open: (ended) => {
        const side = this.#localSide(node, ended);
        const tableOf = (table: TableName) => side.tableOf(table);
        const { database, patterns } = this.#options;
        return {
          side,
          schema: () => ownSchema({ database, patterns, signal: ended }),
          writer: this.#options.writers.writer(node, { tableOf, newest: true, signal: ended }),
          equal: () => this.#options.peers.repaired(node, due),
        };
      },
      signal,
    });
  }

  #takePlace(node: string): AbortSignal {
    this.#answering.get(node)?.abort();
    const stop = new AbortController();
    this.#answering.set(node, stop);
    return AbortSignal.any([stop.signal, this.#options.signal]);
  }

  #localSide(peer: string, signal: AbortSignal): LocalSide {
    const { database, self, patterns } = this.#options;
    return new LocalSide({
      node: self,
      peer,
      target: database.target,
      serverVersion: database.facts.versionNumber,
      readTables: (query) => readComparableTables(query, patterns),
      signal,
    });
  }

  /** A certificate outlives membership: only a peer of this node learns what it holds. */
  async #requirePeer(node: string): Promise<void> {
    const row = await readPeer(this.#options.database.control.query(`answer node "${node}"`), node);
    if (row?.intent === "active" || row?.intent === "paused") return;
    throw new MmliteError("refused", `Cannot tell node "${node}" about the tables: it is no peer here`, {
      hint: `Add node "${node}" as a peer on node "${this.#options.self}"`,
    });
  }
}

const ORDER: readonly Outcome[] = ["equal", "undecided", "failed", "differs"];

/** Of several outcomes the one that counts. */
export function worst(outcomes: readonly Outcome[]): Outcome {
  return outcomes.reduce((one, other) => ORDER.indexOf(other) > ORDER.indexOf(one) ? other : one, "equal");
}

/** Throws `invalid_input` for what is no pattern of tables. */
export function requirePattern(pattern: string): void {
  try {
    parseTablePattern(pattern);
  } catch (thrown) {
    const { message, hint } = toMmliteError(thrown);
    throw new MmliteError("invalid_input", message, { hint });
  }
}
