/**
 * What a database notes of rows beside them and a copy of the rows needs as well: deleted rows, rows that await values,
 * changes to be looked at again, tables that have diverged.
 */
import type { Query, Row } from "./query.ts";

/** One note, as it travels; `kind` says of what. */
export interface CopiedNote {
  readonly kind: keyof typeof KINDS;
  /** Its columns as text. */
  readonly row: Row;
}

interface Kind {
  /** Reads all of the kind. */
  readonly read: string;
  /** Notes one here. */
  readonly write: string;
  readonly columns: readonly string[];
}

const KINDS = {
  deleted: {
    read:
      `SELECT d.origin, d.last_timestamp::text AS at, encode(coalesce((SELECT string_agg(p.entries, '' ORDER BY p.first_hash)
        FROM mmlite.tombstone_piece p WHERE p.run = d.run), d.entries), 'hex') AS entries FROM mmlite.tombstone d`,
    write: "SELECT mmlite.note_deleted($1, $2::timestamptz, decode($3, 'hex'), '{}', '{}', '{}')",
    columns: ["origin", "at", "entries"],
  },
  truncated: {
    read: "SELECT table_schema, table_name, origin, commit_timestamp::text AS at FROM mmlite.truncation",
    write:
      "SELECT mmlite.note_deleted($3, $4::timestamptz, '', ARRAY[$1::text], ARRAY[$2::text], ARRAY[$4::timestamptz])",
    columns: ["table_schema", "table_name", "origin", "at"],
  },
  unsent: {
    read: `SELECT origin, table_schema, table_name, array_to_json(key_columns)::text AS key_columns,
        array_to_json(key)::text AS key, hash::text AS hash, at::text AS at FROM mmlite.unsent`,
    write: `INSERT INTO mmlite.unsent (origin, table_schema, table_name, key_columns, key, hash, at)
      SELECT $1, $2, $3, ARRAY(SELECT json_array_elements_text($4::json)), ARRAY(SELECT json_array_elements_text($5::json)),
        $6::bigint, $7::timestamptz`,
    columns: ["origin", "table_schema", "table_name", "key_columns", "key", "hash", "at"],
  },
  second_look: {
    read:
      `SELECT table_schema, table_name, found_in, found_by, array_to_json(key_columns)::text AS key_columns,
        array_to_json(key)::text AS key, hash::text AS hash, origin, at::text AS at, change, newer, older
      FROM mmlite.second_look ORDER BY id`,
    write:
      `INSERT INTO mmlite.second_look (table_schema, table_name, found_in, found_by, key_columns, key, hash,
        origin, at, change, newer, older)
      SELECT $1, $2, $3, $4, ARRAY(SELECT json_array_elements_text($5::json)),
        ARRAY(SELECT json_array_elements_text($6::json)), $7::bigint, $8, $9::timestamptz, $10, $11, $12`,
    columns: [
      ...["table_schema", "table_name", "found_in", "found_by", "key_columns", "key", "hash"],
      ...["origin", "at", "change", "newer", "older"],
    ],
  },
  diverged: {
    read: "SELECT table_schema, table_name, reason FROM mmlite.diverged",
    write: "SELECT mmlite.mark_diverged($1, $2, $3)",
    columns: ["table_schema", "table_name", "reason"],
  },
} as const satisfies Readonly<Record<string, Kind>>;

/**
 * Those of changes that are applied, which are gone once they are done with: a copy needs those of its own snapshot, for
 * later changes come to it as to any node. The others are needed as of any later moment: a delete is noted after it was
 * committed.
 */
export const NOTES_OF_SNAPSHOT = ["unsent", "second_look"] as const satisfies readonly CopiedNote["kind"][];
/** See {@link NOTES_OF_SNAPSHOT}. */
export const LATER_NOTES = [
  "deleted",
  "truncated",
  "diverged",
] as const satisfies readonly CopiedNote["kind"][];

/** Names of the kinds. */
export const NOTE_KINDS = Object.keys(KINDS) as readonly CopiedNote["kind"][];

/** As many notes are read at a time; a list of deleted rows has up to 8 MiB of digits. */
const FETCHED_NOTES = 4;

/** Every note of some kinds, in a transaction of the caller on a connection that nobody else uses meanwhile. */
export async function* readNotes(
  query: Query,
  kinds: readonly CopiedNote["kind"][],
): AsyncGenerator<CopiedNote> {
  for (const kind of kinds) {
    await query(`DECLARE notes CURSOR FOR ${KINDS[kind].read}`);
    for (;;) {
      const rows = await query(`FETCH ${FETCHED_NOTES} FROM notes`);
      for (const row of rows) yield { kind, row };
      if (rows.length < FETCHED_NOTES) break;
    }
    await query("CLOSE notes");
  }
}

/** Notes it here. */
export async function writeNote(query: Query, { kind, row }: CopiedNote): Promise<void> {
  const { write, columns } = KINDS[kind];
  await query(write, columns.map((name) => row[name] ?? null));
}
