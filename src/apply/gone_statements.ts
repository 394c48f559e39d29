/**
 * The SQL that looks for deleted rows once more before the commit. Pure text.
 */
import type { MappedRelation } from "./relation_map.ts";
import { keyMatches, keyTextsOf, literal, Parameters, rows, type StatementShape, where } from "./sql_text.ts";

/** Fails where a row that was deleted has come again, written by another session meanwhile, and is the older one. */
export function stillGoneStatement(relation: MappedRelation): StatementShape {
  const sql = new Parameters();
  return sql.shape(
    `SELECT mmlite.require_rows(pg_catalog.count(*), 0) FROM ${rows(relation)} WHERE ${
      where(relation, sql, "old")
    } AND mmlite.compare_version(t.xmin, ${sql.version("oldHash")}, ${sql.version("at")}, ${
      sql.version("node")
    }, '-infinity') = 1`,
    `delete from "${relation.label}"`,
  );
}

/** Keeps a deleted row for {@link keptStillGoneStatement}. */
export function keepGoneStatement(relation: MappedRelation): StatementShape {
  const sql = new Parameters();
  return sql.shape(
    `INSERT INTO mmlite.gone (xid, of_table, hash, key) VALUES (pg_catalog.txid_current(), ${
      literal(relation.label)
    }, ${sql.version("oldHash")}, ${keyTextsOf("old", relation.key!, sql)})`,
    `delete from "${relation.label}"`,
  );
}

/** As {@link stillGoneStatement} for every row that was kept, and forgets these. */
export function keptStillGoneStatement(relation: MappedRelation): StatementShape {
  const sql = new Parameters();
  return sql.shape(
    `WITH g AS (${takeKept(relation)}) SELECT mmlite.require_rows(pg_catalog.count(*), 0) FROM g, ${
      rows(relation)
    } WHERE ${keyMatches(relation, (i) => `g.key[${i + 1}]`)} AND mmlite.compare_version(t.xmin, g.hash, ${
      sql.version("at")
    }, ${sql.version("node")}, '-infinity') = 1`,
    `delete from "${relation.label}"`,
  );
}

/** Returns what {@link keepGoneStatement} has kept of a table, and forgets it. */
export function takeKept(relation: MappedRelation): string {
  return `DELETE FROM mmlite.gone k WHERE k.xid = pg_catalog.txid_current() AND k.of_table = ${
    literal(relation.label)
  } RETURNING k.hash, k.key`;
}
