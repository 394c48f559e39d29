/**
 * Takes rows on one channel into one session: each part of a table in a transaction, under the replication origin of the
 * node that wrote it. Several do so at once.
 */
import { Buffer } from "node:buffer";
import { MmliteError } from "../errors.ts";
import type { Client } from "../pg/client.ts";
import { changeOrigin, type CopyVersion, CopyWriter } from "../pg/copy_target.ts";
import { mapPostgresError } from "../pg/errors.ts";
import { type Query, queryWith } from "../pg/query.ts";
import type { LocalTable } from "../pg/tables.ts";
import { formatTimestamp } from "../pg/timestamp.ts";
import { formatTableName, type TableName } from "../table_name.ts";
import type { Lines } from "../wire/lines.ts";
import { type CopyAnswer, parseCopyAnswer } from "./messages.ts";
import { VersionedRowReader, type VersionedRows } from "./versioned_rows.ts";

/** A table that rows are copied into, and the columns of them. */
export interface TargetTable {
  readonly table: LocalTable;
  readonly columns: readonly string[];
}

/** What taking rows needs. */
export interface RowTakerOptions {
  readonly lines: Lines;
  /** The session that writes. */
  readonly client: Client;
  /** The node that the rows come from. */
  readonly source: string;
  readonly isVersioned: boolean;
  /**
   * The replication origin of a node, which exists when this returns; the session has that of the source. Left out where
   * it has one that is no node's: then all rows are older than anything that can come, and it makes no difference.
   */
  readonly originOf?: (node: string) => Promise<string>;
  /** What is waited for. */
  readonly waiting: (sentence: string) => void;
  /** Rows of a table have come, about as many. */
  readonly read: (table: string, rows: number) => void;
  /** Resolves when as many bytes may be taken. */
  readonly pace: (bytes: number) => Promise<void>;
}

/** Where parts go. */
export interface TakenParts {
  /** As the source counts them. */
  readonly tables: readonly TargetTable[];
  /** So many rows of a part have been committed. */
  readonly took: (table: number, rows: number) => void;
}

/** See the module's head. */
export class RowTaker {
  readonly #options: RowTakerOptions;
  readonly #query: Query;
  readonly #writer: CopyWriter;
  /** Whose origin the session has. */
  #node: string;

  constructor(options: RowTakerOptions) {
    const { client, isVersioned, source } = options;
    this.#options = options;
    this.#query = queryWith(client);
    this.#writer = new CopyWriter(client, this.#query, { isVersioned });
    this.#node = source;
  }

  /** What the source says next. */
  async next(): Promise<CopyAnswer> {
    const { lines, source, waiting } = this.#options;
    const line = await lines.read();
    if (line === undefined) {
      throw new MmliteError("unreachable", `Cannot copy the rows of node "${source}": it ended the stream`);
    }
    const answer = parseCopyAnswer(line, source);
    if ("waiting" in answer) waiting(answer.waiting);
    return answer;
  }

  /** Takes parts from `answer` on; returns, when there are no more, how many were given on all channels, if that is said. */
  async takeParts(answer: CopyAnswer, { tables, took }: TakenParts): Promise<number | undefined> {
    for (;; answer = await this.next()) {
      if ("part" in answer) took(answer.part.table, await this.#takePart(answer.part, tables));
      else if ("end" in answer && answer.end === "all") return answer.parts;
      else if (!("waiting" in answer)) throw this.strange();
    }
  }

  /** It lost its order. */
  strange(): MmliteError {
    const { source } = this.#options;
    return new MmliteError("protocol", `Cannot copy the rows of node "${source}": it lost its order`);
  }

  async #takePart(
    { table, version, binary }: Extract<CopyAnswer, { part: unknown }>["part"],
    tables: readonly TargetTable[],
  ): Promise<number> {
    const into = tables[table];
    if (into === undefined) throw this.strange();
    try {
      return await (version === null
        ? this.#takeVersioned(into)
        : this.#takeAlike(into, { version, binary }));
    } catch (thrown) {
      throw mapPostgresError(thrown, `copy rows into ${formatTableName(into.table)}`);
    }
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
    if (this.#options.originOf === undefined) throw this.strange();
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
    const from = node ?? this.#options.source;
    await this.#become(from);
    await this.#writer.begin({ table, columns, binary: false });
    await this.#writer.write([Buffer.concat(lines)]);
    const times = { at: formatTimestamp(last), first: formatTimestamp(first) };
    return await this.#writer.end({ node: from, ...times, entries });
  }

  /** The rows of the part that has begun. */
  async *#data(table: TableName): AsyncGenerator<Uint8Array[]> {
    const { lines, pace, read } = this.#options;
    const name = formatTableName(table);
    for (;;) {
      const answer = await this.next();
      if ("data" in answer) {
        await pace(answer.data);
        yield await lines.readPieces(answer.data);
        read(name, answer.rows);
      } else if ("end" in answer && answer.end === "part") return;
      else if (!("waiting" in answer)) throw this.strange();
    }
  }

  async #become(node: string): Promise<void> {
    const { originOf } = this.#options;
    if (originOf === undefined || node === this.#node) return;
    await changeOrigin(this.#query, await originOf(node));
    this.#node = node;
  }
}
