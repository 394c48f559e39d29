/**
 * The tables of this database that could be replicated, and how far each can be.
 */
import type { ReplicaIdentity } from "../pgoutput/message.ts";
import type { Query, Row } from "./query.ts";
import { tableKey, type TableName } from "../table_name.ts";

/** How a table is replicated: whole, or inserts only because nothing identifies its old rows. */
export type TableState = "replicated" | "insert_only";

/** A permanent ordinary or partitioned table. */
export interface LocalTable extends TableName {
  readonly oid: number;
  readonly partitioned: boolean;
  /** The partitioned table that it is a partition of. */
  readonly parent: TableName | null;
  readonly replicaIdentity: ReplicaIdentity;
  readonly hasPrimaryKey: boolean;
  /** Columns by which old rows are found, in the key's order; empty if every column or none is. */
  readonly keyColumns: readonly string[];
  readonly state: TableState;
  /** What lets updates and deletes be replicated too; null where they are. */
  readonly hint: string | null;
  /** The planner's estimate; null if the table was never analysed. */
  readonly estimatedRows: number | null;
}

/** See {@link partitionsByParent}. */
export type Partitions = ReadonlyMap<string, readonly LocalTable[]>;

/**
 * The rules of `RelationGetReplicaIndex`: the key must be valid, unique and not deferrable. Generated columns are not
 * replicated, so they identify nothing; from 18 on PostgreSQL refuses an UPDATE that would need them to.
 */
const TABLES = `SELECT c.oid::text, n.nspname AS schema, c.relname AS name, c.relkind, c.relreplident,
    pn.nspname AS parent_schema, p.relname AS parent_name, c.reltuples::bigint::text AS estimated_rows,
    EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)::text AS has_primary_key,
    key.columns AS key_columns, COALESCE(key.generated,
      c.relreplident = 'f' AND current_setting('server_version_num')::int >= 180000 AND EXISTS (
        SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          AND to_jsonb(a) ->> 'attgenerated' <> ''))::text AS generated
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_inherits h ON h.inhrelid = c.oid AND c.relispartition
  LEFT JOIN pg_class p ON p.oid = h.inhparent LEFT JOIN pg_namespace pn ON pn.oid = p.relnamespace
  CROSS JOIN LATERAL (
    SELECT json_agg(a.attname ORDER BY k.position)::text AS columns,
           bool_or(COALESCE(to_jsonb(a) ->> 'attgenerated', '') <> '') AS generated
      FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, position), pg_attribute a
     WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate
       AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident END
       AND k.position <= COALESCE((to_jsonb(i) ->> 'indnkeyatts')::int, i.indnatts)
       AND a.attrelid = c.oid AND a.attnum = k.attnum) key
  WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
    AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'mmlite')
  ORDER BY n.nspname, c.relname`;

const IDENTITIES: Readonly<Record<string, ReplicaIdentity>> = {
  d: "default",
  n: "nothing",
  f: "full",
  i: "index",
};

/** Every permanent table outside of system schemas and `mmlite`, by schema and name. */
export async function readTables(query: Query): Promise<LocalTable[]> {
  const tables = (await query(TABLES)).map(toTable);
  const partitions = partitionsByParent(tables);
  return tables.map((table) => table.partitioned ? withPartitions(table, partitions) : table);
}

function toTable(row: Row): LocalTable {
  const replicaIdentity = IDENTITIES[row.relreplident!];
  const generated = row.generated === "true";
  const keyColumns: string[] = row.key_columns === null || generated ? [] : JSON.parse(row.key_columns);
  const usable = keyColumns.length > 0 || (replicaIdentity === "full" && !generated);
  const name = { schema: row.schema!, name: row.name! };
  const estimatedRows = Number(row.estimated_rows);
  return {
    ...name,
    oid: Number(row.oid),
    partitioned: row.relkind === "p",
    parent: row.parent_name === null ? null : { schema: row.parent_schema!, name: row.parent_name },
    replicaIdentity,
    hasPrimaryKey: row.has_primary_key === "true",
    keyColumns,
    state: usable ? "replicated" : "insert_only",
    hint: usable
      ? null
      : generated
      ? generatedHint(replicaIdentity)
      : keyHint(row.has_primary_key === "true", replicaIdentity),
    estimatedRows: estimatedRows < 0 ? null : estimatedRows,
  };
}

function generatedHint(identity: ReplicaIdentity): string {
  return identity === "full"
    ? "PostgreSQL 18 publishes no whole rows with generated columns: set REPLICA IDENTITY to a key without them"
    : "Its key contains a generated column: set REPLICA IDENTITY to a key without, or to FULL below PostgreSQL 18";
}

function keyHint(hasPrimaryKey: boolean, identity: ReplicaIdentity): string {
  if (identity === "index") {
    return "Its replica identity index is gone or invalid: set another REPLICA IDENTITY";
  }
  if (!hasPrimaryKey) return "Add a primary key, or run ALTER TABLE … REPLICA IDENTITY FULL";
  return identity === "nothing"
    ? "Run ALTER TABLE … REPLICA IDENTITY DEFAULT"
    : "Its primary key is deferrable or invalid: run ALTER TABLE … REPLICA IDENTITY FULL";
}

/** PostgreSQL refuses an application's UPDATE of a partition without identity, whatever its parent has. */
function withPartitions(table: LocalTable, partitions: Partitions): LocalTable {
  const leaf = leavesOf(table, partitions).find((partition) => partition.state === "insert_only");
  if (leaf === undefined || table.state === "insert_only") return table;
  return { ...table, state: "insert_only", hint: `Partition ${leaf.schema}.${leaf.name}: ${leaf.hint}` };
}

/** The partitions of each partitioned table by its {@link tableKey}. */
export function partitionsByParent(tables: readonly LocalTable[]): Partitions {
  return Map.groupBy(
    tables.filter(({ parent }) => parent !== null),
    ({ parent }) => tableKey(parent!),
  );
}

/** The tables beneath a partitioned one, at any depth, partitioned ones too. */
export function beneath(table: TableName, partitions: Partitions): LocalTable[] {
  const children = partitions.get(tableKey(table)) ?? [];
  return children.flatMap((child) => [child, ...beneath(child, partitions)]);
}

/** The ordinary tables beneath a partitioned one, at any depth. */
export function leavesOf(table: TableName, partitions: Partitions): LocalTable[] {
  return beneath(table, partitions).filter(({ partitioned }) => !partitioned);
}
