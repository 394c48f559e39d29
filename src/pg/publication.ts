/**
 * The two publications, kept equal to the tables that are wanted.
 *
 * `mmlite` publishes everything; `mmlite_inserts` only inserts (and truncates), for tables whose old rows nothing
 * identifies: in the other one, PostgreSQL would refuse the application's own UPDATE and DELETE. Never FOR ALL
 * TABLES. Options: https://www.postgresql.org/docs/current/sql-createpublication.html.
 */
// @ts-types="@types/pg"
import pg from "pg";
import { mapPostgresError } from "./errors.ts";
import type { Query } from "./query.ts";
import type { TableMatcher } from "./table_pattern.ts";
import { tableKey, type TableName } from "../table_name.ts";
import { leavesOf, type LocalTable, partitionsByParent, type TableState } from "./tables.ts";

/** The publications that every slot reads, whole tables first. */
export const PUBLICATIONS = ["mmlite", "mmlite_inserts"] as const;

/** What a publication should be, or is. */
export interface Publication {
  readonly name: string;
  /** Kinds of change, in PostgreSQL's order: insert, update, delete, truncate. */
  readonly publish: readonly string[];
  /** Partitions publish under the name of their topmost published parent; always false below 13. */
  readonly viaRoot: boolean;
  /** By schema and name. */
  readonly tables: readonly TableName[];
}

/** How long the lock on a table to be added may take, milliseconds: writers queue up behind it. */
const LOCK_TIMEOUT_MS = 2_000;
/** First minor of each major in which adding a table loses no change of transactions then running. */
const ADD_TABLE_FIXED: Readonly<Record<number, number>> = { 14: 18, 15: 13, 16: 9, 17: 5 };

/**
 * The tables that are published of those that `matches` wants: from 13 on a partitioned table stands for its
 * partitions, below each partition for itself.
 */
export function publishedTables(
  tables: readonly LocalTable[],
  { matches, serverVersion }: { matches: TableMatcher; serverVersion: number },
): LocalTable[] {
  const matched = tables.filter(matches);
  if (serverVersion >= 130_000) {
    const byKey = new Map(tables.map((table) => [tableKey(table), table]));
    return matched.filter((table) => ancestorsOf(table, byKey).every((ancestor) => !matches(ancestor)));
  }
  const partitions = partitionsByParent(tables);
  const leaves = matched.flatMap((table) => table.partitioned ? leavesOf(table, partitions) : [table]);
  return [...new Set(leaves)].sort(byName);
}

function ancestorsOf({ parent }: LocalTable, byKey: ReadonlyMap<string, LocalTable>): LocalTable[] {
  const found = parent === null ? undefined : byKey.get(tableKey(parent));
  return found === undefined ? [] : [found, ...ancestorsOf(found, byKey)];
}

/** What the publications should be for these tables. */
export function planPublications(published: readonly LocalTable[], serverVersion: number): Publication[] {
  const truncate = serverVersion >= 110_000 ? ["truncate"] : [];
  const kinds: Record<TableState, string[]> = {
    replicated: ["insert", "update", "delete", ...truncate],
    insert_only: ["insert", ...truncate],
  };
  return (["replicated", "insert_only"] as const).map((state, index) => ({
    name: PUBLICATIONS[index],
    publish: kinds[state],
    viaRoot: serverVersion >= 130_000,
    tables: published.filter((table) => table.state === state).map(({ schema, name }) => ({ schema, name })),
  }));
}

/** The publications as they are; those that do not exist are left out. */
export async function readPublications(query: Query): Promise<Publication[]> {
  const rows = await query(
    `SELECT p.pubname, to_jsonb(p)::text AS settings,
       (SELECT COALESCE(json_agg(json_build_array(n.nspname, c.relname) ORDER BY n.nspname, c.relname), '[]')::text
          FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid
          JOIN pg_namespace n ON n.oid = c.relnamespace WHERE r.prpubid = p.oid) AS tables
     FROM pg_publication p WHERE p.pubname IN ('${PUBLICATIONS.join("', '")}')`,
  );
  return rows.map((row) => {
    const settings = JSON.parse(row.settings!);
    const tables: [string, string][] = JSON.parse(row.tables!);
    return {
      name: row.pubname!,
      publish: ["insert", "update", "delete", "truncate"].filter((kind) => settings[`pub${kind}`] === true),
      viaRoot: settings.pubviaroot === true,
      tables: tables.map(([schema, name]) => ({ schema, name })),
    };
  });
}

/** The statements that turn `present` into `wanted`, to be run in one transaction; none if they are equal. */
export function publicationStatements(
  wanted: readonly Publication[],
  { present, serverVersion }: { present: readonly Publication[]; serverVersion: number },
): string[] {
  const changes = wanted.map((publication) => {
    const old = present.find(({ name }) => name === publication.name);
    const added = without(publication.tables, old?.tables ?? []);
    return { publication, old, added };
  });
  const statements = [
    ...changes.flatMap(({ publication, old }) => old === undefined ? [] : removals(publication, old)),
    ...changes.flatMap(({ publication, old, added }) => additions(publication, old, added)),
  ];
  const added = changes.flatMap((change) => change.added);
  if (added.length === 0 || !losesChangesOnAdd(serverVersion)) return statements;
  return [
    `SET LOCAL lock_timeout = '${LOCK_TIMEOUT_MS}ms'`,
    `LOCK TABLE ${added.map(quoteTable).join(", ")} IN SHARE ROW EXCLUSIVE MODE`,
    ...statements,
  ];
}

/**
 * Makes the publications equal to `wanted`, in one transaction; returns what was run, nothing if they were equal.
 * Throws `transient` if a table is locked for too long (to be tried again later), `permission` if the role owns
 * a table not.
 */
export async function ensurePublications(
  query: Query,
  { wanted, serverVersion }: { wanted: readonly Publication[]; serverVersion: number },
): Promise<string[]> {
  const present = await readPublications(query);
  const statements = publicationStatements(wanted, { present, serverVersion });
  if (statements.length === 0) return statements;
  try {
    // Several statements in one simple query are one transaction.
    await query([...statements, ""].join(";\n"));
  } catch (error) {
    throw mapPostgresError(error, `publish tables`);
  }
  return statements;
}

/** Whether a server loses changes of running transactions when a table is added without a lock (facts of 2025). */
export function losesChangesOnAdd(serverVersion: number): boolean {
  const major = Math.floor(serverVersion / 10_000);
  if (major < 14) return true;
  return serverVersion % 10_000 < (ADD_TABLE_FIXED[major] ?? 0);
}

function removals(wanted: Publication, old: Publication): string[] {
  const removed = without(old.tables, wanted.tables);
  if (removed.length === 0) return [];
  return [`ALTER PUBLICATION ${wanted.name} DROP TABLE ${tableList(removed)}`];
}

function additions(wanted: Publication, old: Publication | undefined, added: readonly TableName[]): string[] {
  if (old === undefined) {
    const tables = added.length === 0 ? "" : ` FOR TABLE ${tableList(added)}`;
    return [`CREATE PUBLICATION ${wanted.name}${tables} WITH (${options(wanted)})`];
  }
  const statements: string[] = [];
  if (options(wanted) !== options(old)) {
    statements.push(`ALTER PUBLICATION ${wanted.name} SET (${options(wanted)})`);
  }
  if (added.length > 0) statements.push(`ALTER PUBLICATION ${wanted.name} ADD TABLE ${tableList(added)}`);
  return statements;
}

function options({ publish, viaRoot }: Publication): string {
  return `publish = '${publish.join(", ")}'${viaRoot ? ", publish_via_partition_root = true" : ""}`;
}

/** ONLY: children by plain inheritance are tables of their own, to be matched by name. */
function tableList(tables: readonly TableName[]): string {
  return tables.map((table) => `ONLY ${quoteTable(table)}`).join(", ");
}

/** A table in SQL. */
export function quoteTable({ schema, name }: TableName): string {
  return `${pg.escapeIdentifier(schema)}.${pg.escapeIdentifier(name)}`;
}

function without(tables: readonly TableName[], others: readonly TableName[]): TableName[] {
  const keys = new Set(others.map(tableKey));
  return tables.filter((table) => !keys.has(tableKey(table)));
}

function byName(a: TableName, b: TableName): number {
  if (a.schema !== b.schema) return a.schema < b.schema ? -1 : 1;
  return a.name < b.name ? -1 : a.name > b.name ? 1 : 0;
}
