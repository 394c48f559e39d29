/**
 * Which of the tables that are to be published were created since the last time.
 */
import { quoteTable, readPublications } from "../pg/publication.ts";
import type { Query } from "../pg/query.ts";
import { beneath, type LocalTable, partitionsByParent } from "../pg/tables.ts";
import { tableKey } from "../table_name.ts";

/** A table that nobody has published yet, with what is beneath it: it is published together with its rows. */
export type FreshTable = LocalTable & { readonly beneath: readonly LocalTable[] };

/** See {@link findFresh}. */
export interface Fresh {
  readonly fresh: readonly FreshTable[];
  /** New partitioned tables over one that is not new, which are published as they are: their partitions that are new. */
  readonly mixed: readonly { readonly root: LocalTable; readonly partitions: readonly LocalTable[] }[];
}

/**
 * Sorts out what is new. A new partitioned table over a table that is known, or published, is not fresh: in its place
 * that one was published, and must be without a gap; and of its rows each was decoded before, or is to stay where it is.
 */
export async function findFresh(
  query: Query,
  { tables, known, present }: {
    readonly tables: readonly LocalTable[];
    readonly known: ReadonlySet<number>;
    readonly present: readonly LocalTable[];
  },
): Promise<Fresh> {
  const unknown = tables.filter(({ oid }) => !known.has(oid));
  if (unknown.length === 0) return { fresh: [], mixed: [] };
  const published = new Set((await readPublications(query)).flatMap(({ tables }) => tables.map(tableKey)));
  const isOld = (table: LocalTable) => known.has(table.oid) || published.has(tableKey(table));
  const partitions = partitionsByParent(present);
  const found = unknown.filter((table) => !published.has(tableKey(table)))
    .map((table) => ({ ...table, beneath: beneath(table, partitions) }));
  return {
    fresh: found.filter((table) => !table.beneath.some(isOld)),
    mixed: found.filter((table) => table.beneath.some(isOld)).map((root) => ({
      root,
      partitions: root.beneath.filter((table) => !table.partitioned && !isOld(table)),
    })),
  };
}

/** Those that are published as they are. */
export function withoutFresh(tables: readonly LocalTable[], fresh: readonly FreshTable[]): LocalTable[] {
  const oids = new Set(fresh.map(({ oid }) => oid));
  return tables.filter(({ oid }) => !oids.has(oid));
}

/** Of a table and of what is beneath it. */
export function oidsOf({ oid, beneath }: FreshTable): number[] {
  return [oid, ...beneath.map(({ oid }) => oid)];
}

/** Whether any of the tables has rows. */
export async function haveRows(query: Query, tables: readonly LocalTable[]): Promise<boolean> {
  if (tables.length === 0) return false;
  const any = tables.map((table) => `EXISTS (SELECT FROM ${quoteTable(table)})`).join(" OR ");
  const [{ found }] = await query(`SELECT (${any})::text AS found`);
  return found === "true";
}
