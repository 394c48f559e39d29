/**
 * Publishes a table that is new, with the rows that it has already: what was committed between its creation and this
 * moment was decoded by nobody.
 *
 * While nobody else may write to the table, its rows are deleted and inserted again as they were. In the same
 * transaction the table is published for inserts alone meanwhile: so exactly one whole insert of each row is decoded, for
 * tables with a key and without one, large values included.
 */
// @ts-types="@types/pg"
import pg from "pg";
import { type ErrorKind, MmliteError } from "../errors.ts";
import { formatTableName, type TableName } from "../table_name.ts";
import { type Client, openClient } from "./client.ts";
import { describeServerError, mapPostgresError, sqlState } from "./errors.ts";
import { addKnownTables } from "./known_tables.ts";
import { PUBLICATIONS, quoteTable } from "./publication.ts";
import { type Query, queryWith } from "./query.ts";
import { ORIGINS_SINCE } from "./server.ts";
import type { LocalTable } from "./tables.ts";
import type { PostgresTarget } from "./target.ts";

/** Of a table with more rows none is sent: writers wait meanwhile, about 1 s for as many. */
export const MAX_PICKED_UP_ROWS = 100_000;
/** The same of the space that its rows take, bytes. */
export const MAX_PICKED_UP_BYTES = 64 * 2 ** 20;
/** How long the lock on the table may take: whoever writes to it queues up behind. It is tried again in some seconds. */
const LOCK_TIMEOUT = "500ms";

/** What became of a table. */
export interface PickedUp {
  /** Rows that were there; one more than {@link MAX_PICKED_UP_ROWS} stands for any number above. */
  readonly rows: number;
  /** Whether they go to the peers. */
  readonly sent: boolean;
  /** Why they could not be written again. */
  readonly refused?: string;
}

interface PickUpOptions {
  readonly table: LocalTable;
  /** Of itself, and of the partitions beneath. */
  readonly oids: readonly number[];
  readonly serverVersion: number;
  /** Whether the server says who wrote a row. */
  readonly isVersioned: boolean;
  /** Why the rows cannot be written again; they are not, then. */
  readonly refused?: string;
}

/** Kinds of errors that pass: of locks, of the connection, of what the server is short of. */
const PASSING: readonly ErrorKind[] = ["transient", "unreachable"];

/** `deadlock_timeout` is also when autovacuum gives way; nobody may wait behind the lock for a standby. */
const SETTINGS = {
  lock_timeout: LOCK_TIMEOUT,
  deadlock_timeout: "200ms",
  statement_timeout: "0",
  row_security: "off",
  synchronous_commit: "local",
  default_transaction_isolation: "read committed",
  default_transaction_read_only: "off",
};

/** Opens the connection on which tables are picked up, one after the other. */
export async function openPickUps(target: PostgresTarget): Promise<Client> {
  return await openClient(target, { applicationName: "mmlite tables", settings: SETTINGS });
}

/**
 * Publishes the table and sends its rows, in one transaction that also makes it known. Rows that cannot be written again
 * stay unsent, as trying again would help nobody. Throws `transient` if the table is locked for too long, or is another one
 * by now.
 */
export async function pickUpTable(client: Client, options: PickUpOptions): Promise<PickedUp> {
  const query = queryWith(client);
  try {
    return await inTransaction(query, () => pickUp(query, options));
  } catch (thrown) {
    const error = mapPostgresError(thrown, `publish table ${formatTableName(options.table)}`);
    // Whoever may not publish it fails again, of the same.
    if (sqlState(thrown) === undefined || PASSING.includes(error.kind)) throw error;
    return await pickUpWithoutRows(query, { ...options, refused: describeServerError(thrown) });
  }
}

async function pickUpWithoutRows(query: Query, options: PickUpOptions): Promise<PickedUp> {
  try {
    return await inTransaction(query, () => pickUp(query, options));
  } catch (thrown) {
    throw mapPostgresError(thrown, `publish table ${formatTableName(options.table)}`);
  }
}

async function inTransaction<Result>(query: Query, work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (thrown) {
    await query("ROLLBACK").catch(() => {});
    throw thrown;
  }
}

async function pickUp(query: Query, options: PickUpOptions): Promise<PickedUp> {
  const { table, oids, refused } = options;
  const [whole, inserts] = PUBLICATIONS;
  const isWhole = table.state === "replicated";
  const named = tableExpression(table);
  // Whoever locks rows waits as well: it would find that they are gone.
  await query(`BEGIN; LOCK TABLE ${named} IN EXCLUSIVE MODE`);
  const { rows, columns, fits } = await measure(query, options);
  const sent = refused === undefined && fits && rows > 0 && columns.length > 0;
  const one = `TABLE ONLY ${quoteTable(table)}`;
  if (sent) {
    await query(`ALTER PUBLICATION ${inserts} ADD ${one}`);
    // Triggers of applications, and what refers to the rows, are left alone.
    await query("SET LOCAL session_replication_role = replica");
    await query(insertAgain(named, columns, options));
    if (isWhole) await query(`ALTER PUBLICATION ${inserts} DROP ${one}`);
  } else if (rows > 0) {
    const why = refused === undefined ? "it had too many rows" : "its rows could not be written again";
    await markUnsent(query, table, { why, error: refused });
  }
  if (!sent || isWhole) await query(`ALTER PUBLICATION ${isWhole ? whole : inserts} ADD ${one}`);
  await addKnownTables(query, oids);
  await query("COMMIT");
  return { rows, sent, ...(rows > 0 && refused !== undefined ? { refused } : {}) };
}

/** ONLY: children by plain inheritance are tables of their own. */
function tableExpression(table: LocalTable): string {
  return table.partitioned ? quoteTable(table) : `ONLY ${quoteTable(table)}`;
}

interface Measured {
  readonly rows: number;
  /** Names of the columns that are not computed, quoted. */
  readonly columns: readonly string[];
  /** Whether its rows are few enough to be sent. */
  readonly fits: boolean;
}

async function measure(query: Query, { table, oids }: PickUpOptions): Promise<Measured> {
  const [row] = await query(
    `SELECT $1::regclass::oid::text AS oid,
       (SELECT count(*) FROM (SELECT FROM ${tableExpression(table)} LIMIT ${
      MAX_PICKED_UP_ROWS + 1
    }) t)::text AS rows,
       (SELECT coalesce(sum(pg_table_size(oid)), 0) FROM unnest($2::oid[]) oid)::text AS bytes,
       (SELECT coalesce(json_agg(a.attname ORDER BY a.attnum), '[]')::text FROM pg_attribute a
         WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped
           AND coalesce(to_jsonb(a) ->> 'attgenerated', '') = '') AS columns`,
    [quoteTable(table), `{${oids.join(",")}}`],
  );
  if (Number(row.oid) !== table.oid) {
    throw new MmliteError(
      "transient",
      `Cannot publish table ${formatTableName(table)}: it is another one by now`,
    );
  }
  const rows = Number(row.rows);
  return {
    rows,
    columns: (JSON.parse(row.columns!) as string[]).map((name) => pg.escapeIdentifier(name)),
    fits: rows <= MAX_PICKED_UP_ROWS && Number(row.bytes) <= MAX_PICKED_UP_BYTES,
  };
}

/**
 * All rows but those that came from other nodes. None should have, as nothing is applied to a table before it is known;
 * but what could not be published for want of a right may have rows by now.
 */
function insertAgain(
  named: string,
  columns: readonly string[],
  { serverVersion, isVersioned }: PickUpOptions,
): string {
  const list = columns.join(", ");
  const foreign = serverVersion >= ORIGINS_SINCE
    ? "(SELECT roident FROM pg_catalog.pg_xact_commit_timestamp_origin(x::xid)) <> 0"
    : "EXISTS (SELECT FROM mmlite.apply_group g WHERE g.xid = mmlite.full_xid(x::xid))";
  const foreigners =
    `SELECT x FROM (SELECT DISTINCT xmin::text AS x FROM ${named}) AS writers WHERE ${foreign}`;
  return `WITH foreigners AS (${isVersioned ? foreigners : "SELECT ''::text AS x WHERE false"}),
    gone AS (DELETE FROM ${named} WHERE xmin::text NOT IN (SELECT x FROM foreigners) RETURNING ${list})
    INSERT INTO ${named.replace(/^ONLY /, "")} (${list}) OVERRIDING SYSTEM VALUE SELECT ${list} FROM gone`;
}

/** Marks a table as diverged: `why` says what of its rows, as they were when it came to be published. */
export async function markUnsent(
  query: Query,
  { schema, name }: TableName,
  { why, error }: { readonly why: string; readonly error?: string },
): Promise<void> {
  const [{ node }] = await query("SELECT name AS node FROM mmlite.node");
  const because = error === undefined ? "" : `: ${error}`;
  await query(
    `INSERT INTO mmlite.diverged (table_schema, table_name, reason) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
    [
      schema,
      name,
      `${why} when node ${node} began to publish it: they were not sent (\`mmlite tables resync\`)${because}`,
    ],
  );
}
