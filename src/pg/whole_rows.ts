/**
 * Rows as they are, for another node that takes them over: every value, and when and by whom they were written.
 */
// @ts-types="@types/pg"
import pg from "pg";
import type { Query, Row } from "./query.ts";
import { rowsOf } from "./row_hash.ts";
import {
  keyHash,
  keyMatches,
  keyParameters,
  keyValue,
  type ScannedTable,
  versionColumns,
  versionHash,
  wantedKeys,
} from "./scanned_table.ts";
import { sentText, sentTextOrNull } from "./sent_text.ts";

/** When a row was committed, microseconds since 2000-01-01 UTC, and on which node. */
export interface Version {
  readonly at: bigint;
  readonly node: string;
}

/** What there is of a key. */
export type WholeRow =
  | {
    readonly kind: "row";
    /** Changes whenever it is written. */
    readonly stamp: number;
    /** Null where it is not known any more, which is older than all that is. */
    readonly version: Version | null;
    /** Of each column, in the order of {@link ScannedTable.columns}, the hexadecimal digits of its text's bytes. */
    readonly values: readonly (string | null)[];
  }
  /** There is none; when it was deleted, if that is known still. */
  | { readonly kind: "none"; readonly version: Version | null }
  /** It has more than {@link MAX_ROW_BYTES}. */
  | { readonly kind: "long" };

/** Longest row, bytes of its values as text. */
export const MAX_ROW_BYTES = 16 * 0x10_0000;
/** Values of one answer, bytes: twice as many digits have to fit into a line. */
const MAX_ANSWER_BYTES = MAX_ROW_BYTES;

/** Reads rows by their keys; of many long ones the first ones, and one at least. */
export async function readWholeRows(
  query: Query,
  scanned: ScannedTable,
  keys: readonly (readonly string[])[],
): Promise<WholeRow[]> {
  if (keys.length === 0) return [];
  const sql = wholeRowsSql(scanned);
  await query("BEGIN READ ONLY");
  try {
    // As replication sends floats, not as they are hashed.
    await query("SET LOCAL extra_float_digits = '3'");
    const rows = await query(sql, keyParameters(scanned, keys));
    return rows.map((row) => toWholeRow(row, scanned.columns.length));
  } finally {
    await query("COMMIT").catch(() => {});
  }
}

function wholeRowsSql(scanned: ScannedTable): string {
  const { table, key, keyOrder, hashedAs, columns } = scanned;
  const values = columns.map((column, i) =>
    `, ${sentTextOrNull(`t.${pg.escapeIdentifier(column.name)}`)} AS v${i}`
  ).join("");
  const lengths = columns.map((_, i) => `coalesce(octet_length(o.v${i}), 0)::bigint`).join(" + ");
  const digits = columns.map((_, i) =>
    `, CASE WHEN q.length <= ${MAX_ROW_BYTES} THEN encode(convert_to(q.v${i}, pg_client_encoding()), 'hex') END AS c${i}`
  ).join("");
  const wanted = keyHash(
    hashedAs,
    keyOrder.map((column) => sentText(keyValue(column, key.indexOf(column)))),
  );
  const [schema, name] = [pg.escapeLiteral(table.schema), pg.escapeLiteral(table.name)];
  // A row that is not here has no stamp. Nodes delete what they have: of several deletes the last one counts.
  return `SELECT q.stamp, (q.length > ${MAX_ROW_BYTES})::text AS is_long, CASE WHEN q.stamp IS NULL
      THEN (SELECT ${versionText("g.deleted_at", "g.deleted_by")}
              FROM mmlite.newest_tombstone(${wanted}, ${schema}, ${name}, '-infinity', '') g)
      WHEN current_setting('track_commit_timestamp')::boolean
      THEN (SELECT ${versionText("v.at", "v.node")} FROM mmlite.row_version(q.xmin, ${
    versionHash(scanned, "q")
  }) v) END AS version${digits}
    FROM (SELECT s.*, sum(least(s.length, ${MAX_ROW_BYTES})) OVER (ORDER BY s.n) AS total
      FROM (SELECT q.*, o.*, ${lengths} AS length FROM ${wantedKeys(key)} LEFT JOIN LATERAL (
        SELECT t.xmin::text AS stamp, ${versionColumns(scanned)}${values}
          FROM ${rowsOf(table)} t WHERE ${keyMatches(key)} OFFSET 0) o ON true) s) q
   WHERE q.total <= ${MAX_ANSWER_BYTES} OR q.n = 1 ORDER BY q.n`;
}

/** A version in SQL as {@link parseVersion} reads it. */
export function versionText(at: string, node: string): string {
  return `(extract(epoch FROM ${at} - timestamptz '2000-01-01 00:00:00Z') * 1000000)::bigint::text || ' ' || ${node}`;
}

/** Reads a version that {@link versionText} has written. */
export function parseVersion(text: string | null): Version | null {
  if (text === null) return null;
  const [at, node] = text.split(" ");
  return { at: BigInt(at), node };
}

/** Whether a version is newer than another one, of which null is the oldest. */
export function isNewer(one: Version | null, other: Version | null): boolean {
  if (one === null || other === null) return one !== null;
  return one.at > other.at || (one.at === other.at && one.node > other.node);
}

function toWholeRow(row: Row, columns: number): WholeRow {
  const version = parseVersion(row.version);
  if (row.stamp === null) return { kind: "none", version };
  if (row.is_long === "true") return { kind: "long" };
  const values = Array.from({ length: columns }, (_, i) => row[`c${i}`]);
  return { kind: "row", stamp: Number(row.stamp), version, values };
}
