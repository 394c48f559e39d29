/**
 * The hash of a row as SQL, the same on servers of any two releases, 10 to 18, and what a session needs for it.
 *
 * Values are taken as the text that replication would send, in UTF-8. Generated columns are left out, as replication
 * does. Columns are taken by name, so that their order in the table does not count.
 */
// @ts-types="@types/pg"
import pg from "pg";
import { type Client, destroyClient, openClient, passAnyBytes } from "./client.ts";
import { type Query, queryWith } from "./query.ts";
import { VALUE_SETTINGS } from "./replication.ts";
import { sentTextOrNull } from "./sent_text.ts";
import type { LocalTable } from "./tables.ts";
import type { PostgresTarget } from "./target.ts";

/** A column of a table, and the OID of its type. */
export interface HashedColumn {
  readonly name: string;
  readonly type: number;
}

const HASH_SETTINGS: Readonly<Record<string, string>> = {
  ...VALUE_SETTINGS,
  // For floats within other types: up to 11, more digits mean all 17, from 12 on as many as it takes. 15 are alike.
  extra_float_digits: "0",
  quote_all_identifiers: "off",
  // An error instead of the rows that a policy leaves.
  row_security: "off",
  statement_timeout: "0",
  // Whoever reads slowly rests within a transaction.
  idle_in_transaction_session_timeout: "0",
  default_transaction_isolation: "read committed",
  default_transaction_read_only: "off",
  // No standby is waited for.
  synchronous_commit: "local",
};

/** Settings that only later releases have: compiling costs more than it saves here. */
const LATER_SETTINGS =
  `SELECT set_config(name, CASE name WHEN 'jit' THEN 'off' ELSE '0' END, false) FROM pg_settings
  WHERE name IN ('jit', 'transaction_timeout')`;

/** From 14 on the server notices while it reads or waits that nobody wants it any more, and lets go of the locks. */
const NOTICE_LEAVING = `SELECT set_config(name, '1s', false) FROM pg_settings
  WHERE name = 'client_connection_check_interval'`;

/** Built-in types of floats by OID, whose binary form is hashed: it is exact, and the same in every release. */
export const SEND_FUNCTIONS: Readonly<Record<number, string>> = {
  600: "point_send",
  601: "lseg_send",
  602: "path_send",
  603: "box_send",
  604: "poly_send",
  628: "line_send",
  700: "float4send",
  701: "float8send",
  718: "circle_send",
  1021: "array_send",
  1022: "array_send",
};
/** The OID of bytea, whose bytes are hashed as they are: their text would be twice as long. */
const BYTEA = 17;

/** A session whose values are those that are hashed everywhere. */
export async function openHashClient(
  target: PostgresTarget,
  { applicationName, signal }: { readonly applicationName: string; readonly signal: AbortSignal },
): Promise<Client> {
  const client = await openClient(target, { applicationName, settings: HASH_SETTINGS, signal });
  try {
    await passAnyBytes(client);
    await queryWith(client)(LATER_SETTINGS);
    // Some servers' platforms cannot.
    await queryWith(client)(NOTICE_LEAVING).catch(() => {});
    return client;
  } catch (thrown) {
    destroyClient(client);
    throw thrown;
  }
}

/** The columns of a table that count, by name. */
export async function readHashedColumns(query: Query, oid: number): Promise<HashedColumn[]> {
  const rows = await query(
    `SELECT attname, atttypid::text FROM pg_attribute a
      WHERE attrelid = ${oid} AND attnum > 0 AND NOT attisdropped
        AND COALESCE(to_jsonb(a) ->> 'attgenerated', '') = ''`,
  );
  return rows.map(({ attname, atttypid }) => ({ name: attname!, type: Number(atttypid) }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** The table in FROM, with its partitions and without its children. */
export function rowsOf({ schema, name, partitioned }: LocalTable): string {
  return `${partitioned ? "" : "ONLY "}${pg.escapeIdentifier(schema)}.${pg.escapeIdentifier(name)}`;
}

/**
 * The MD5 of the columns of a row `t`, 32 digits: of all their values as the binary form of an array of text, which
 * has the length of each before it and is the same in every release.
 */
export function hashOf(columns: readonly HashedColumn[]): string {
  return `md5(array_send(ARRAY[${columns.map(valueOf).join(", ")}]::text[]))`;
}

/** What is hashed of one value, NULL of NULL. */
function valueOf({ name, type }: HashedColumn): string {
  const column = `t.${pg.escapeIdentifier(name)}`;
  if (type === BYTEA) return `md5(${column})`;
  if (type in SEND_FUNCTIONS) return `md5(${SEND_FUNCTIONS[type]}(${column}))`;
  return sentTextOrNull(column);
}
