/**
 * Whether two nodes hold the same rows: the comparison of a joining node's tables with a member's.
 */
import { createHash } from "node:crypto";
import type { TableDigest } from "../pg/digest.ts";
import { formatTableName, type TableName } from "../table_name.ts";

/** What is compared of one table on one node. */
export interface ComparedTable extends TableName {
  /** A hash of the columns' names. */
  readonly columns: string;
  /** How many rows, a 64-bit integer as text. */
  readonly rows: string;
  /** Over columns and rows; null where they were only counted, because the other node has none. */
  readonly hash: string | null;
}

/** A table of which the two nodes do not hold the same rows. */
export interface TableDifference {
  /** For people, such as `public.orders`. */
  readonly table: string;
  readonly here: string;
  readonly there: string;
  /** Whether it is empty here, and has the same columns: then its rows can come from there. */
  readonly canBeFilled: boolean;
}

/** A digest in the short form that is compared. */
export function toCompared({ schema, name, columns, rows, hash }: TableDigest): ComparedTable {
  const names = createHash("sha256").update(JSON.stringify(columns)).digest("hex").slice(0, 16);
  return { schema, name, columns: names, rows, hash };
}

/** The tables that differ, by name: those that are neither empty on both nodes nor equal. An absent one is empty. */
export function compareTables(
  here: readonly ComparedTable[],
  there: readonly ComparedTable[],
): TableDifference[] {
  const byName = (tables: readonly ComparedTable[]) =>
    new Map(tables.map((table) => [formatTableName(table), table]));
  const [mine, theirs] = [byName(here), byName(there)];
  const names = [...new Set([...mine.keys(), ...theirs.keys()])].sort();
  return names.flatMap((table) => compareTable(table, mine.get(table), theirs.get(table)));
}

function compareTable(
  table: string,
  here: ComparedTable | undefined,
  there: ComparedTable | undefined,
): TableDifference[] {
  const [mine, theirs] = [here?.rows ?? "0", there?.rows ?? "0"];
  if (mine === "0" && theirs === "0") return [];
  if (here !== undefined && there !== undefined && mine === theirs) {
    if (here.hash === there.hash && here.hash !== null) return [];
    const why = here.columns === there.columns ? "with other values" : "with other columns";
    return [{ table, here: count(here), there: `${count(there)} ${why}`, canBeFilled: false }];
  }
  const canBeFilled = mine === "0" && here !== undefined && here.columns === there?.columns;
  const isUnlike = here !== undefined && there !== undefined && here.columns !== there.columns;
  const said = isUnlike ? `${count(there)} with other columns` : count(there);
  return [{ table, here: count(here), there: said, canBeFilled }];
}

function count(table: ComparedTable | undefined): string {
  if (table === undefined) return "not replicated";
  return table.rows === "1" ? "1 row" : `${table.rows} rows`;
}
