/**
 * The tables of the convergence test, and the SQL of each operation on them. All have columns `number` and `body`
 * behind their key, so that one text serves every table. Bodies are compared by their MD5: a large one is never sent.
 */
import type { Key, Operation } from "./plan.ts";

/** One table. */
export interface Table {
  readonly name: string;
  readonly key: readonly { readonly name: string; readonly type: "int" | "text" }[];
  /** Whether bodies are over 8 kB and stored out of line. */
  readonly large: boolean;
  /** Whether updates send the whole old row. */
  readonly identityFull: boolean;
}

const ID = [{ name: "id", type: "int" }] as const;

/** Every table; updates of the last send no unchanged large value. */
export const TABLES: readonly Table[] = [
  { name: "plain", key: ID, large: false, identityFull: false },
  {
    name: "pair",
    key: [{ name: "part", type: "text" }, { name: "place", type: "text" }],
    large: false,
    identityFull: false,
  },
  { name: "heavy", key: ID, large: true, identityFull: true },
  { name: "bulky", key: ID, large: true, identityFull: false },
];

/** Insert-only and without key, so that a transaction that is applied twice is there twice. */
export const LOG_TABLE = "converge_log";

/** The publication of `--builtin`; mmlite makes its own. */
export const PUBLICATION = "converge";

const SEPARATOR = "\u0001";

/** The key as one text. */
export function keyText(key: Key): string {
  return key.join(SEPARATOR);
}

/** The columns' texts in what {@link keyText} has made of them. */
export function keyParts(text: string): string[] {
  return text.split(SEPARATOR);
}

/** A key for people. */
export function showKey(text: string): string {
  const parts = keyParts(text);
  return parts.length === 1 ? parts[0] : `(${parts.map((part) => JSON.stringify(part)).join(", ")})`;
}

/** Makes the tables. */
export function schemaSql(): string {
  const parts = [`CREATE TABLE public.${LOG_TABLE} (id bigint NOT NULL, node text NOT NULL, client int)`];
  for (const { name, key, large, identityFull } of TABLES) {
    const columns = key.map((column) => `${column.name} ${column.type}`).join(", ");
    const names = key.map((column) => column.name).join(", ");
    parts.push(`CREATE TABLE public.${name} (${columns}, number int, body text, PRIMARY KEY (${names}))`);
    if (large) parts.push(`ALTER TABLE public.${name} ALTER body SET STORAGE EXTERNAL`);
    if (identityFull) parts.push(`ALTER TABLE public.${name} REPLICA IDENTITY FULL`);
  }
  return parts.join(";\n");
}

/** A statement; it returns the keys of the rows that it changed as `key`, and their text after it as `row`. */
export interface Statement {
  readonly text: string;
  readonly values: readonly unknown[];
  /** What each returned row means; `changed_key` also that the row of the operation's old key is gone. */
  readonly effect: "put" | "delete" | "changed_key" | "truncate";
}

/** A row's digest: its number and the MD5 of its body, shortened. */
const ROW_TEXT = "coalesce(number::text, 'NULL') || '/' || coalesce(left(md5(body), 8), 'NULL')";

/** The table of that name. */
export function tableOf(name: string): Table {
  return TABLES.find((table) => table.name === name)!;
}

/** The statements of an operation, in order. */
export function statementsOf(operation: Operation): Statement[] {
  const table = tableOf(operation.table);
  const name = `public.${table.name}`;
  switch (operation.kind) {
    case "insert":
      return [insert(table, operation, "DO NOTHING")];
    case "upsert":
      return [insert(table, operation, "DO UPDATE SET number = excluded.number, body = excluded.body")];
    case "replace":
      return [remove(table, operation.key), insert(table, operation, "DO NOTHING")];
    case "update_row":
      return [
        update(table, operation, { set: "number = $1, body = repeat($2, $3)", with: written(operation) }),
      ];
    case "update_number":
      return [update(table, operation, { set: "number = $1", with: [operation.number] })];
    case "increment":
      return [update(table, operation, { set: "number = number + $1", with: [operation.number] })];
    case "update_body":
      return [update(table, operation, { set: "body = repeat($1, $2)", with: written(operation).slice(1) })];
    case "delete":
      return [remove(table, operation.key)];
    case "change_key":
      return [changeKey(table, operation)];
    case "truncate":
      return [{ text: `TRUNCATE ${name}`, values: [], effect: "truncate" }];
  }
}

type Written = Extract<Operation, { number: number }>;

function written({ number, body, repeat }: Written): unknown[] {
  return [number, body, repeat];
}

function insert(table: Table, operation: Written, onConflict: string): Statement {
  const names = table.key.map((column) => column.name).join(", ");
  const places = table.key.map(({ type }, index) => `$${index + 4}::${type}`).join(", ");
  return {
    text: `INSERT INTO public.${table.name} (number, body, ${names}) VALUES ($1, repeat($2, $3), ${places})
             ON CONFLICT (${names}) ${onConflict} ${returning(table)}`,
    values: [...written(operation), ...operation.key],
    effect: "put",
  };
}

function update(
  table: Table,
  { key }: Written,
  { set, with: values }: { set: string; with: readonly unknown[] },
): Statement {
  const where = isKey(table, values.length + 1);
  return {
    text: `UPDATE public.${table.name} SET ${set} WHERE ${where} ${returning(table)}`,
    values: [...values, ...key],
    effect: "put",
  };
}

function remove(table: Table, key: Key): Statement {
  return {
    text: `DELETE FROM public.${table.name} WHERE ${isKey(table, 1)} ${returning(table)}`,
    values: key,
    effect: "delete",
  };
}

/** Does nothing where the new key is taken, unless somebody takes it at this moment. */
function changeKey(table: Table, { key, to }: Extract<Operation, { kind: "change_key" }>): Statement {
  const count = table.key.length;
  const set = table.key.map(({ name, type }, index) => `${name} = $${count + index + 1}::${type}`).join(", ");
  const taken = `SELECT FROM public.${table.name} WHERE ${isKey(table, count + 1)}`;
  return {
    text: `UPDATE public.${table.name} SET ${set} WHERE ${isKey(table, 1)} AND NOT EXISTS (${taken})
             ${returning(table)}`,
    values: [...key, ...to],
    effect: "changed_key",
  };
}

function isKey(table: Table, first: number): string {
  return table.key.map(({ name, type }, index) => `${name} = $${first + index}::${type}`).join(" AND ");
}

function returning(table: Table): string {
  return `RETURNING ${keyColumns(table)} AS key, ${ROW_TEXT} AS row`;
}

function keyColumns(table: Table): string {
  return `ARRAY[${table.key.map(({ name }) => `${name}::text`).join(", ")}]`;
}

/** A time as text that sorts as the time does. */
export function timeText(expression: string): string {
  return `to_char(${expression} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')`;
}

/** What a server knows of versions. */
export interface VersionSource {
  readonly major: number;
  /** Whether mmlite keeps versions there; otherwise rows are read without. */
  readonly mmlite: boolean;
  /** Whether `mmlite.row_version` is there, which knows the node on every release. */
  readonly rowVersion: boolean;
}

/**
 * Reads a table: `key`, `row`, and the version as `timestamp` and `node`, null where it cannot be known. `$1` is the
 * name of the server's own node.
 */
export function readTableSql(table: Table, source: VersionSource): string {
  const from = `public.${table.name} t`;
  const row = `${keyColumns(table)} AS key, ${ROW_TEXT} AS row`;
  if (!source.mmlite) return `SELECT ${row}, NULL AS timestamp, NULL AS node FROM ${from} WHERE $1 <> ''`;
  const hash = `mmlite.key_hash('public.${table.name}', ${keyColumns(table)})`;
  const timestamp = `${timeText(`mmlite.version_timestamp(t.xmin, ${hash})`)} AS timestamp`;
  if (source.major >= 14) {
    return `SELECT ${row}, ${timestamp},
              CASE WHEN x.roident = 0 THEN $1::text ELSE (
                SELECT regexp_replace(roname, '^mmlite_', '') FROM pg_replication_origin o
                 WHERE o.roident = x.roident) END AS node
              FROM ${from}, pg_xact_commit_timestamp_origin(t.xmin) x`;
  }
  const node = source.rowVersion ? `(mmlite.row_version(t.xmin, ${hash})).node` : "NULL";
  return `SELECT ${row}, ${timestamp}, ${node} AS node FROM ${from} WHERE $1 <> ''`;
}
