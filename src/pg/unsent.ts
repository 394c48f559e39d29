/**
 * Rows of this node that await values of other nodes (`mmlite.unsent`), and rows as other nodes ask for them.
 *
 * Values go as hexadecimal digits of their bytes, which no driver takes for characters.
 */
import { Buffer } from "node:buffer";
import type { RowAnswer } from "../wire/row_frames.ts";
import { ColumnTypes } from "./column_types.ts";
import { PUBLICATIONS } from "./publication.ts";
import type { Query } from "./query.ts";
import { readLocalTable } from "./relation.ts";
import { sentText, sentTextOrNull } from "./sent_text.ts";
import { formatTimestamp } from "./timestamp.ts";

/** A column of a key and its value as text. */
export interface KeyPart {
  readonly column: string;
  readonly value: Uint8Array;
}

/** A row that awaits values. */
export interface UnsentRow {
  readonly schema: string;
  readonly name: string;
  readonly key: readonly KeyPart[];
  /** The hash of its key, a 64-bit integer as text. */
  readonly hash: string;
}

/** Rows that await values of a node, each once, those that have waited longest first. */
export async function readUnsent(query: Query, origin: string, limit: number): Promise<UnsentRow[]> {
  const rows = await query(
    `SELECT u.table_schema, u.table_name, u.hash::text AS hash, array_to_json(u.key_columns)::text AS columns,
        (SELECT json_agg(encode(convert_to(value, pg_client_encoding()), 'hex') ORDER BY place)
           FROM unnest(u.key) WITH ORDINALITY AS k (value, place))::text AS key
       FROM mmlite.unsent u
      WHERE u.id IN (SELECT max(id) FROM mmlite.unsent WHERE origin = $1 GROUP BY table_schema, table_name, hash)
      ORDER BY u.id LIMIT $2`,
    [origin, limit],
  );
  return rows.map((row) => {
    const values: string[] = JSON.parse(row.key!);
    const columns: string[] = JSON.parse(row.columns!);
    const key = columns.map((column, i) => ({ column, value: Buffer.from(values[i], "hex") }));
    return { schema: row.table_schema!, name: row.table_name!, hash: row.hash!, key };
  });
}

/** How many rows await values of each node that some await values of. */
export async function countUnsent(query: Query): Promise<Map<string, number>> {
  const rows = await query(
    `SELECT origin, count(DISTINCT (table_schema, table_name, hash))::text AS rows FROM mmlite.unsent GROUP BY origin`,
  );
  return new Map(rows.map(({ origin, rows }) => [origin!, Number(rows)]));
}

/**
 * A row does not await any more what a node committed up to a time, microseconds since 2000-01-01 UTC. If that cannot
 * be had, the table is marked.
 */
export async function forgetUnsent(
  query: Query,
  origin: string,
  { schema, name, hash, until, isLost }: {
    schema: string;
    name: string;
    hash: string;
    until: bigint;
    isLost: boolean;
  },
): Promise<void> {
  if (isLost) {
    await query(
      `INSERT INTO mmlite.diverged (table_schema, table_name, reason)
        VALUES ($1, $2, format('a row of node %s that is too long to be fetched, or not published there', $3::text))
        ON CONFLICT DO NOTHING`,
      [schema, name, origin],
    );
  }
  await query(
    `DELETE FROM mmlite.unsent WHERE origin = $1 AND table_schema = $2 AND table_name = $3 AND hash = $4::bigint
        AND at <= $5::timestamptz`,
    [origin, schema, name, hash, formatTimestamp(until)],
  );
}

/** Nothing can be asked of a node any more: tables with rows that await values of it are marked. */
export async function giveUpUnsent(query: Query, origin: string): Promise<void> {
  await query(
    `WITH gone AS (DELETE FROM mmlite.unsent WHERE origin = $1 RETURNING table_schema, table_name)
     INSERT INTO mmlite.diverged (table_schema, table_name, reason)
       SELECT DISTINCT table_schema, table_name, format('rows of node %s were not fetched before it was removed', $1::text)
         FROM gone ON CONFLICT DO NOTHING`,
    [origin],
  );
}

/** Whether this server keeps commit timestamps; where not, asking for one fails. */
const IS_VERSIONED = "current_setting('track_commit_timestamp') = 'on'";
/**
 * Up to when everything committed here is to be seen: what waits for a synchronous standby has its time, and is sent to
 * peers, before that. Whoever has no time yet takes a later one, but for a moment between taking and storing it. Each
 * transaction holds a lock on its own id until it is to be seen.
 */
export const SEEN_UNTIL = `least(clock_timestamp() - interval '2 s', CASE WHEN ${IS_VERSIONED} THEN (
    SELECT min(pg_xact_commit_timestamp(l.transactionid)) - interval '1 microsecond' FROM pg_catalog.pg_locks l
     WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted) END)`;

/** Reads a row by its key if its table is published, its version is known, and it is no longer than `maxBytes`. */
export async function readPublishedRow(
  query: Query,
  { schema, name, key }: { schema: string; name: string; key: readonly KeyPart[] },
  { serverVersion, maxBytes }: { serverVersion: number; maxBytes: number },
): Promise<RowAnswer> {
  const [{ seen_until, published }] = await query(
    `SELECT ${micros(SEEN_UNTIL)} AS seen_until, EXISTS (SELECT FROM pg_catalog.pg_publication_tables
        WHERE ${IS_VERSIONED} AND pubname IN (${PUBLICATIONS.map((one) => `'${one}'`).join(", ")})
          AND schemaname = $1 AND tablename = $2)::text AS published`,
    [schema, name],
  );
  const at = BigInt(seen_until!);
  const withheld = { kind: "withheld", at } as const;
  if (published !== "true") return withheld;
  const table = await readLocalTable(query, { schema, name, serverVersion, types: new ColumnTypes() });
  const keyColumns = table?.columns.filter((column) => key.some((part) => part.column === column.name)) ?? [];
  if (table === undefined || keyColumns.length !== key.length || key.length === 0) return withheld;
  const columns = table.columns.filter((column) => column.generated === null);
  const matches = keyColumns.map((column, i) => {
    const value = `convert_from(decode($${i + 1}, 'hex'), pg_client_encoding())`;
    const place = `t.${quote(column.name)}`;
    return column.equality === null
      ? `${sentTextOrNull(place)} = ${value}`
      : `${place} OPERATOR(${column.equality}) (${value})::${column.typeName}`;
  }).join(" AND ");
  // The hash takes a partition's rows as those of its root, and their keys in the order of that.
  const hashedAs = table.root ?? { schema, name, columns: table.columns.map(({ name }) => name) };
  const texts = hashedAs.columns.filter((column) => key.some((part) => part.column === column))
    .map((column) => sentText(`t.${quote(column)}`)).join(", ");
  const lengths = columns.map((column) => `octet_length(${sentText(`t.${quote(column.name)}`)})`).join(
    "::bigint + ",
  );
  const values = columns.map((column, i) =>
    `encode(convert_to(${sentTextOrNull(`t.${quote(column.name)}`)}, pg_client_encoding()), 'hex') AS c${i}`
  ).join(", ");
  const [row] = await query(
    `SELECT ${micros("v.at")} AS at, v.node, ${values}
       FROM ${table.kind === "p" ? "" : "ONLY "}${quote(schema)}.${quote(name)} AS t,
            mmlite.row_version(t.xmin, mmlite.key_hash($${key.length + 1}, ARRAY[${texts}])) AS v
      WHERE ${matches} AND (${lengths})::bigint <= $${key.length + 2}`,
    [
      ...keyColumns.map(({ name }) =>
        Buffer.from(key.find(({ column }) => column === name)!.value).toString("hex")
      ),
      `${hashedAs.schema}.${hashedAs.name}`,
      String(maxBytes),
    ],
  );
  if (row === undefined) {
    const [found] = await query(
      `SELECT 1 AS one FROM ${quote(schema)}.${quote(name)} AS t WHERE ${matches}`,
      keyColumns.map(({ name }) =>
        Buffer.from(key.find(({ column }) => column === name)!.value).toString("hex")
      ),
    );
    return found === undefined ? { kind: "none", at } : withheld;
  }
  return {
    kind: "row",
    at: row.at === null ? at : BigInt(row.at),
    node: row.node ?? "",
    columns: columns.map((column) => column.name),
    values: columns.map((_, i) => row[`c${i}`] === null ? null : Buffer.from(row[`c${i}`]!, "hex")),
  };
}

/** A time in SQL as microseconds since 2000-01-01 UTC, exactly. */
function micros(time: string): string {
  return `(extract(epoch FROM ${time} - timestamptz '2000-01-01 00:00:00Z') * 1000000)::bigint::text`;
}

function quote(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
