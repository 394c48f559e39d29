/**
 * The SQL that writes rows of one table in their exact versions. Keys go as arrays of hexadecimal digits, values as
 * text, so that each is read by its type's own input function. Pure text.
 */
import { COMMIT_LOCK } from "../pg/conflict_schema.ts";
import { rowsOf } from "../pg/row_hash.ts";
import {
  keyHash,
  keyMatches,
  keyOfText,
  keyText,
  type ScannedTable,
  textOf,
  wantedKeys,
} from "../pg/scanned_table.ts";
import { versionText } from "../pg/whole_rows.ts";
import { literal, quote } from "./sql_text.ts";

/** See the module's head. */
export class ExactStatements {
  readonly scanned: ScannedTable;
  /** What the hashes of its keys begin with. */
  readonly label: string;
  /** Where the key's columns are among {@link ScannedTable.columns}, in the order of the table's. */
  readonly keyPlaces: readonly number[];

  constructor(scanned: ScannedTable) {
    this.scanned = scanned;
    this.label = `${scanned.hashedAs.schema}.${scanned.hashedAs.name}`;
    this.keyPlaces = scanned.keyOrder.map(({ name }) =>
      scanned.columns.findIndex((column) => column.name === name)
    );
  }

  /** How many values a row has. */
  get columns(): number {
    return this.scanned.columns.length;
  }

  /** Locks rows by their keys: number of the key, stamp. */
  get lock(): string {
    return `SELECT q.n::text, o.stamp FROM ${this.#locked("")}`;
  }

  /** The same, with the hash of the key and the version. */
  get lockVersions(): string {
    const { keyOrder, hashedAs } = this.scanned;
    const hash = `, t.xmin AS xmin, ${keyHash(hashedAs, keyOrder.map(textOf))} AS hash`;
    return `SELECT q.n::text, o.stamp, o.hash::text, CASE WHEN current_setting('track_commit_timestamp')::boolean
        THEN (SELECT ${versionText("v.at", "v.node")} FROM mmlite.row_version(o.xmin, o.hash) v) END
      FROM ${this.#locked(hash)}`;
  }

  #locked(more: string): string {
    const { table, key } = this.scanned;
    return `${wantedKeys(key)}, LATERAL (SELECT t.xmin::text AS stamp${more} FROM ${rowsOf(table)} t
      WHERE ${keyMatches(key)} FOR UPDATE) o`;
  }

  /** Whether rows can be updated to whatever they are to be: not where another column than the key's cannot be set. */
  get mayUpdate(): boolean {
    const { identityAlways, key } = this.scanned;
    return this.#settable.length > 0 &&
      identityAlways.every((name) => key.some((column) => column.name === name));
  }

  get #settable(): string[] {
    const { columns, identityAlways } = this.scanned;
    return columns.map(({ name }) => name).filter((name) => !identityAlways.includes(name));
  }

  /** The types of the values of some rows. */
  types(rows: number): number[] {
    return Array.from({ length: rows }, () => this.scanned.columns.map(({ type }) => type)).flat();
  }

  /** Updates rows, each by its key. */
  update(rows: number): string {
    const { table, columns, key } = this.scanned;
    const place = (name: string) => `v.c${columns.findIndex((column) => column.name === name)}`;
    const set = this.#settable.map((name) => `${quote(name)} = ${place(name)}`).join(", ");
    const matches = key.map(({ name, equality }) => `t.${quote(name)} OPERATOR(${equality}) ${place(name)}`);
    return `UPDATE ${rowsOf(table)} AS t SET ${set} FROM (VALUES ${this.#tuples(rows)}) AS v (${
      columns.map((_, i) => `c${i}`).join(", ")
    }) WHERE ${matches.join(" AND ")}`;
  }

  #tuples(rows: number): string {
    const width = this.columns;
    return Array.from(
      { length: rows },
      (_, row) => `(${Array.from({ length: width }, (_, i) => `$${row * width + i + 1}`).join(", ")})`,
    ).join(", ");
  }

  /** Deletes rows by their keys. */
  get remove(): string {
    const { table, key } = this.scanned;
    return `DELETE FROM ${rowsOf(table)} AS t USING ${wantedKeys(key)} WHERE ${keyMatches(key)}`;
  }

  /**
   * Inserts rows and returns their keys as {@link ExactStatements.keyOf} reads them; with `strict` it fails of another row that has
   * a value of one.
   */
  insert(rows: number, { strict }: { strict: boolean }): string {
    const { table, columns, key } = this.scanned;
    return `INSERT INTO ${quote(table.schema)}.${quote(table.name)} AS t (${
      columns.map(({ name }) => quote(name)).join(", ")
    }) OVERRIDING SYSTEM VALUE VALUES ${this.#tuples(rows)}${strict ? "" : " ON CONFLICT DO NOTHING"}
      RETURNING ${key.map(keyText).join(", ")}`;
  }

  /** The key of a row that {@link ExactStatements.insert} returns. */
  keyOf(row: readonly (string | null)[]): string[] {
    return this.scanned.key.map((column, i) => keyOfText(column, row[i]!));
  }

  /** From here on nobody else that applies commits before this transaction. */
  readonly awaitCommits = `SELECT pg_catalog.pg_advisory_xact_lock(${COMMIT_LOCK}, 0)`;

  /** Whether rows were deleted after a snapshot, by whomever: hashes, snapshot. */
  get anyGone(): string {
    return `SELECT (${goneSince("$1::bigint[]")} OR ${this.#truncatedSince})::text`;
  }

  /** Which of them, by their hashes. */
  get gone(): string {
    return `SELECT h.hash::text FROM unnest($1::bigint[]) AS h(hash)
      WHERE ${goneSince("ARRAY[h.hash]")} OR ${this.#truncatedSince}`;
  }

  get #truncatedSince(): string {
    const { schema, name } = this.scanned.table;
    return `EXISTS (SELECT FROM mmlite.truncation c WHERE c.table_schema = ${
      literal(schema)
    } AND c.table_name = ${
      literal(name)
    } AND NOT txid_visible_in_snapshot(mmlite.full_xid(c.xmin), $2::txid_snapshot))`;
  }

  /** Notes versions: node, first and last time, entries. */
  readonly group =
    `INSERT INTO mmlite.apply_group (xid, origin, first_timestamp, last_timestamp, entries, lasting)
    VALUES (pg_catalog.txid_current(), $1, $2, $3, decode($4, 'hex'), true)`;

  /** Notes deleted rows of one node: node, last time, entries. */
  readonly tombstones = "SELECT mmlite.note_deleted($1, $2, decode($3, 'hex'), '{}', '{}', '{}')";

  /** Tags what is written as of the session's origin, and of a time. */
  readonly tag = "SELECT pg_replication_origin_xact_setup(pg_current_wal_insert_lsn(), $1)";

  /** The same, as of now. */
  readonly tagNow = "SELECT pg_replication_origin_xact_setup(pg_current_wal_insert_lsn(), clock_timestamp())";
}

/** Whatever the time of the delete: what was noted before counted for what was seen. */
function goneSince(hashes: string): string {
  return `mmlite.meets_deleted(${hashes}, '-infinity', '', $2::txid_snapshot)`;
}
