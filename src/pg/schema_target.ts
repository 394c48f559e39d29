/**
 * Makes in this database what tables of another node consist of: what is there and equal stays, what is there and
 * differs is an error. All in one transaction.
 */
import { MmliteError } from "../errors.ts";
import { type Client, closeClient, openClient } from "./client.ts";
import { describeServerError, mapPostgresError } from "./errors.ts";
import { type Query, queryWith } from "./query.ts";
import {
  type ItemKind,
  readSchemaItems,
  readTypeItems,
  type SchemaItem,
  type SchemaItems,
} from "./schema_items.ts";
import type { PostgresTarget } from "./target.ts";

interface SchemaTargetOptions {
  readonly target: PostgresTarget;
  readonly serverVersion: number;
  readonly signal: AbortSignal;
}

/** How many differences an error names. */
const MAX_NAMED = 20;
/** How a statement of another node may begin; the rest of it is run with the rights of mmlite's role. */
const BEGINNINGS: Readonly<Record<ItemKind, (name: string) => readonly (string | RegExp)[]>> = {
  // Not run but shown, to be run by hand: so it is this and nothing else.
  extension: () => [/^CREATE EXTENSION "(?:[^"]|"")*" SCHEMA "(?:[^"]|"")*"$/],
  schema: () => [/^CREATE SCHEMA /],
  type: (name) => [`CREATE TYPE ${name} AS `, `CREATE DOMAIN ${name} AS `],
  sequence: (name) => [`CREATE SEQUENCE ${name} AS `],
  table: (name) => [`CREATE TABLE ${name} (`],
  partition: () => [/^ALTER TABLE .* ATTACH PARTITION /s],
  owner: (name) => [`ALTER SEQUENCE ${name} OWNED BY `],
  constraint: (name) => [`ALTER TABLE ${tableOf(name)} ADD CONSTRAINT `],
  index: () => [/^CREATE (UNIQUE )?INDEX /],
  "foreign key": (name) => [`ALTER TABLE ${tableOf(name)} ADD CONSTRAINT `],
  "replica identity": (name) => [`ALTER TABLE ${name} REPLICA IDENTITY `],
};
/** Nothing is made in these, whatever another node says. */
const OWN_SCHEMAS = /^"?(mmlite|pg_[a-z_]*|information_schema)"?\./;

/** Of a constraint, which is called by its own name and that of its table. */
function tableOf(name: string): string {
  return name.slice(name.lastIndexOf(" of ") + " of ".length);
}

function isAsSaid({ kind, name, sql }: SchemaItem): boolean {
  if (OWN_SCHEMAS.test(name) || OWN_SCHEMAS.test(tableOf(` of ${name}`))) return false;
  return BEGINNINGS[kind](name).some((beginning) =>
    typeof beginning === "string" ? sql.startsWith(beginning) : beginning.test(sql)
  );
}

/** Reads what some tables consist of, by their names as `formatTableName` has them quoted. */
export async function readSchemaOf(
  options: SchemaTargetOptions,
  tables: (query: Query) => Promise<readonly number[]>,
): Promise<SchemaItems> {
  return await withClient(options, "read what the tables consist of", async (_, query) => {
    await query("BEGIN READ ONLY; SET LOCAL search_path = ''");
    const items = await readSchemaItems(query, {
      tables: await tables(query),
      serverVersion: options.serverVersion,
    });
    await query("COMMIT");
    return items;
  });
}

/**
 * Makes what is missing, in a transaction in which `alongside` writes too; returns what was made. Throws `schema_mismatch`
 * that names what differs, or what is refused.
 */
export async function createSchema(
  options: SchemaTargetOptions,
  { items }: SchemaItems,
  alongside: (query: Query, made: readonly SchemaItem[]) => Promise<void> = () => Promise.resolve(),
): Promise<readonly SchemaItem[]> {
  const strange = items.find((item) => !isAsSaid(item));
  if (strange !== undefined) {
    throw new MmliteError(
      "protocol",
      `Cannot make ${strange.kind} ${strange.name}: its statement is of another kind`,
    );
  }
  return await withClient(options, "create the tables", async (client, query) => {
    await query("BEGIN; SET LOCAL search_path = ''; SET LOCAL lock_timeout = '10s'");
    const missing = await findMissing(query, items, options.serverVersion);
    for (const item of missing) await make(client, item);
    await alongside(query, missing);
    await query("COMMIT");
    return missing;
  });
}

async function withClient<Result>(
  { target, signal }: SchemaTargetOptions,
  doing: string,
  work: (client: Client, query: Query) => Promise<Result>,
): Promise<Result> {
  const client = await openClient(target, {
    applicationName: "mmlite copy",
    settings: { statement_timeout: "0" },
    signal,
  });
  try {
    return await work(client, queryWith(client));
  } catch (thrown) {
    throw mapPostgresError(thrown, doing);
  } finally {
    await closeClient(client);
  }
}

/** Throws `schema_mismatch` where something is there that differs. */
async function findMissing(
  query: Query,
  items: readonly SchemaItem[],
  serverVersion: number,
): Promise<SchemaItem[]> {
  const namesOf = (...kinds: readonly ItemKind[]) =>
    items.filter(({ kind }) => kinds.includes(kind)).map(({ name }) => name);
  const existing = await query(
    `SELECT x.name, c.oid::text, c.relkind FROM json_array_elements_text($1::json) AS x(name)
       JOIN pg_class c ON c.oid = to_regclass(x.name)`,
    [JSON.stringify(namesOf("table", "sequence"))],
  );
  const relations = new Map(existing.map(({ name, oid, relkind }) => [name!, { oid: Number(oid), relkind }]));
  const tables = namesOf("table").filter((name) => ["r", "p"].includes(relations.get(name)?.relkind ?? ""));
  const mine = (await readSchemaItems(query, {
    tables: tables.map((name) => relations.get(name)!.oid),
    serverVersion,
  })).items;
  const here = new Map([
    ...mine.filter(({ kind }) => kind !== "type"),
    ...await readTypeItems(query, namesOf("type")),
  ].map((item) => [keyOf(item), item]));
  const schemas = new Set((await query("SELECT nspname AS name FROM pg_namespace")).map(({ name }) => name));
  const extensions = new Set(
    (await query("SELECT extname AS name FROM pg_extension")).map(({ name }) => name),
  );
  const isHere = (item: SchemaItem) => {
    switch (item.kind) {
      case "extension":
        return extensions.has(item.name);
      case "schema":
        return schemas.has(item.name);
      case "sequence":
        return relations.get(item.name)?.relkind === "S";
      // Of what is made here.
      case "owner":
        return relations.has(item.name);
      case "replica identity":
        return tables.includes(item.name);
      default:
        return here.has(keyOf(item));
    }
  };
  const missing = items.filter((item) => !isHere(item));
  requireExtensions(missing);
  requireSame(items.flatMap((item) => differences(item, here.get(keyOf(item)))));
  return missing;
}

function keyOf({ kind, name }: SchemaItem): string {
  return `${kind} ${name}`;
}

/** What is only here is this node's own affair. */
function differences(wanted: SchemaItem, here: SchemaItem | undefined): string[] {
  if (here === undefined) return [];
  const parts = new Map(here.parts.map(({ name, is }) => [name, is]));
  return wanted.parts.flatMap(({ name, is }) => {
    const own = parts.get(name);
    if (own === is) return [];
    const what = `${wanted.kind} ${wanted.name}${name === "" ? "" : `, ${name}`}`;
    return [own === undefined ? `${what}: missing here` : `${what}: ${own} here, ${is} there`];
  });
}

function requireExtensions(missing: readonly SchemaItem[]): void {
  const needed = missing.filter(({ kind }) => kind === "extension");
  if (needed.length === 0) return;
  throw new MmliteError(
    "schema_mismatch",
    `Cannot create the tables: they need ${needed.map(({ name }) => `extension ${name}`).join(", ")}`,
    {
      hint: `Run here: ${needed.map(({ sql }) => sql).join("; ")}`,
    },
  );
}

function requireSame(differing: readonly string[]): void {
  if (differing.length === 0) return;
  const more = differing.length > MAX_NAMED ? `; and ${differing.length - MAX_NAMED} more` : "";
  throw new MmliteError(
    "schema_mismatch",
    `Cannot create the tables: what is here already differs: ${
      differing.slice(0, MAX_NAMED).join("; ")
    }${more}`,
    { hint: "Make it equal here, or drop it; then begin again" },
  );
}

async function make(client: Client, { sql }: SchemaItem): Promise<void> {
  try {
    // One statement, whatever it holds.
    const statement = { text: sql, queryMode: "extended" };
    await client.query(statement);
  } catch (thrown) {
    throw new MmliteError(
      "schema_mismatch",
      `Cannot create the tables: PostgreSQL here refuses ${sql}: ${describeServerError(thrown)}`,
      {
        hint:
          "Create by hand what it lacks (functions are not taken over), or in a form that this release has, and begin again",
        cause: thrown,
      },
    );
  }
}
