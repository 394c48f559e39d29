/**
 * Takes the rows of another node into this one, while nothing else is applied here.
 *
 * Whatever was here goes first, so that the work may be begun anew after anything that cut it short. Every row is
 * written under the replication origin of a node that wrote it, or of the one that it comes from: none leaves this node.
 */
import { delay } from "../backoff.ts";
import { MmliteError } from "../errors.ts";
import type { Lsn } from "../lsn.ts";
import { type Client, destroyClient } from "../pg/client.ts";
import { type CopiedNote, NOTE_KINDS, writeNote } from "../pg/copy_notes.ts";
import { noteWhole, truncateTables } from "../pg/copy_target.ts";
import { mapPostgresError } from "../pg/errors.ts";
import { type Query, queryWith } from "../pg/query.ts";
import type { HashedColumn } from "../pg/row_hash.ts";
import type { LocalTable } from "../pg/tables.ts";
import { formatTableName, tableKey } from "../table_name.ts";
import type { Channel } from "../wire/channel.ts";
import { Lines } from "../wire/lines.ts";
import { type CopyAnswer, type CopySnapshot, toMoreRequest, toRequest } from "./messages.ts";
import { RowTaker, type TakenParts, type TargetTable } from "./row_taker.ts";

/** A table of this node, and the columns that it takes. */
export interface OwnTable {
  readonly table: LocalTable;
  readonly columns: readonly HashedColumn[];
}

/** What taking needs of the rest of the node. */
export interface TakingPorts {
  /** This node's name. */
  readonly self: string;
  /** The node that the rows come from. */
  readonly source: string;
  readonly isVersioned: boolean;
  /** The tables that this node replicates. */
  readonly tables: readonly OwnTable[];
  /** How far each other node is applied here, as it is stored. */
  readonly asked: readonly { readonly node: string; readonly lsn: Lsn }[];
  /** The same with what was copied of it, and where this one's own WAL ends. */
  readonly applied: readonly { readonly node: string; readonly lsn: Lsn }[];
  /** Opens the session that writes, under the origin of a node; {@link TakingPorts.originOf} names it. */
  readonly openSession: (node: string) => Promise<Client>;
  /** The replication origin of a node, which exists when this returns. */
  readonly originOf: (node: string) => Promise<string>;
  readonly closeSession: (client: Client) => Promise<void>;
  /** Another channel to the source. */
  readonly dialMore: () => Promise<Channel>;
  /** Another session that writes, under an origin of its own. */
  readonly openMore: (number: number) => Promise<Client>;
  /** There cannot be as many sessions or channels. */
  readonly fewer: (thrown: unknown) => undefined;
  /** Resolves when as many bytes may be taken. */
  readonly pace: (bytes: number) => Promise<void>;
  /** See `ServerClock`. */
  readonly untilPassed: (at: bigint) => number;
  readonly signal: AbortSignal;
  readonly progress: TakingProgress;
  /** What is kept of what was copied, with the note that all of it has come. */
  readonly report: (tables: readonly TakenTable[]) => unknown;
}

/** Is told how far it is. */
export interface TakingProgress {
  readonly bytes: (read: () => number) => void;
  /** What is waited for. */
  readonly waiting: (sentence: string) => void;
  /** How many rows there are, about. */
  readonly expect: (rows: number) => void;
  /** Rows of a table have come, about as many. */
  readonly read: (table: string, rows: number) => void;
}

/** What was copied of a table. */
export interface TakenTable {
  readonly table: string;
  readonly rows: number;
}

/** How many columns an error names. */
const MAX_NAMED_COLUMNS = 10;
/** How often the clock is looked at, milliseconds. */
const CLOCK_LOOK_MS = 1_000;

/** Channels that are opened beside the first, each with a session; what takes no longer than a moment needs none. */
const MORE_CHANNELS = 2;
const FEW_BYTES = 0x40_0000;

/**
 * Takes all rows over a channel to the source. When it returns they are on disk, and so is where
 * what is received next begins.
 * Throws what stands in the way; then nothing else may be applied here until it was done again.
 */
export async function takeCopy(channel: Channel, ports: TakingPorts): Promise<TakenTable[]> {
  const ends = new Ends();
  const breakOff = () => ends.breakOff();
  const { signal } = ports;
  signal.addEventListener("abort", breakOff, { once: true });
  try {
    const lines = ends.addChannel(channel);
    ports.progress.bytes(() => ends.bytes);
    if (signal.aborted) breakOff();
    const client = ends.addSession(await ports.openSession(ports.source));
    return await new Taking(lines, client, { ...ports, ends }).run();
  } catch (thrown) {
    if (signal.aborted) throw new MmliteError("aborted", "Cannot copy the rows: stopped");
    throw ends.reason ?? thrown;
  } finally {
    signal.removeEventListener("abort", breakOff);
    ends.breakOff();
    await Promise.all(ends.sessions.map(ports.closeSession));
  }
}

/** All channels and sessions of a copy: they live and end together. */
class Ends {
  readonly sessions: Client[] = [];
  readonly #lines: Lines[] = [];
  #isOver = false;
  /** What broke them off. */
  reason: unknown;

  get isOver(): boolean {
    return this.#isOver;
  }

  /** Bytes that came and went. */
  get bytes(): number {
    return this.#lines.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  addChannel(channel: Channel): Lines {
    const lines = new Lines(channel);
    this.#lines.push(lines);
    if (this.#isOver) lines.close();
    return lines;
  }

  addSession(client: Client): Client {
    this.sessions.push(client);
    if (this.#isOver) destroyClient(client);
    return client;
  }

  breakOff(reason?: unknown): void {
    this.reason ??= reason;
    if (this.#isOver) return;
    this.#isOver = true;
    for (const lines of this.#lines) lines.close();
    for (const client of this.sessions) destroyClient(client);
  }
}

class Taking {
  readonly #lines: Lines;
  readonly #query: Query;
  readonly #ports: TakingPorts & { readonly ends: Ends };
  readonly #rows: RowTaker;
  /** Opens further channels when it is time. */
  #beginMore = () => {};
  /** The tables of this node by their {@link tableKey}. */
  readonly #own: ReadonlyMap<string, OwnTable>;

  constructor(lines: Lines, client: Client, ports: TakingPorts & { readonly ends: Ends }) {
    this.#lines = lines;
    this.#ports = ports;
    this.#query = queryWith(client);
    this.#own = new Map(ports.tables.map((one) => [tableKey(one.table), one]));
    this.#rows = this.#takerOf(lines, client, ports.originOf);
  }

  async run(): Promise<TakenTable[]> {
    const { source, applied, progress } = this.#ports;
    await this.#lines.write(toRequest({
      applied: [...applied],
      tables: this.#ports.tables.map(({ table: { schema, name }, columns }) => ({
        ...{ schema, name },
        columns: [...columns],
      })),
    }));
    const snapshot = await this.#snapshot();
    const tables = snapshot.tables.map((table) => this.#targetOf(table));
    this.#requireApplied(snapshot);
    progress.expect(snapshot.tables.reduce((rows, table) => rows + table.rows, 0));
    await this.#trying(
      "empty the tables",
      () => truncateTables(this.#query, tables.map(({ table }) => table)),
    );
    const rows = await this.#takeRows(await this.#takeNotes(), { snapshot, tables });
    const taken = tables.map(({ table }, i) => ({ table: formatTableName(table), rows: rows[i] }));
    const positions = {
      source,
      snapshot: snapshot.sees,
      untilLsn: snapshot.until,
      applied: snapshot.applied,
    };
    await this.#awaitClock(snapshot.at);
    const { report, asked } = this.#ports;
    await this.#trying(
      "note that all rows have come",
      () => noteWhole(this.#query, { ...positions, asked }, report(taken)),
    );
    return taken;
  }

  /** Takes all rows; when it returns how many of each table, all transactions of all sessions have been committed. */
  async #takeRows(
    first: CopyAnswer,
    { snapshot, tables }: { readonly snapshot: CopySnapshot; readonly tables: readonly TargetTable[] },
  ): Promise<number[]> {
    const { ends } = this.#ports;
    const rows = tables.map(() => 0);
    let parts = 0;
    const work = {
      ...{ snapshot, tables },
      took: (table: number, more: number) => {
        rows[table] += more;
        parts++;
      },
    };
    const others: Promise<void>[] = [];
    this.#beginMore = () => {
      if (ends.bytes < FEW_BYTES || others.length > 0) return;
      for (let number = 0; number < MORE_CHANNELS; number++) others.push(this.#takeMore(number, work));
    };
    const given = await this.#rows.takeParts(first, work);
    await Promise.all(others);
    if (ends.reason !== undefined) throw ends.reason;
    if (given !== parts) throw this.#rows.strange();
    return rows;
  }

  /** Takes rows on another channel into another session; never throws. */
  async #takeMore(
    number: number,
    work: TakenParts & { readonly snapshot: CopySnapshot },
  ): Promise<void> {
    const { ends, openMore, dialMore, fewer } = this.#ports;
    const open = async () => {
      const client = ends.addSession(await openMore(number));
      return { client, lines: ends.addChannel(await dialMore()) };
    };
    const opened = await open().catch(fewer);
    if (opened === undefined) return;
    // What is given from here on is given to nobody else.
    try {
      const taker = this.#takerOf(opened.lines, opened.client);
      await opened.lines.write(toMoreRequest(work.snapshot.id));
      await taker.takeParts(await taker.next(), work);
      await opened.lines.end();
    } catch (thrown) {
      ends.breakOff(thrown);
    }
  }

  #takerOf(lines: Lines, client: Client, originOf?: TakingPorts["originOf"]): RowTaker {
    const { source, isVersioned, progress, pace } = this.#ports;
    return new RowTaker({
      ...{ lines, client, source, isVersioned, originOf, pace },
      waiting: progress.waiting,
      read: (table, rows) => {
        progress.read(table, rows);
        this.#beginMore();
      },
    });
  }

  /** What is written here next must not be older than what was copied. */
  async #awaitClock(at: bigint): Promise<void> {
    const { untilPassed, progress, signal } = this.#ports;
    for (let ms = untilPassed(at); ms > 0; ms = untilPassed(at)) {
      progress.waiting(`the clock of this server is ${Math.ceil(ms)} ms behind what was copied`);
      await delay(Math.min(ms, CLOCK_LOOK_MS), signal);
      if (signal.aborted) throw new MmliteError("aborted", "Cannot copy the rows: stopped");
    }
  }

  async #trying<Result>(doing: string, work: () => Promise<Result>): Promise<Result> {
    try {
      return await work();
    } catch (thrown) {
      throw mapPostgresError(thrown, doing);
    }
  }

  async #snapshot(): Promise<CopySnapshot> {
    for (;;) {
      const answer = await this.#rows.next();
      if ("snapshot" in answer) return answer.snapshot;
      if (!("waiting" in answer)) throw this.#rows.strange();
    }
  }

  /** Takes what is noted of rows, which comes before them; returns what follows. */
  async #takeNotes(): Promise<CopyAnswer> {
    await this.#query("BEGIN");
    for (;;) {
      const answer = await this.#rows.next();
      if (!("waiting" in answer)) this.#ports.progress.waiting("");
      if ("note" in answer) await writeNote(this.#query, toNote(answer.note));
      else if (!("waiting" in answer)) {
        await this.#query("COMMIT");
        return answer;
      }
    }
  }

  #targetOf({ schema, name, columns }: CopySnapshot["tables"][number]): TargetTable {
    const here = this.#own.get(tableKey({ schema, name }));
    const missing = here === undefined
      ? []
      : columns.filter((column) => !here.columns.some(({ name }) => name === column));
    if (here !== undefined && missing.length === 0) return { table: here.table, columns };
    const table = formatTableName({ schema, name });
    const what = here === undefined
      ? `table ${table}, which node "${this.#ports.source}" replicates, is missing here or not replicated`
      : `table ${table} lacks ${missing.slice(0, MAX_NAMED_COLUMNS).join(", ")} here`;
    throw new MmliteError("schema_mismatch", `Cannot copy the rows: ${what}`, {
      hint: "Create here what is missing, or leave the table out on all nodes with --exclude",
    });
  }

  /** What is received from a node next must follow what was copied. */
  #requireApplied({ applied }: CopySnapshot): void {
    const { self, source } = this.#ports;
    const unknown = applied.find(({ node }) =>
      node !== self && node !== source && !this.#ports.applied.some((one) => one.node === node)
    );
    if (unknown !== undefined) throw notAPeer(unknown.node, source);
    for (const { node } of this.#ports.applied) {
      if (node === source || node === self || applied.some((one) => one.node === node)) continue;
      throw new MmliteError(
        "conflict",
        `Cannot copy the rows of node "${source}": nothing of node "${node}", a peer of this one, is applied there`,
        { hint: `Make "${node}" and "${source}" peers of each other, or copy from another node` },
      );
    }
  }
}

function notAPeer(node: string, source: string): MmliteError {
  return new MmliteError(
    "transient",
    `Cannot copy the rows of node "${source}": it has rows of node "${node}", which is no peer of this node`,
    {
      hint:
        `Make this node and "${node}" peers of each other first, or remove "${node}" on "${source}" if it is gone`,
    },
  );
}

function toNote({ kind, row }: Extract<CopyAnswer, { note: unknown }>["note"]): CopiedNote {
  const known = NOTE_KINDS.find((one) => one === kind);
  if (known !== undefined) return { kind: known, row };
  throw new MmliteError(
    "protocol",
    `Cannot copy what is noted of rows: there is no kind ${JSON.stringify(kind)}`,
    {
      hint: "Run the same version of mmlite on both nodes",
    },
  );
}
