/**
 * Rows of one snapshot as COPY prints them, each with the version that it has, read on a connection of its own: several
 * read the same snapshot at once.
 */
// @ts-types="@types/pg"
import pg from "pg";
import { MmliteError } from "../errors.ts";
import { formatTableName, type TableName } from "../table_name.ts";
import { type Client, closeClient } from "./client.ts";
import { ColumnTypes } from "./column_types.ts";
import type { CopiedBytes } from "./copy_data.ts";
import { type CopiedNote, NOTES_OF_SNAPSHOT, readNotes } from "./copy_notes.ts";
import { copyOut } from "./copy_out.ts";
import { type Query, queryWith } from "./query.ts";
import { readLocalTable } from "./relation.ts";
import { type HashedColumn, readHashedColumns, rowsOf } from "./row_hash.ts";
import { estimateRows, keyHash, leavesOf } from "./scanned_table.ts";
import { sentText } from "./sent_text.ts";
import type { LocalTable } from "./tables.ts";

/** A table that is copied. */
export interface CopiedTable extends TableName {
  /** The columns whose values are copied, by name. */
  readonly columns: readonly HashedColumn[];
  /** By what the planner knows, or what was counted of changes. */
  readonly estimatedRows: number;
}

/** Which rows of a range are copied together, and the version that they have. */
export type CopiedPart =
  /** Those that nothing older than them can meet any more, or of which no version is known: as of one time. */
  | { readonly kind: "old"; readonly areAll: boolean }
  /** Those that one transaction wrote here. */
  | { readonly kind: "one"; readonly xid: string; readonly node: string; readonly at: string }
  /** All others: before its columns each row has its node, its time in microseconds and the hash of its key. */
  | { readonly kind: "each"; readonly except: readonly string[] };

/** A transaction that wrote at least as many rows is copied by itself: they need no hashes. */
const MANY_ROWS = 10_000;
/** At most as many of them: the table is read once for each. */
const MAX_ALONE = 16;

/** Rows that are read in one transaction: those of an ordinary table or a partition, or of some of its pages. */
export interface CopiedRange {
  /** Where they lie. */
  readonly table: LocalTable;
  /** A condition on the place of a row `t`; empty for all. */
  readonly pages: string;
  /** Rows lie elsewhere when this has changed. */
  readonly file: string;
}

/** What a file of rows is called, of an `oid`; a foreign table has none. */
const FILE = "coalesce(pg_relation_filenode(oid)::text, '')";
/** From this release on the server reads a range of pages without reading the others. */
const PAGE_RANGE_VERSION = 140_000;
/** Pages that are read in one transaction, at least: 64 MiB, a second's work. */
const RANGE_PAGES = 0x2000;
/** Most ranges of a table or partition: each is a transaction where it comes to. */
const MAX_RANGES = 1_024;

/** See the module's head. */
export class CopyReader {
  readonly #client: Client;
  readonly #query: Query;
  readonly #snapshot: string;
  readonly #facts: SourceFacts;
  #isReading = false;

  /** Takes a connection, which {@link CopyReader.close} closes, and the name of an exported snapshot. */
  constructor(client: Client, { snapshot, ...facts }: SourceFacts & { readonly snapshot: string }) {
    this.#client = client;
    this.#query = queryWith(client);
    this.#snapshot = snapshot;
    this.#facts = facts;
  }

  async close(): Promise<void> {
    await closeClient(this.#client);
  }

  /** What is copied of a table. */
  async describe(table: LocalTable): Promise<CopiedTable> {
    const { schema, name } = table;
    return {
      ...{ schema, name, estimatedRows: await estimateRows(this.#query, table) },
      columns: await readHashedColumns(this.#query, table.oid),
    };
  }

  /** Begins a transaction that has the snapshot; it ends what one before it has locked. */
  async begin(): Promise<void> {
    await this.end();
    await this.#query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    this.#isReading = true;
    await this.#query(`SET TRANSACTION SNAPSHOT ${literal(this.#snapshot)}`);
  }

  /** Ends it. */
  async end(): Promise<void> {
    if (this.#isReading) await this.#query("COMMIT");
    this.#isReading = false;
  }

  /**
   * Throws `transient` where a table was altered since the snapshot, within a transaction: one that was
   * rewritten for it is empty in older snapshots. From here on nobody alters it. `query` runs outside of the snapshot.
   */
  async requireUnchanged(table: LocalTable, query: Query): Promise<void> {
    await this.#query(`SELECT FROM ${rowsOf(table)} LIMIT 0`);
    const shape =
      `SELECT concat((SELECT json_agg(json_build_array(attnum, attname, xmin::text, atttypid, atttypmod, attisdropped) ORDER BY attnum)
      FROM pg_attribute WHERE attrelid = ${table.oid} AND attnum > 0)::text, (SELECT json_agg(d.xmin::text ORDER BY adnum)
      FROM pg_attrdef d WHERE adrelid = ${table.oid})::text) AS columns`;
    const [[then], [now]] = [await this.#query(shape), await query(shape)];
    if (then.columns === now.columns) return;
    throw new MmliteError(
      "transient",
      `Cannot give the rows: table ${formatTableName(table)} was altered meanwhile`,
      {
        hint: "The copy begins anew by itself; alter no tables until it has ended",
      },
    );
  }

  /** What is noted of rows in the snapshot, within a transaction. */
  notes(): AsyncGenerator<CopiedNote> {
    return readNotes(this.#query, NOTES_OF_SNAPSHOT);
  }

  /** What a table is read in, within a transaction. */
  async ranges(table: LocalTable): Promise<CopiedRange[]> {
    const leaves = await this.#query(
      `${leavesOf(table)} SELECT oid::text, schema, name, ${FILE} AS file,
         (pg_relation_size(oid) / current_setting('block_size')::int)::text AS pages FROM leaf ORDER BY schema, name`,
    );
    return leaves.flatMap(({ oid, schema, name, file, pages }) => {
      const leaf = { ...table, oid: Number(oid), schema: schema!, name: name!, partitioned: false };
      const isWhole = this.#facts.serverVersion < PAGE_RANGE_VERSION;
      const ranges = isWhole ? [""] : pageRanges(Number(pages));
      return ranges.map((range) => ({ table: leaf, pages: range, file: file! }));
    });
  }

  /**
   * Throws `transient` where rows were moved (VACUUM FULL, CLUSTER) since the table was divided: between two transactions
   * that read it nobody may have had it locked.
   */
  async requireUnmoved({ table, pages, file }: CopiedRange): Promise<void> {
    if (pages === "") return;
    const [now] = await this.#query(`SELECT ${FILE} AS file FROM (SELECT ${table.oid}::oid AS oid) leaf`);
    if (now.file === file) return;
    throw new MmliteError(
      "transient",
      `Cannot give the rows: table ${formatTableName(table)} was rewritten meanwhile`,
      { hint: "The copy begins anew by itself; rewrite no tables until it has ended" },
    );
  }

  /** The parts that a range is copied in, within a transaction; rows that were committed up to `before` are old. */
  async parts({ table, pages }: CopiedRange, before: string): Promise<CopiedPart[]> {
    if (!this.#facts.isVersioned) return [{ kind: "old", areAll: true }];
    const rows = await this.#query(
      `WITH n AS (
         SELECT t.xmin::text AS xid, count(*) AS rows FROM ${rowsOf(table)} AS t
          WHERE pg_xact_commit_timestamp(t.xmin) > ${literal(before)}${
        pages === "" ? "" : ` AND ${pages}`
      } GROUP BY 1)
       SELECT c.transactions::text AS transactions, m.xid, v.node, v.at::text AS at,
         EXISTS (SELECT FROM mmlite.apply_group g WHERE g.xid = f.id AND length(g.entries) > 0)::text AS differ
        FROM (SELECT count(*) AS transactions FROM n) c
        LEFT JOIN (SELECT n.xid FROM n WHERE n.rows >= ${MANY_ROWS} ORDER BY n.rows DESC LIMIT ${MAX_ALONE}) m ON true
        LEFT JOIN LATERAL (SELECT mmlite.full_xid(m.xid::xid) AS id OFFSET 0) f ON true
        LEFT JOIN LATERAL mmlite.row_version(m.xid::xid, 0) v ON true`,
    );
    // Rows of one transaction may be of several that were applied together.
    const alone = rows.filter(({ xid, differ }) => xid !== null && differ === "false");
    const parts: CopiedPart[] = [{ kind: "old", areAll: Number(rows[0].transactions) === 0 }];
    for (const { xid, node, at } of alone) parts.push({ kind: "one", xid: xid!, node: node ?? "", at: at! });
    if (alone.length < Number(rows[0].transactions)) {
      parts.push({ kind: "each", except: alone.map(({ xid }) => xid!) });
    }
    return parts;
  }

  /** The rows of a part as COPY prints them, in chunks of whole rows; throws where they cannot be read. */
  async *read(
    { range: { table, pages }, columns, binary, part, before }: {
      readonly range: CopiedRange;
      readonly columns: readonly HashedColumn[];
      /** Of rows that do not say their versions. */
      readonly binary: boolean;
      readonly part: CopiedPart;
      readonly before: string;
    },
  ): AsyncGenerator<CopiedBytes> {
    const list = columns.map(({ name }) => `t.${pg.escapeIdentifier(name)}`).join(", ");
    const isNew = `pg_xact_commit_timestamp(t.xmin) > ${literal(before)}`;
    const select = (what: string, { from = "", where }: { from?: string; where: string }) => {
      const conditions = [pages, where].filter((one) => one !== "").join(" AND ");
      const form = binary && part.kind !== "each" ? " (FORMAT binary)" : "";
      const rows = `${rowsOf(table)} AS t${from}${conditions === "" ? "" : ` WHERE ${conditions}`}`;
      return `COPY (SELECT ${what} FROM ${rows}) TO STDOUT${form}`;
    };
    switch (part.kind) {
      case "old":
        return yield* this.#copy(
          select(list, { where: part.areAll ? "" : `(${isNew}) IS NOT TRUE` }),
          table,
        );
      case "one":
        return yield* this.#copy(select(list, { where: `t.xmin::text = ${literal(part.xid)}` }), table);
      case "each": {
        const hash = await this.#hashOf(table);
        const version =
          `v.node, (extract(epoch FROM v.at - timestamptz '2000-01-01 00:00:00Z') * 1000000)::bigint, h.hash`;
        const except = part.except.length === 0
          ? ""
          : ` AND t.xmin::text NOT IN (${part.except.map(literal).join(", ")})`;
        const from =
          `, LATERAL (SELECT ${hash} AS hash OFFSET 0) h, LATERAL mmlite.row_version(t.xmin, h.hash) v`;
        const what = [version, ...columns.length > 0 ? [list] : []].join(", ");
        return yield* this.#copy(select(what, { from, where: `${isNew}${except}` }), table);
      }
    }
  }

  /** What a row is known by in lists of versions; 0 where it has no key. */
  async #hashOf(table: LocalTable): Promise<string> {
    const { schema, name } = table;
    const options = { schema, name, serverVersion: this.#facts.serverVersion, types: new ColumnTypes() };
    const local = await readLocalTable(this.#query, options);
    const primary = local?.uniqueIndexes.find((index) => index.primary)?.columns ?? [];
    const names = table.keyColumns.length > 0 ? table.keyColumns : primary;
    if (local === undefined || names.length === 0) return "0::bigint";
    // A partition's rows are known as those of its root, and their keys in the order of that.
    const hashedAs = local.root ?? { schema, name, columns: local.columns.map((column) => column.name) };
    const key = hashedAs.columns.filter((column) => names.includes(column));
    return keyHash(hashedAs, key.map((column) => sentText(`t.${pg.escapeIdentifier(column)}`)));
  }

  #copy(sql: string, table: TableName): AsyncGenerator<CopiedBytes> {
    return copyOut(this.#client, sql, `copy table ${formatTableName(table)}`);
  }
}

/** What is known of the server. */
export interface SourceFacts {
  readonly serverVersion: number;
  /** Whether it keeps versions of rows. */
  readonly isVersioned: boolean;
}

/** Conditions that together hold for every row of so many pages; the last one for pages too that have come since. */
function pageRanges(pages: number): string[] {
  const step = Math.max(RANGE_PAGES, Math.ceil(pages / MAX_RANGES));
  const place = (page: number) => `'(${page},0)'::tid`;
  const begins = Array.from({ length: Math.max(1, Math.floor(pages / step)) }, (_, i) => i * step);
  if (begins.length === 1) return [""];
  return begins.map((page, i) =>
    `t.ctid >= ${place(page)}${i + 1 < begins.length ? ` AND t.ctid < ${place(begins[i + 1])}` : ""}`
  );
}

function literal(text: string): string {
  return pg.escapeLiteral(text);
}
