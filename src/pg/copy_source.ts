/**
 * One snapshot of this database as a node that joins copies it: the rows of tables as COPY prints them, each with the
 * version that it has, and what the snapshot has of other nodes.
 *
 * The snapshot is an ordinary one. One that comes with a replication slot can take a transaction for aborted that is
 * about to be committed (pgsql-hackers, January 2026, "Race conditions in logical decoding").
 */
// @ts-types="@types/pg"
import pg from "pg";
import { MmliteError } from "../errors.ts";
import { type Lsn, parseLsn } from "../lsn.ts";
import { formatTableName, type TableName } from "../table_name.ts";
import { type Client, closeClient, destroyClient, openClient, passAnyBytes } from "./client.ts";
import { type CopiedNote, NOTES_OF_SNAPSHOT, readNotes } from "./copy_notes.ts";
import type { CopiedBytes } from "./copy_data.ts";
import { copyOut } from "./copy_out.ts";
import { type Query, queryWith } from "./query.ts";
import { readLocalTable } from "./relation.ts";
import { VALUE_SETTINGS } from "./replication.ts";
import { type HashedColumn, readHashedColumns, rowsOf } from "./row_hash.ts";
import type { LocalTable } from "./tables.ts";
import type { PostgresTarget } from "./target.ts";
import { ColumnTypes } from "./column_types.ts";
import { estimateRows, keyHash } from "./scanned_table.ts";
import { sentText } from "./sent_text.ts";
import { SEEN_UNTIL } from "./unsent.ts";

/** How far another node is applied in the snapshot. */
export interface AppliedInSnapshot {
  readonly node: string;
  readonly lsn: Lsn;
  /** When the last of its transactions was committed there, as PostgreSQL prints it; null before the first. */
  readonly commitTimestamp: string | null;
}

/** What the snapshot is. */
export interface SnapshotFacts {
  /** `txid_current_snapshot()`: which local transactions it sees. */
  readonly snapshot: string;
  /** Whatever it sees was committed before this position in the WAL. */
  readonly untilLsn: Lsn;
  readonly applied: readonly AppliedInSnapshot[];
  /** What was committed up to then counts as old; rows that await values do not. */
  readonly before: string;
  /** When it was taken, by the server's clock, microseconds since 2000-01-01 UTC as text. */
  readonly takenAt: string;
  /** Transactions in quarantine, which it lacks. */
  readonly quarantined: number;
}

/** A table that is copied. */
export interface CopiedTable extends TableName {
  /** The columns whose values are copied, by name. */
  readonly columns: readonly HashedColumn[];
  /** By what the planner knows, or what was counted of changes. */
  readonly estimatedRows: number;
}

/** Which rows of a table are copied together, and the version that they have. */
export type CopiedPart =
  /** Those that nothing older than them can meet any more, or of which no version is known: as of one time. */
  | { readonly kind: "old" }
  /** Those that one transaction wrote here. */
  | { readonly kind: "one"; readonly xid: string; readonly node: string; readonly at: string }
  /** All others: before its columns each row has its node, its time in microseconds and the hash of its key. */
  | { readonly kind: "each"; readonly except: readonly string[] };

/** A transaction that wrote at least as many rows is copied by itself: they need no hashes. */
const MANY_ROWS = 10_000;
/** At most as many of them: the table is read once for each. */
const MAX_ALONE = 16;

const SETTINGS: Readonly<Record<string, string>> = {
  ...VALUE_SETTINGS,
  // An error instead of the rows that a policy leaves.
  row_security: "off",
  statement_timeout: "0",
  idle_in_transaction_session_timeout: "0",
  default_transaction_read_only: "off",
};

/**
 * A transaction with one snapshot, open until {@link CopySource.close}, and another connection on which each table is
 * read by it in a transaction of its own: none is locked for longer than reading it takes.
 */
export class CopySource {
  readonly #holder: Client;
  readonly #client: Client;
  readonly #query: Query;
  #exported = "";
  readonly #serverVersion: number;
  readonly #isVersioned: boolean;

  private constructor(
    { holder, client }: { readonly holder: Client; readonly client: Client },
    { serverVersion, isVersioned }: SourceFacts,
  ) {
    this.#holder = holder;
    this.#client = client;
    this.#query = queryWith(client);
    this.#serverVersion = serverVersion;
    this.#isVersioned = isVersioned;
  }

  /** Takes no snapshot yet: {@link CopySource.take} does. `signal` breaks the connections off. */
  static async open(
    target: PostgresTarget,
    { signal, ...facts }: SourceFacts & { readonly signal: AbortSignal },
  ): Promise<CopySource> {
    const holder = await openSession(target, signal);
    try {
      return new CopySource({ holder, client: await openSession(target, signal) }, facts);
    } catch (thrown) {
      await closeClient(holder);
      throw thrown;
    }
  }

  /** Lets go of the snapshot. */
  async close(): Promise<void> {
    await closeClient(this.#client);
    await closeClient(this.#holder);
  }

  /** Takes the snapshot; once. Nothing that was committed before `before` comes to the other node any more. */
  async take(before: string): Promise<SnapshotFacts> {
    const query = queryWith(this.#holder);
    await query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    const [row] = await query(
      `SELECT pg_export_snapshot() AS exported, txid_current_snapshot()::text AS snapshot, pg_current_wal_insert_lsn()::text AS until,
         (SELECT json_agg(json_build_object('node', origin, 'lsn', lsn::text, 'at', commit_timestamp::text))
            FROM mmlite.progress)::text AS applied,
         least($1::timestamptz, (SELECT min(at) - interval '1 microsecond' FROM mmlite.unsent))::text AS before,
         (SELECT count(*) FROM mmlite.quarantine)::text AS quarantined,
         (extract(epoch FROM clock_timestamp() - timestamptz '2000-01-01 00:00:00Z') * 1000000)::bigint::text AS taken_at`,
      [before],
    );
    const applied: { node: string; lsn: string; at: string | null }[] = JSON.parse(row.applied ?? "[]");
    this.#exported = row.exported!;
    return {
      snapshot: row.snapshot!,
      untilLsn: parseLsn(row.until!),
      applied: applied.map(({ node, lsn, at }) => ({ node, lsn: parseLsn(lsn), commitTimestamp: at })),
      before: row.before!,
      quarantined: Number(row.quarantined),
      takenAt: row.taken_at!,
    };
  }

  /** What is copied of a table. */
  async describe(table: LocalTable): Promise<CopiedTable> {
    const { schema, name } = table;
    return {
      ...{ schema, name, estimatedRows: await estimateRows(this.#query, table) },
      columns: await readHashedColumns(this.#query, table.oid),
    };
  }

  /** Runs work that reads one table, or notes, in a transaction that has the snapshot. */
  async reading(work: () => Promise<void>): Promise<void> {
    await this.#query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    await this.#query(`SET TRANSACTION SNAPSHOT ${literal(this.#exported)}`);
    await work();
    await this.#query("COMMIT");
  }

  /**
   * Throws `transient` where a table was altered since the snapshot, within {@link CopySource.reading}: one that was
   * rewritten for it is empty in older snapshots. From here on nobody alters it. `query` runs outside of the snapshot.
   */
  async requireUnchanged(table: LocalTable, query: Query): Promise<void> {
    await this.#query(`SELECT FROM ${rowsOf(table)} LIMIT 0`);
    const shape =
      `SELECT (SELECT json_agg(json_build_array(attnum, attname, atttypid, atttypmod, attisdropped) ORDER BY attnum)
      FROM pg_attribute WHERE attrelid = ${table.oid} AND attnum > 0)::text AS columns`;
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

  /** What is noted of rows in the snapshot, within {@link CopySource.reading}. */
  notes(): AsyncGenerator<CopiedNote> {
    return readNotes(this.#query, NOTES_OF_SNAPSHOT);
  }

  /** The parts that a table is copied in, within {@link CopySource.reading}; rows that were committed up to `before` are old. */
  async parts(table: LocalTable, before: string): Promise<CopiedPart[]> {
    if (!this.#isVersioned) return [{ kind: "old" }];
    const rows = await this.#query(
      `WITH n AS (
         SELECT t.xmin::text AS xid, count(*) AS rows FROM ${rowsOf(table)} AS t
          WHERE pg_xact_commit_timestamp(t.xmin) > ${literal(before)} GROUP BY 1)
       SELECT c.transactions::text AS transactions, m.xid, v.node, v.at::text AS at,
         EXISTS (SELECT FROM mmlite.apply_group g WHERE g.xid = f.id AND length(g.entries) > 0)::text AS differ
        FROM (SELECT count(*) AS transactions FROM n) c
        LEFT JOIN (SELECT n.xid FROM n WHERE n.rows >= ${MANY_ROWS} ORDER BY n.rows DESC LIMIT ${MAX_ALONE}) m ON true
        LEFT JOIN LATERAL (SELECT mmlite.full_xid(m.xid::xid) AS id OFFSET 0) f ON true
        LEFT JOIN LATERAL mmlite.row_version(m.xid::xid, 0) v ON true`,
    );
    // Rows of one transaction may be of several that were applied together.
    const alone = rows.filter(({ xid, differ }) => xid !== null && differ === "false");
    const parts: CopiedPart[] = [{ kind: "old" }];
    for (const { xid, node, at } of alone) parts.push({ kind: "one", xid: xid!, node: node ?? "", at: at! });
    if (alone.length < Number(rows[0].transactions)) {
      parts.push({ kind: "each", except: alone.map(({ xid }) => xid!) });
    }
    return parts;
  }

  /** The rows of a part as COPY prints them, in chunks of whole rows; throws where they cannot be read. */
  async *read(
    { table, columns, binary, part, before }: {
      readonly table: LocalTable;
      readonly columns: readonly HashedColumn[];
      /** Of rows that do not say their versions. */
      readonly binary: boolean;
      readonly part: CopiedPart;
      readonly before: string;
    },
  ): AsyncGenerator<CopiedBytes> {
    const list = columns.map(({ name }) => `t.${pg.escapeIdentifier(name)}`).join(", ");
    const isNew = `pg_xact_commit_timestamp(t.xmin) > ${literal(before)}`;
    const select = (what: string, where: string) =>
      `COPY (SELECT ${what} FROM ${rowsOf(table)} AS t${where}) TO STDOUT${
        binary && part.kind !== "each" ? " (FORMAT binary)" : ""
      }`;
    switch (part.kind) {
      case "old":
        return yield* this.#copy(
          select(list, this.#isVersioned ? ` WHERE (${isNew}) IS NOT TRUE` : ""),
          table,
        );
      case "one":
        return yield* this.#copy(select(list, ` WHERE t.xmin::text = ${literal(part.xid)}`), table);
      case "each": {
        const hash = await this.#hashOf(table);
        const version =
          `v.node, (extract(epoch FROM v.at - timestamptz '2000-01-01 00:00:00Z') * 1000000)::bigint, h.hash`;
        const except = part.except.length === 0
          ? ""
          : ` AND t.xmin::text NOT IN (${part.except.map(literal).join(", ")})`;
        return yield* this.#copy(
          select(
            [version, ...columns.length > 0 ? [list] : []].join(", "),
            `, LATERAL (SELECT ${hash} AS hash OFFSET 0) h, LATERAL mmlite.row_version(t.xmin, h.hash) v WHERE ${isNew}${except}`,
          ),
          table,
        );
      }
    }
  }

  /** What a row is known by in lists of versions; 0 where it has no key. */
  async #hashOf(table: LocalTable): Promise<string> {
    const { schema, name } = table;
    const options = { schema, name, serverVersion: this.#serverVersion, types: new ColumnTypes() };
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

async function openSession(target: PostgresTarget, signal: AbortSignal): Promise<Client> {
  const client = await openClient(target, { applicationName: "mmlite copy", settings: SETTINGS, signal });
  signal.addEventListener("abort", () => destroyClient(client), { once: true });
  await passAnyBytes(client);
  const query = queryWith(client);
  for (const name of ["transaction_timeout", "idle_session_timeout"]) {
    await query(`SELECT set_config(name, '0', false) FROM pg_settings WHERE name = '${name}'`);
  }
  return client;
}

/** What is known of the server. */
interface SourceFacts {
  readonly serverVersion: number;
  /** Whether it keeps versions of rows. */
  readonly isVersioned: boolean;
}

/**
 * What was committed here before this, as PostgreSQL reads it, is to be seen, less a margin in milliseconds; and it is no
 * later than `horizon`, milliseconds since 1970-01-01 UTC.
 */
export async function readSettledBefore(
  query: Query,
  { horizon, marginMs }: { readonly horizon: number; readonly marginMs: number },
): Promise<string> {
  const [row] = await query(
    `SELECT least(${SEEN_UNTIL} - $1::float8 * interval '1 ms', to_timestamp($2::float8 / 1000))::text AS before`,
    [String(marginMs), String(horizon)],
  );
  return row.before!;
}

/**
 * The id of a new transaction: all that run now have ended once {@link readOldestRunning} is no older. What a snapshot
 * calls the next id would not do, as it follows the last transaction that has ended.
 */
export async function takeTransactionId(query: Query): Promise<bigint> {
  const [row] = await query("SELECT txid_current()::text AS next");
  return BigInt(row.next!);
}

/** The oldest transaction that runs, in any database of the server; the next one where none does. */
export async function readOldestRunning(query: Query): Promise<bigint> {
  const [row] = await query("SELECT txid_snapshot_xmin(txid_current_snapshot())::text AS oldest");
  return BigInt(row.oldest!);
}

function literal(text: string): string {
  return pg.escapeLiteral(text);
}
