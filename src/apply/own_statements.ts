/**
 * The SQL that removes rows which were written here though this node had deleted them later. Pure text.
 */
import type { MappedRelation } from "./relation_map.ts";
import { keyHash, keyMatches, keyTexts, literal, rows } from "./sql_text.ts";

/** Of as many removed rows the statements tell. */
export const MAX_TOLD = 10_000;

/**
 * Removes rows by their keys where another node's older version is there; a line of each, see {@link noting}.
 * Parameters: this node's name; of each row the hash of its key and when it was deleted; then each key column, all as
 * arrays of text.
 */
export function removeDeletedStatement(relation: MappedRelation): string {
  const key = relation.key!.columns;
  const arrays = key.map((_, i) => `pg_catalog.unnest($${i + 4}::text[]) AS c${i}`).join(", ");
  const matches = keyMatches(relation, (i) => `v.c${i}`);
  const values =
    `(SELECT pg_catalog.unnest($2::int8[]) AS hash, pg_catalog.unnest($3::timestamptz[]) AS at, ${arrays}) AS v`;
  return noting(
    relation,
    `DELETE FROM ${rows(relation)} USING ${values} WHERE ${matches}` +
      ` AND mmlite.compare_version(t.xmin, v.hash, v.at, $1, '-infinity') = 1` +
      ` RETURNING pg_catalog.to_json(t.*) AS row, v.at AS at, ${keyOf(relation)}, ${versionOf("v.hash")}`,
  );
}

/**
 * Removes every row of another node's that is older than a truncate; a line of each that has a key, see {@link noting}.
 * Parameters: this node's name, and when it was.
 */
export function removeTruncatedStatement(relation: MappedRelation): string {
  const hash = keyHash(relation);
  return noting(
    relation,
    `DELETE FROM ${
      rows(relation)
    } WHERE mmlite.compare_version(t.xmin, ${hash}, $2::timestamptz, $1, '-infinity') = 1` +
      ` RETURNING pg_catalog.to_json(t.*) AS row, $2::timestamptz AS at, ${keyOf(relation)}, ${
        versionOf(hash)
      }`,
  );
}

/** The texts of its key as JSON, NULL without one, and the hash of that. */
function keyOf(relation: MappedRelation): string {
  const { key } = relation;
  const texts = key === null ? "NULL" : `pg_catalog.array_to_json(${keyTexts(key)})`;
  return `${texts} AS key, ${keyHash(relation)} AS hash`;
}

function versionOf(hash: string): string {
  return `(SELECT r.node FROM mmlite.row_version(t.xmin, ${hash}) r) AS node,` +
    ` (SELECT r.at FROM mmlite.row_version(t.xmin, ${hash}) r) AS committed_at`;
}

/**
 * What was removed is a row that came after its delete; its node is not known where that was removed meanwhile. The
 * lines are no more than {@link MAX_TOLD}: `key`, `hash`, `at`, when it was deleted; `removed`, how many there are, and
 * `oldest`, when the first of them was committed.
 */
function noting({ schema, name }: MappedRelation, removal: string): string {
  return `WITH gone AS (${removal}) SELECT g.* FROM (SELECT gone.key::text AS key, gone.hash::text AS hash, gone.at::text AS at,` +
    ` pg_catalog.count(mmlite.note_conflict('update_deleted', 'skipped', 'insert', ${literal(schema)}, ${
      literal(name)
    }, NULL, NULL, $1, gone.at, gone.row, coalesce(gone.node, ''), gone.committed_at)) OVER ()::text AS removed,` +
    ` pg_catalog.min(gone.committed_at) OVER ()::text AS oldest` +
    ` FROM gone) AS g LIMIT ${MAX_TOLD}`;
}
