/**
 * Takes the rows of another node into this one, while nothing else is applied here.
 *
 * Whatever was here goes first, so that the work may be begun anew after anything that cut it short. Every row is
 * written under the replication origin of a node that wrote it, or of the one that it comes from: none leaves this node.
 */
import { Buffer } from "node:buffer";
import { MmliteError } from "../errors.ts";
import type { Lsn } from "../lsn.ts";
import { type CopiedNote, NOTE_KINDS, writeNote } from "../pg/copy_notes.ts";
import { changeOrigin, type CopyVersion, CopyWriter, endCopy, truncateTables } from "../pg/copy_target.ts";
import { delay } from "../backoff.ts";
import { type Client, destroyClient } from "../pg/client.ts";
import { isLockTrouble, mapPostgresError } from "../pg/errors.ts";
import type { LocalTable } from "../pg/tables.ts";
import type { HashedColumn } from "../pg/row_hash.ts";
import { type Query, queryWith } from "../pg/query.ts";
import { formatTimestamp } from "../pg/timestamp.ts";
import { formatTableName, tableKey, type TableName } from "../table_name.ts";
import type { Channel } from "../wire/channel.ts";
import { Lines } from "../wire/lines.ts";
import { type CopyAnswer, type CopySnapshot, parseCopyAnswer, toRequest } from "./messages.ts";
import { VersionedRowReader, type VersionedRows } from "./versioned_rows.ts";

/** A table of this node, and the columns that it takes. */
export interface OwnTable {
  readonly table: LocalTable;
  readonly columns: readonly HashedColumn[];
}

/** A table that rows are copied into, and the columns of them. */
interface TargetTable {
  readonly table: LocalTable;
  readonly columns: readonly string[];
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
  /** How far each other node is applied here, and where this one's own WAL ends. */
  readonly applied: readonly { readonly node: string; readonly lsn: Lsn }[];
  /** Opens the session that writes, under the origin of a node; {@link TakingPorts.originOf} names it. */
  readonly openSession: (node: string) => Promise<Client>;
  /** The replication origin of a node, which exists when this returns. */
  readonly originOf: (node: string) => Promise<string>;
  readonly closeSession: (client: Client) => Promise<void>;
  /** See `ServerClock`. */
  readonly untilPassed: (at: bigint) => number;
  readonly signal: AbortSignal;
  readonly progress: TakingProgress;
  /** Puts on record what was copied, in the transaction that ends the copy. */
  readonly record: (query: Query, tables: readonly TakenTable[]) => Promise<void>;
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

/**
 * Takes all rows over a channel to the source. When it returns they are on disk, and so is what is received next.
 * Throws what stands in the way; then nothing else may be applied here until it was done again.
 */
export async function takeCopy(channel: Channel, ports: TakingPorts): Promise<TakenTable[]> {
  const { signal } = ports;
  const lines = new Lines(channel);
  let client: Client | undefined;
  const breakOff = () => {
    lines.close();
    if (client !== undefined) destroyClient(client);
  };
  signal.addEventListener("abort", breakOff, { once: true });
  if (signal.aborted) breakOff();
  ports.progress.bytes(() => lines.bytes);
  try {
    client = await ports.openSession(ports.source);
    return await new Taking(lines, client, ports).run();
  } catch (thrown) {
    if (signal.aborted) throw new MmliteError("aborted", "Cannot copy the rows: stopped");
    throw thrown;
  } finally {
    signal.removeEventListener("abort", breakOff);
    lines.close();
    if (client !== undefined) await ports.closeSession(client);
  }
}

class Taking {
  readonly #lines: Lines;
  readonly #query: Query;
  readonly #ports: TakingPorts;
  readonly #writer: CopyWriter;
  /** The tables of this node by their {@link tableKey}. */
  readonly #own: ReadonlyMap<string, OwnTable>;
  /** Whose origin the session has. */
  #node: string;

  constructor(lines: Lines, client: Client, ports: TakingPorts) {
    this.#lines = lines;
    this.#ports = ports;
    this.#query = queryWith(client);
    this.#node = ports.source;
    this.#own = new Map(ports.tables.map((one) => [tableKey(one.table), one]));
    this.#writer = new CopyWriter(client, this.#query, { isVersioned: ports.isVersioned });
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
    const rows = tables.map(() => 0);
    let answer = await this.#takeNotes();
    for (; !isEnd(answer); answer = await this.#next()) {
      if ("part" in answer) rows[answer.part.table] += await this.#takePart(answer.part, tables);
    }
    const taken = tables.map(({ table }, i) => ({ table: formatTableName(table), rows: rows[i] }));
    const positions = {
      source,
      snapshot: snapshot.sees,
      untilLsn: snapshot.until,
      applied: snapshot.applied,
    };
    await this.#awaitClock(snapshot.at);
    await this.#end(() =>
      endCopy(
        this.#query,
        { ...positions, asked: applied },
        () => this.#ports.record(this.#query, taken),
      )
    );
    return taken;
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

  /** Somebody may read a table at its end, and hold it for long: what was copied is not thrown away for that. */
  async #end(work: () => Promise<void>): Promise<void> {
    for (;;) {
      try {
        return await work();
      } catch (thrown) {
        if (!isLockTrouble(thrown) || this.#ports.signal.aborted) throw thrown;
        this.#ports.progress.waiting(
          "all rows have come, and a table is held by a session (pg_locks shows it)",
        );
      }
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
      const answer = await this.#next();
      if ("snapshot" in answer) return answer.snapshot;
      if (!("waiting" in answer)) throw this.#strange();
    }
  }

  /** Takes what is noted of rows, which comes before them; returns what follows. */
  async #takeNotes(): Promise<CopyAnswer> {
    await this.#query("BEGIN");
    for (;;) {
      const answer = await this.#next();
      if (!("waiting" in answer)) this.#ports.progress.waiting("");
      if ("note" in answer) await writeNote(this.#query, toNote(answer.note));
      else if (!("waiting" in answer)) {
        await this.#query("COMMIT");
        return answer;
      }
    }
  }

  async #next(): Promise<CopyAnswer> {
    const { source, progress } = this.#ports;
    const line = await this.#lines.read();
    if (line === undefined) {
      throw new MmliteError("unreachable", `Cannot copy the rows of node "${source}": it ended the stream`);
    }
    const answer = parseCopyAnswer(line, source);
    if ("waiting" in answer) progress.waiting(answer.waiting);
    return answer;
  }

  async #takePart(
    { table, version, binary }: Extract<CopyAnswer, { part: unknown }>["part"],
    tables: readonly TargetTable[],
  ): Promise<number> {
    const into = tables[table];
    if (into === undefined) throw this.#strange();
    return await this.#trying(
      `copy rows into ${formatTableName(into.table)}`,
      () => version === null ? this.#takeVersioned(into) : this.#takeAlike(into, { version, binary }),
    );
  }

  /** Rows that all have one version. */
  async #takeAlike(
    { table, columns }: TargetTable,
    { version, binary }: { readonly version: CopyVersion; readonly binary: boolean },
  ): Promise<number> {
    await this.#become(version.node);
    await this.#writer.begin({ table, columns, binary });
    for await (const pieces of this.#data(table)) await this.#writer.write(pieces);
    return await this.#writer.end(version);
  }

  /** Rows that say their versions. */
  async #takeVersioned(into: TargetTable): Promise<number> {
    const reader = new VersionedRowReader();
    let rows = 0;
    const write = async (groups: readonly VersionedRows[]) => {
      for (const group of groups) rows += await this.#writeGroup(into, group);
    };
    for await (const pieces of this.#data(into.table)) {
      for (const bytes of pieces) await write(reader.push(bytes));
    }
    await write(reader.finish());
    return rows;
  }

  async #writeGroup(
    { table, columns }: TargetTable,
    { node, first, last, entries, lines }: VersionedRows,
  ): Promise<number> {
    const from = node ?? this.#ports.source;
    await this.#become(from);
    await this.#writer.begin({ table, columns, binary: false });
    await this.#writer.write([Buffer.concat(lines)]);
    const times = { at: formatTimestamp(last), first: formatTimestamp(first) };
    return await this.#writer.end({ node: from, ...times, entries });
  }

  /** The rows of the part that has begun. */
  async *#data(table: TableName): AsyncGenerator<Uint8Array[]> {
    const name = formatTableName(table);
    for (;;) {
      const answer = await this.#next();
      if ("data" in answer) {
        yield await this.#lines.readPieces(answer.data);
        this.#ports.progress.read(name, answer.rows);
      } else if ("end" in answer && answer.end === "part") return;
      else if (!("waiting" in answer)) throw this.#strange();
    }
  }

  async #become(node: string): Promise<void> {
    if (node === this.#node) return;
    await changeOrigin(this.#query, await this.#ports.originOf(node));
    this.#node = node;
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

  #strange(): MmliteError {
    return new MmliteError(
      "protocol",
      `Cannot copy the rows of node "${this.#ports.source}": it lost its order`,
    );
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

function isEnd(answer: CopyAnswer): boolean {
  return "end" in answer && answer.end === "all";
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
