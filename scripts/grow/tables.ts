/**
 * The tables of a mesh that grows, which are those of the convergence test, the rows that they begin with, and how they
 * are read and compared.
 */
import type { Key, Keys } from "../converge/plan.ts";
import { makeKey } from "../converge/plan.ts";
import {
  keyParts,
  keyText,
  LOG_TABLE,
  schemaSql,
  showKey,
  type Table,
  TABLES,
  timeText,
} from "../converge/tables.ts";
import type { GrowNode } from "./mesh.ts";

/** Rows in the beginning: small ones, and ones whose large value is stored out of line. */
const SMALL_ROWS = 40_000;
const LARGE_ROWS = 200;
/** Keys that clients write: each of the lowest, and one in so many of the others. */
const HOT_KEYS = 25;
const FAR_KEYS = 25;

/** Makes the tables. */
export function growSchemaSql(): string {
  return schemaSql();
}

/** Fills the tables. */
export function fillSql(): string {
  const large = (table: string) =>
    `INSERT INTO public.${table} SELECT g, g, repeat(md5(g::text), 400) FROM generate_series(1, ${LARGE_ROWS}) g`;
  return [
    `INSERT INTO public.plain SELECT g, g % 1000, md5(g::text) FROM generate_series(1, ${SMALL_ROWS}) g`,
    `INSERT INTO public.pair SELECT 'first', g::text, g, 'x' FROM generate_series(1, 1000) g`,
    large("heavy"),
    large("bulky"),
  ].join(";\n");
}

/** The keys that every client writes. */
export function growKeys(): Keys {
  return new Map(TABLES.map((table) => {
    const rows = table.large ? LARGE_ROWS : SMALL_ROWS;
    const far = Array.from(
      { length: FAR_KEYS },
      (_, i) => makeKey(table, HOT_KEYS + i * Math.floor(rows / FAR_KEYS)),
    );
    const hot: Key[] = Array.from({ length: HOT_KEYS }, (_, i) => makeKey(table, i));
    return [table.name, [[...hot, ...far]]];
  }));
}

function keyColumns({ key }: Table): string {
  return `ARRAY[${key.map(({ name }) => `t.${name}::text`).join(", ")}]`;
}

/** Rows of a node by table and key: what they hold, shortened. */
async function readRows({ server, database }: GrowNode, table: Table): Promise<Map<string, string>> {
  const rows = await server.sql(
    database,
    `SELECT ${
      keyColumns(table)
    } AS key, coalesce(number::text, 'NULL') || '/' || coalesce(left(md5(body), 8), 'NULL') AS row
       FROM public.${table.name} t`,
  );
  return new Map(rows.map(({ key, row }) => [keyText(key), row]));
}

/** One text that is equal for equal rows. */
async function readDigest({ server, database }: GrowNode, table: Table): Promise<string> {
  const [{ digest }] = await server.sql(
    database,
    `SELECT count(*) || ' ' || coalesce(sum(('x' || left(md5(t::text), 15))::bit(60)::bigint), 0) AS digest
       FROM public.${table.name} t`,
  );
  return digest;
}

/** The version of each row that was written after a time. */
async function readVersions(
  { server, database }: GrowNode,
  table: Table,
  after: string,
): Promise<Map<string, string>> {
  const key = keyColumns(table);
  const rows = await server.sql(
    database,
    `SELECT ${key} AS key, ${timeText("v.at")} || ' ' || coalesce(v.node, '?') AS version
       FROM public.${table.name} t, mmlite.row_version(t.xmin, mmlite.key_hash('public.${table.name}', ${key})) v
      WHERE pg_xact_commit_timestamp(t.xmin) > $1::timestamptz AND v.at > $1::timestamptz`,
    [after],
  );
  return new Map(rows.map(({ key, version }) => [keyText(key), version]));
}

/** How often each row without key is there, by its number. */
export async function readLog({ server, database }: GrowNode): Promise<Map<number, number>> {
  const rows = await server.sql(
    database,
    `SELECT id::int, count(*)::int AS times FROM public.${LOG_TABLE} GROUP BY id`,
  );
  return new Map(rows.map(({ id, times }) => [id, times]));
}

/** A row that is not alike on all nodes. */
export interface Difference {
  readonly table: Table;
  /** As {@link keyText} gives it. */
  readonly key: string;
  /** What is where. */
  readonly text: string;
}

/** What differs between nodes. */
export async function compareTables(nodes: readonly GrowNode[], versionsAfter: string): Promise<{
  readonly rows: Difference[];
  readonly versions: Difference[];
  readonly versionsCompared: number;
}> {
  const [rows, versions]: [Difference[], Difference[]] = [[], []];
  let versionsCompared = 0;
  for (const table of TABLES) {
    const digests = await Promise.all(nodes.map((node) => readDigest(node, table)));
    if (new Set(digests).size > 1) {
      rows.push(...differences(table, nodes, await Promise.all(nodes.map((node) => readRows(node, table)))));
    }
    const held = await Promise.all(nodes.map((node) => readVersions(node, table, versionsAfter)));
    versionsCompared += held[0].size;
    versions.push(...differences(table, nodes, held));
  }
  return { rows, versions, versionsCompared };
}

/** What a node has noted of a row: its conflicts and its deletes, a line each. */
export async function readNotes(
  { name, server, database }: GrowNode,
  { table, key }: Difference,
): Promise<string[]> {
  const columns = `ARRAY[${table.key.map(({ name }) => `c.key->>'${name}'`).join(", ")}]`;
  const rows = await server.sql(
    database,
    `SELECT ${timeText("c.noted_at")} || ': ' || c.change || ' of ' || c.remote_origin || ' ' ||
         ${timeText("c.remote_timestamp")} || ', ' || c.type || ' ' || c.resolution || ', beside ' ||
         coalesce(c.local_origin || ' ' || ${timeText("c.local_timestamp")}, 'nothing') AS note
       FROM mmlite.conflict c WHERE c.table_name = $1 AND ${columns} = $2::text[]
     UNION ALL
     SELECT 'deleted by ' || d.origin || ' ' || ${timeText("d.at")} FROM (
       SELECT t.origin, mmlite.find_entry(t.entries, mmlite.key_hash('public.' || $1, $2::text[])) AS at
         FROM mmlite.tombstone t) d WHERE d.at IS NOT NULL
     ORDER BY 1`,
    [table.name, keyParts(key)],
  );
  return rows.map(({ note }) => `${name} noted: ${note}`);
}

function differences(
  table: Table,
  nodes: readonly GrowNode[],
  held: readonly ReadonlyMap<string, string>[],
): Difference[] {
  const keys = new Set(held.flatMap((one) => [...one.keys()]));
  return [...keys].flatMap((key) => {
    const values = held.map((one) => one.get(key) ?? "none");
    if (new Set(values).size === 1) return [];
    const what = nodes.map((node, i) => `${node.name} ${values[i]}`).join(", ");
    return [{ table, key, text: `${table.name} ${showKey(key)}: ${what}` }];
  });
}
