/**
 * Rows of another node copied to this one: what an operator asks for as a job.
 *
 * Until all rows have come nothing is received, and to its end applications cannot write to the tables, across restarts.
 */
import type { CopyInput, CopyReport } from "../api/job_schemas.ts";
import { openApplySession } from "../apply/session.ts";
import { backoffMs, delay } from "../backoff.ts";
import { parseByteSize } from "../byte_size.ts";
import { paceOf } from "../copy/pace.ts";
import { takeCopy, type TakenTable } from "../copy/taking.ts";
import { MmliteError, toMmliteError } from "../errors.ts";
import { log } from "../log.ts";
import { type Lsn, maxLsn, ZERO_LSN } from "../lsn.ts";
import { type Client, closeClient } from "../pg/client.ts";
import { readCopy, type UnendedCopy } from "../pg/copy_target.ts";
import { setMark } from "../pg/marks.ts";
import { readPeer } from "../pg/peers.ts";
import { ensureNamedOrigin, ensureOrigin, originName, readProgress } from "../pg/progress.ts";
import type { Query } from "../pg/query.ts";
import type { SchemaItems } from "../pg/schema_items.ts";
import { readHashedColumns } from "../pg/row_hash.ts";
import { noteComingCopy } from "./coming_copy.ts";
import type { Database } from "./database.ts";
import type { Dial } from "./dial.ts";
import { readComparableTables } from "./digest_jobs.ts";
import { awaitPeers, heardUntil, openToApplications } from "./going_live.ts";
import type { GroupKeeper } from "./group_keeper.ts";
import type { JobKind, JobRun } from "./jobs.ts";
import { isMerge, type Merging } from "./merging.ts";
import type { Peers } from "./peers.ts";
import type { ServerClock } from "./server_clock.ts";
import { takeSchema } from "./table_schema.ts";
import type { Patterns } from "./table_patterns.ts";

interface CopyingOptions {
  readonly database: Database;
  /** This node's name. */
  readonly self: string;
  readonly peers: Peers;
  readonly patterns: Patterns;
  readonly groups: GroupKeeper;
  readonly clock: Pick<ServerClock, "untilPassed">;
  /** On connections that nothing else uses. */
  readonly dial: Dial;
  /** Resolves once a table, by its OID, may have rows of other nodes; throws `transient` while it may not. */
  readonly awaitKnown: (oid: number) => Promise<void>;
  /** Rows of a table were copied. */
  readonly copied: (table: string, rows: number) => void;
  /** Ends what is received from a sender, and waits for that. */
  readonly dropInbound: (sender: string) => Promise<void>;
  /** Asks a peer what its tables consist of. */
  readonly schemaOf: (peer: string, run: JobRun) => Promise<SchemaItems>;
  /** Tables were created. */
  readonly created: () => Promise<unknown>;
  /** What was noted with the rows is to be looked at. */
  readonly lookAgain: () => void;
  /** Does what leaves the rows here. */
  readonly merging: Merging;
  /** Aborts when the node closes. */
  readonly signal: AbortSignal;
}

/** A copy under way. */
interface CopyRun extends JobRun {
  readonly pace: (bytes: number) => Promise<void>;
}

interface NodePosition {
  readonly node: string;
  readonly lsn: Lsn;
}

/**
 * What the replication origins of further sessions are called, of which each takes a place for good: that of repairs, none
 * of which runs meanwhile, and one more.
 */
const MORE_ORIGINS = ["repair", "copy"] as const;

type Made = Pick<CopyReport, "created" | "left_out">;
const NOTHING_MADE: Made = { created: [], left_out: [] };

/** See the module's head. */
export class Copying implements JobKind<CopyInput> {
  readonly interruptedHint = null;
  readonly #options: CopyingOptions;
  readonly #logger = log("copy");
  /** The copy that has not ended; undefined where there is none. */
  #copy: UnendedCopy | undefined;
  #isRunning = false;
  #made: Made = NOTHING_MADE;
  #waiting = "";

  constructor(options: CopyingOptions) {
    this.#options = options;
  }

  /** Reads what an earlier process left undone. */
  async load(): Promise<void> {
    this.#copy = await this.#read();
  }

  #read(): Promise<UnendedCopy | undefined> {
    return readCopy(this.#query("look for a copy of rows"));
  }

  /** Throws `copying` while the rows of this node are not whole: nothing can be applied to them. */
  requireWhole(): void {
    if (this.isUnderWay) throw this.#notWhole("receive");
  }

  /** Whether they are not. */
  get isUnderWay(): boolean {
    return this.#copy !== undefined && this.#copy.report === undefined;
  }

  #notWhole(doing: string): MmliteError {
    const { self } = this.#options;
    return new MmliteError(
      "copying",
      `Cannot ${doing}: node "${self}" copies its rows from "${this.#copy!.source}" first`,
      { hint: `See \`mmlite status\` on "${self}"` },
    );
  }

  /** What an operator should know. */
  problems(): MmliteError[] {
    if (this.#copy === undefined) return [];
    const { self } = this.#options;
    const { source, report } = this.#copy;
    if (report !== undefined) return [this.#catchingUp(source)];
    if (this.#isRunning) {
      const why = this.#waiting === "" ? "" : `; it waits: ${this.#waiting}`;
      return [
        new MmliteError("transient", `Rows of this node are being copied from "${source}"${why}`, {
          hint: "GET /v1/jobs tells how far it is; until it has ended, write to other nodes",
        }),
      ];
    }
    return [
      new MmliteError(
        "conflict",
        `The rows of this node are not whole: a copy from "${source}" has not ended`,
        {
          hint: `Begin it again: \`mmlite copy --from ${source}\` on "${self}"`,
        },
      ),
    ];
  }

  #catchingUp(source: string): MmliteError {
    if (this.#isRunning) {
      return new MmliteError("transient", `Applications cannot write on this node yet: ${this.#waiting}`, {
        hint: "Until then, write to other nodes",
      });
    }
    return new MmliteError("conflict", "Applications cannot write on this node: a copy has been cut short", {
      hint: `Go on with it: \`mmlite copy --from ${source}\` on "${this.#options.self}"`,
    });
  }

  check(input: CopyInput): void {
    this.#requirePeerNamed(input.from);
    if (!isMerge(input)) return void this.#requireSource(input.from);
    this.#options.merging.check(input);
  }

  async run(input: CopyInput, run: JobRun): Promise<CopyReport> {
    if (isMerge(input)) {
      this.#requireSame(input);
      const made = await this.#createSchema(input, run);
      return { ...await this.#options.merging.run(input, run), ...made };
    }
    this.#isRunning = true;
    const pace = paceOf(
      input.max_rate === undefined ? undefined : parseByteSize(input.max_rate)!,
      run.signal,
    );
    try {
      return await this.#repeat(input, { ...run, pace });
    } finally {
      this.#isRunning = false;
      this.#waiting = "";
      // A cancellation may have met a commit under way.
      this.#copy = await this.#read().catch(() => this.#copy);
    }
  }

  /** Throws `copying` while a copy has not ended: the position in its source is behind the rows here until then. */
  requireEnded(): void {
    if (this.#copy !== undefined) throw this.#notWhole("give rows");
  }

  /** Nothing is received any more, and applications cannot write, when this returns. */
  async #begin({ from, mode }: CopyInput, signal: AbortSignal): Promise<void> {
    const { database, self, patterns, peers, dropInbound } = this.#options;
    this.#requireSource(from);
    await noteComingCopy({ database, self, patterns, signal }, { from, isGivenUp: mode === "replace" });
    this.#copy = { source: from, report: undefined };
    for (const { name } of peers.list()) await dropInbound(name);
  }

  #report({ from, mode }: CopyInput, tables: readonly TakenTable[]): CopyReport {
    const rows = tables.reduce((sum, table) => sum + table.rows, 0);
    return { node: this.#options.self, from, mode, ...this.#made, tables: [...tables], rows, peers: [] };
  }

  /** Nothing is done again that is there: it may be cut short anywhere. */
  async #createSchema({ from, create_schema }: CopyInput, run: JobRun): Promise<Made> {
    if (!create_schema) return NOTHING_MADE;
    const { database, schemaOf, created } = this.#options;
    for (let failures = 0;; failures++) {
      try {
        const items = await schemaOf(from, run);
        let all: string[] = [];
        await takeSchema({ database, signal: run.signal }, items, async (query, made) => {
          all = await run.created(query, made);
        });
        await created();
        return { created: all, left_out: [...items.leftOut] };
      } catch (thrown) {
        const error = toMmliteError(thrown);
        if (run.signal.aborted || error.disposition !== "retry") throw error;
        this.#waiting = error.message;
        await delay(backoffMs(failures), run.signal);
      }
    }
  }

  /** Throws `conflict` where rows cannot be kept as they are not whole. */
  #requireSame({ mode }: CopyInput): void {
    if (this.#copy === undefined) return;
    const { source, report } = this.#copy;
    const why = `a copy from "${source}" has not ended`;
    throw new MmliteError(
      "conflict",
      `Cannot ${mode} the rows of this node: ${report === undefined ? `they are not whole, as ${why}` : why}`,
      report === undefined
        ? { hint: 'Copy them: use the mode "empty" or "replace"' }
        : { hint: `Go on with it first: \`mmlite copy --from ${source}\`` },
    );
  }

  /** Tries until it is done, cancelled, or stands before something that only an operator can change. */
  async #repeat(input: CopyInput, run: CopyRun): Promise<CopyReport> {
    const { progress, signal } = run;
    let hasBegun = false;
    for (let failures = 0;; failures++) {
      try {
        // A connection may have been lost behind a commit that another one sees.
        const copy = await this.#read();
        if (hasBegun && copy === undefined) return this.#ended();
        if (copy?.report !== undefined && (hasBegun || isGoneOnWith(copy, input))) {
          return await this.#goLive(copy, run);
        }
        if (!hasBegun) {
          this.#made = await this.#createSchema(input, run);
          await this.#begin(input, signal);
        }
        hasBegun = true;
        progress.restart();
        await this.#takeRows(input, run);
        failures = 0;
      } catch (thrown) {
        const error = toMmliteError(thrown);
        if (signal.aborted || error.disposition !== "retry") throw error;
        this.#waiting = error.message;
        this.#logger.warn("{error}; it is tried again", { error: error.message });
        await delay(backoffMs(failures), signal);
      }
    }
  }

  /** All rows have come: applications may write once what was committed elsewhere meanwhile is applied. */
  async #goLive(copy: UnendedCopy, { signal, succeed }: CopyRun): Promise<CopyReport> {
    const { database, peers, groups } = this.#options;
    const waiting = (sentence: string) => void (this.#waiting = sentence);
    // Before anything is received again.
    const heard = heardUntil(peers, groups);
    this.#copy = copy;
    this.#options.lookAgain();
    peers.list().forEach((peer) => peer.askAgain());
    await awaitPeers({ peers, groups, heard, waiting, signal });
    const alongside = (query: Query) => succeed(query, copy.report as CopyReport);
    // Its session would not know that the position has moved.
    await this.#options.dropInbound(copy.source);
    await openToApplications(database.target, { source: copy.source, alongside, waiting, signal });
    return this.#ended();
  }

  #ended(): CopyReport {
    const report = this.#copy!.report as CopyReport;
    this.#copy = undefined;
    return report;
  }

  async #takeRows(input: CopyInput, { progress, signal, pace }: CopyRun): Promise<void> {
    const { database, self, patterns, dial, clock } = this.#options;
    const { from } = input;
    const query = this.#query(`copy rows from "${from}"`);
    const { name, url } = this.#requireSource(from);
    const tables = await readComparableTables(query, patterns);
    for (const { oid } of tables) await this.#options.awaitKnown(oid);
    const own = [];
    for (const table of tables) own.push({ table, columns: await readHashedColumns(query, table.oid) });
    const { asked, applied } = await this.#applied(query);
    applied.push({ node: self, lsn: (await setMark(query)).lsn });
    const dialCopy = () => dial({ name, url }, "copy", signal);
    const channel = await dialCopy();
    this.#waiting = "";
    await takeCopy(channel, {
      untilPassed: (at) => clock.untilPassed(at),
      signal,
      ...{ self, source: from, tables: own, asked, applied },
      isVersioned: database.facts.trackCommitTimestamp,
      openSession: async (node) => this.#openSession(node, await this.#originOf(query, node), signal),
      dialMore: dialCopy,
      openMore: async (number) => {
        const originName = `mmlite:${self}:${MORE_ORIGINS[number]}`;
        await ensureNamedOrigin(query, originName);
        return await this.#openSession(`${self} (${MORE_ORIGINS[number]})`, originName, signal);
      },
      fewer: (thrown) =>
        void this.#logger.info("Rows are copied by fewer sessions: {error}", {
          error: toMmliteError(thrown).message,
        }),
      pace,
      originOf: (node) => this.#originOf(query, node),
      closeSession: (client) => closeClient(client),
      report: (tables) => this.#report(input, tables),
      progress: {
        bytes: (read) => progress.bytes = read,
        waiting: (sentence) => this.#waiting = sentence,
        expect: (rows) => {
          this.#waiting = "";
          progress.expect(rows);
        },
        read: (table, rows) => {
          progress.read(rows);
          this.#options.copied(table, rows);
        },
      },
    });
  }

  async #openSession(origin: string, originName: string, signal: AbortSignal): Promise<Client> {
    const target = this.#options.database.streamTarget;
    return (await openApplySession({ target, origin, originName, signal })).client;
  }

  /**
   * How far each peer is applied here, as it is stored, and with what was copied of it: that it does not send again.
   * Throws `transient` while one has not said where its stream begins.
   */
  async #applied(query: Query): Promise<{ asked: NodePosition[]; applied: NodePosition[] }> {
    const progress = new Map((await readProgress(query)).map(({ origin, lsn }) => [origin, lsn]));
    const asked: NodePosition[] = [];
    const applied: NodePosition[] = [];
    for (const { name, removing } of this.#options.peers.list()) {
      if (removing) continue;
      const lsn = progress.get(name);
      if (lsn === undefined) throw notBegun(name);
      asked.push({ node: name, lsn });
      const copied = (await readPeer(query, name))?.copied?.until ?? ZERO_LSN;
      applied.push({ node: name, lsn: maxLsn(lsn, copied) });
    }
    return { asked, applied };
  }

  async #originOf(query: Query, node: string): Promise<string> {
    const { self } = this.#options;
    if (node !== self) {
      await ensureOrigin(query, node);
      return originName(node);
    }
    // As what this node removes by itself.
    const name = `mmlite:${self}`;
    await ensureNamedOrigin(query, name);
    return name;
  }

  #requirePeerNamed(from: string): { readonly name: string; readonly url: string | null } {
    const peer = this.#options.peers.find(from);
    if (peer !== undefined && !peer.removing) return peer;
    throw new MmliteError("invalid_input", `Cannot copy rows from "${from}": there is no peer of that name`, {
      hint: "`mmlite peers list` shows them all",
    });
  }

  #requireSource(from: string): { readonly name: string; readonly url: string } {
    const peer = this.#requirePeerNamed(from);
    if (peer.url !== null) return { name: peer.name, url: peer.url };
    throw new MmliteError("conflict", `Cannot copy rows from "${from}": it cannot be dialled from here`, {
      hint: "Copy from a peer that has an address",
    });
  }

  #query(doing: string): Query {
    return this.#options.database.control.query(doing);
  }
}

function notBegun(peer: string): MmliteError {
  return new MmliteError(
    "transient",
    `Cannot copy rows: peer "${peer}" has not said yet where its changes begin`,
    { hint: `Let it connect to this node (\`mmlite peers list\` on "${peer}"), or remove it here` },
  );
}

/** Whether what is asked for is the rest of a copy of which all rows have come. */
function isGoneOnWith({ source, report }: UnendedCopy, { from, mode }: CopyInput): boolean {
  return source === from && (report as CopyReport).mode === mode;
}
