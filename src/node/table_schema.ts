/**
 * What the replicated tables of this node consist of, told to a peer that wants the same; and taken over from one.
 */
import { createSchema, readSchemaOf } from "../pg/schema_target.ts";
import type { Query } from "../pg/query.ts";
import type { SchemaItems } from "../pg/schema_items.ts";
import { type LocalTable, type Partitions, partitionsByParent, readTables } from "../pg/tables.ts";
import { tableKey } from "../table_name.ts";
import type { Database } from "./database.ts";
import { readComparableTables } from "./digest_jobs.ts";

/** What {@link ownSchema} and {@link takeSchema} need. */
export interface TableSchemaOptions {
  readonly database: Database;
  readonly patterns: { readonly include: readonly string[]; readonly exclude: readonly string[] };
  readonly signal: AbortSignal;
}

/** Of all tables that are replicated, partitions included. */
export function ownSchema({ database, patterns, signal }: TableSchemaOptions): Promise<SchemaItems> {
  const options = { target: database.target, serverVersion: database.facts.versionNumber, signal };
  return readSchemaOf(options, async (query) => {
    const partitions = partitionsByParent(await readTables(query));
    const tables = (await readComparableTables(query, patterns)).flatMap((table) =>
      withPartitions(table, partitions)
    );
    return [...new Set(tables.map(({ oid }) => oid))];
  });
}

/** Makes here what is missing of it, in a transaction in which `alongside` writes what was made. */
export async function takeSchema(
  { database, signal }: Omit<TableSchemaOptions, "patterns">,
  items: SchemaItems,
  alongside: (query: Query, made: readonly string[]) => Promise<void>,
): Promise<void> {
  await createSchema(
    { target: database.target, serverVersion: database.facts.versionNumber, signal },
    items,
    (query, made) => alongside(query, made.map(({ kind, name }) => `${kind} ${name}`)),
  );
}

function withPartitions(table: LocalTable, partitions: Partitions): LocalTable[] {
  const children = partitions.get(tableKey(table)) ?? [];
  return [table, ...children.flatMap((child) => withPartitions(child, partitions))];
}
