/**
 * The table `mmlite.known_tables`: which tables there were when the publications were last looked after, by OID.
 */
import type { Query } from "./query.ts";

/** The tables that were there; undefined before the first time. */
export async function readKnownTables(query: Query): Promise<ReadonlySet<number> | undefined> {
  const [row] = await query("SELECT to_json(oids)::text AS oids FROM mmlite.known_tables");
  // As JSON they are digits in quotes.
  return row === undefined ? undefined : new Set((JSON.parse(row.oids!) as string[]).map(Number));
}

/** Notes which tables there are. */
export async function saveKnownTables(query: Query, oids: Iterable<number>): Promise<void> {
  await query(
    `INSERT INTO mmlite.known_tables (oids) VALUES ($1::oid[])
     ON CONFLICT (only_row) DO UPDATE SET oids = excluded.oids`,
    [`{${[...oids].join(",")}}`],
  );
}

/** Notes some more. */
export async function addKnownTables(query: Query, oids: readonly number[]): Promise<void> {
  await query("UPDATE mmlite.known_tables SET oids = oids || $1::oid[]", [`{${oids.join(",")}}`]);
}
