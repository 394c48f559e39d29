/**
 * This node's own tables, as they are compared: on a connection of its own, so that nothing else waits for it.
 */
import { MmliteError } from "../errors.ts";
import { cancelClient } from "../pg/cancel.ts";
import { type Client, closeClient } from "../pg/client.ts";
import { readDiverged } from "../pg/diverged.ts";
import { mapPostgresError } from "../pg/errors.ts";
import { behindOf, hasReceived, type Mark, setMark } from "../pg/marks.ts";
import { type LastApplied, readLastApplied } from "../pg/peers.ts";
import { type Query, queryWith } from "../pg/query.ts";
import { openHashClient } from "../pg/row_hash.ts";
import { readingTable, readScannedTable, type ScannedTable } from "../pg/scanned_table.ts";
import { type LookedUp, MAX_BUCKETS, type ScannedRow, TableScan } from "../pg/table_scan.ts";
import type { LocalTable } from "../pg/tables.ts";
import type { PostgresTarget } from "../pg/target.ts";
import { readWholeRows, type WholeRow } from "../pg/whole_rows.ts";
import { formatTableName, tableKey, type TableName } from "../table_name.ts";
import {
  type ComparisonPlan,
  groupSums,
  type Key,
  type Link,
  type Side,
  sumsOfGroups,
  type TableShape,
  totalOf,
} from "./side.ts";

const APPLICATION_NAME = "mmlite verify";

interface LocalSideOptions {
  readonly node: string;
  /** The node at the other side. */
  readonly peer: string;
  readonly target: PostgresTarget;
  readonly serverVersion: number;
  /** The tables that this node replicates, each partitioned one as a whole. */
  readonly readTables: (query: Query) => Promise<LocalTable[]>;
  readonly signal: AbortSignal;
}

interface Reading {
  readonly scanned: ScannedTable;
  readonly scan: TableScan;
  readonly sums: BigUint64Array;
  readonly doing: string;
}

/** See the module's head. {@link LocalSide.close} lets go of the connection. */
export class LocalSide implements Side {
  readonly node: string;
  readonly #options: LocalSideOptions;
  readonly #stop = () => {
    const { target } = this.#options;
    if (this.#client !== undefined) {
      this.#cancelled = cancelClient(this.#client, { target, applicationName: APPLICATION_NAME });
    }
  };
  #cancelled: Promise<void> | undefined;
  #client: Client | undefined;
  #reading: Reading | undefined;
  /** As they were listed. */
  readonly #tables = new Map<string, ScannedTable>();

  constructor(options: LocalSideOptions) {
    this.node = options.node;
    this.#options = options;
    options.signal.addEventListener("abort", this.#stop, { once: true });
  }

  /** Lets go of the database. */
  async close(): Promise<void> {
    this.#options.signal.removeEventListener("abort", this.#stop);
    if (this.#client !== undefined) await closeClient(this.#client);
    this.#client = undefined;
    await this.#cancelled;
  }

  tables(): Promise<TableShape[]> {
    return this.#run("list the tables", async (query) => {
      const diverged = new Set((await readDiverged(query)).map(tableKey));
      const shapes: TableShape[] = [];
      for (const table of await this.#options.readTables(query)) {
        const { schema, name } = table;
        const scanned = await readScannedTable(query, table, this.#options.serverVersion);
        this.#tables.set(tableKey(table), scanned);
        const { columns, key, estimatedRows } = scanned;
        shapes.push({
          ...{ schema, name, estimatedRows, diverged: diverged.has(tableKey(table)) },
          columns: columns.map((column) => column.name),
          key: key.map((column) => column.name),
        });
      }
      return shapes;
    });
  }

  read(plan: ComparisonPlan, read: (rows: number) => void): Promise<{ rows: number; total: bigint }> {
    const doing = readingTable(plan.table);
    this.#reading = undefined;
    return this.#run(doing, async (query) => {
      const scanned = this.#find(plan);
      const { signal, serverVersion } = this.#options;
      const scan = new TableScan(query, scanned, { ...plan, serverVersion, signal });
      const { rows, sums } = await scan.sums(read);
      this.#reading = { scanned, scan, sums, doing };
      return { rows, total: totalOf(sums) };
    });
  }

  groups(): Promise<BigUint64Array> {
    return Promise.resolve(groupSums(this.#begun().sums));
  }

  bucketsOf(groups: readonly number[]): Promise<BigUint64Array> {
    return Promise.resolve(sumsOfGroups(this.#begun().sums, groups));
  }

  open(buckets: readonly number[]): Promise<Map<bigint, ScannedRow> | null> {
    const { scan, doing } = this.#begun();
    scan.forget();
    return this.#run(doing, () => scan.open(buckets));
  }

  keys(hashes: readonly bigint[]): Promise<(Key | null)[]> {
    return Promise.resolve(this.#begun().scan.keysOf(hashes));
  }

  look(keys: readonly Key[]): Promise<(LookedUp | null)[]> {
    const { scan, doing } = this.#begun();
    return this.#run(doing, () => scan.look(keys));
  }

  rows(keys: readonly Key[]): Promise<WholeRow[]> {
    const { scanned, doing } = this.#begun();
    return this.#run(doing, (query) => readWholeRows(query, scanned, keys));
  }

  /** How far a third node is applied here, or was when it was removed; nulls where nothing is known of it. */
  applied(node: string): Promise<LastApplied> {
    return this.#run("look how far a node is applied", (query) => readLastApplied(query, node));
  }

  mark(): Promise<Mark> {
    return this.#run("set a mark", setMark);
  }

  behind({ own, other }: { own: Mark; other: Mark }): Promise<Link[]> {
    const { node, peer } = this.#options;
    return this.#run("look how far replication is", async (query) => {
      const received = await hasReceived(query, peer, own.lsn);
      const behind = await behindOf(
        query,
        other.origins.filter(({ name }) => name !== node && name !== peer),
      );
      return [
        ...(received === true ? [] : [{ from: node, to: peer }]),
        ...behind.map((from) => ({ from, to: node })),
      ];
    });
  }

  /** A table that was listed. */
  tableOf(table: TableName): ScannedTable | undefined {
    return this.#tables.get(tableKey(table));
  }

  #begun(): Reading {
    if (this.#reading !== undefined) return this.#reading;
    throw new MmliteError("protocol", "Cannot answer about a table: none has been read");
  }

  #find({ table, keyed, buckets }: ComparisonPlan): ScannedTable {
    const cannot = `Cannot read table ${formatTableName(table)}`;
    if (buckets > MAX_BUCKETS || !Number.isInteger(Math.log2(buckets))) {
      throw new MmliteError("protocol", `${cannot}: it cannot be read in ${buckets} parts`);
    }
    const found = this.#tables.get(tableKey(table));
    if (found !== undefined && !(keyed && found.key.length === 0)) return found;
    throw new MmliteError("protocol", `${cannot}: node "${this.node}" has not listed it so`);
  }

  async #run<Result>(doing: string, work: (query: Query) => Promise<Result>): Promise<Result> {
    const { target, signal } = this.#options;
    try {
      this.#client ??= await openHashClient(target, { applicationName: APPLICATION_NAME, signal });
      return await work(queryWith(this.#client));
    } catch (thrown) {
      throw signal.aborted
        ? new MmliteError("aborted", `Cannot ${doing}: stopped`)
        : mapPostgresError(thrown, doing);
    }
  }
}
