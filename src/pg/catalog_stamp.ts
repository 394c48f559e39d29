/**
 * Whether anything has changed that `tables.ts` and `publication.ts` read, for much less than reading it.
 */
import type { Query } from "./query.ts";

/** What the catalogs were at one time. Equal `rows` mean equal tables and publications. */
export interface CatalogStamp {
  /** Which transactions were over, and since when the server runs. */
  readonly snapshot: string;
  /** How many rows each catalog has, and the sum of the transactions that wrote them. */
  readonly rows: string;
}

/**
 * Every catalog that says which tables there are and what is published of them. Which columns are generated is
 * told by `pg_attrdef`, with a tenth of the rows of `pg_attribute`; only that a key's column has another name is
 * missed.
 */
const CATALOGS = [
  ...["pg_namespace", "pg_class", "pg_inherits", "pg_index", "pg_attrdef"],
  ...["pg_publication", "pg_publication_rel"],
];

/**
 * A row that is new was written by a later transaction than any before, so with as many rows as before the sum is
 * higher. Where it is not, because transaction ids have wrapped around, the epoch (the upper half of a snapshot's
 * ids) is another. What is changed in place (estimated rows, by VACUUM) does not show.
 */
const ROWS = `SELECT concat_ws(' ', started, txid_snapshot_xmax(txid_current_snapshot()) >> 32, ${
  CATALOGS.map((catalog) => `(SELECT (count(*), sum(xmin::text::bigint)) FROM ${catalog})`).join(", ")
})`;
/** A server that has crashed may use the ids of lost transactions again; so each of its starts is another time. */
const STAMP = `SELECT snapshot, CASE WHEN snapshot <> $1 THEN (${ROWS}) END AS rows
  FROM (SELECT started, concat_ws(' ', started, txid_current_snapshot()) AS snapshot
          FROM (SELECT pg_postmaster_start_time() AS started) AS start) AS now`;

/**
 * Reads the stamp. While no transaction that writes has ended, in any database of the server, `last` holds: that
 * costs the same with any number of tables. Otherwise the catalogs are counted, some 20 ms with 10,000 tables.
 */
export async function readCatalogStamp(query: Query, last: CatalogStamp | undefined): Promise<CatalogStamp> {
  const [{ snapshot, rows }] = await query(STAMP, [last?.snapshot ?? ""]);
  return { snapshot: snapshot!, rows: rows ?? last!.rows };
}
