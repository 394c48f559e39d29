/**
 * What the demo's databases hold, who writes into them, and the proof that they hold the same.
 *
 * Every row names the node that wrote it, and a writer changes only rows of its own node: nodes take writes at
 * the same time without ever wanting the same row.
 */
import type pg from "pg";
import type { PostgresServer } from "../tests/support/postgres.ts";

/** The demo's database. */
export const DATABASE = "app";
/** Its tables, in the order in which they refer to each other. */
export const TABLES = ["departments", "users", "accounts"] as const;

const SCHEMA = `
  CREATE TABLE departments (id text PRIMARY KEY, node text NOT NULL, name text NOT NULL);
  CREATE TABLE users (
    id uuid PRIMARY KEY,
    node text NOT NULL,
    department_id text NOT NULL REFERENCES departments,
    name text NOT NULL,
    hired_at timestamptz NOT NULL DEFAULT now()
  );
  CREATE TABLE accounts (
    id uuid PRIMARY KEY,
    node text NOT NULL,
    user_id uuid NOT NULL REFERENCES users,
    balance numeric(12,2) NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now()
  );
`;

/** Pause of a writer between two transactions, milliseconds: brisk, yet light on a laptop. */
const WRITER_PAUSE_MS = 15;
const DEPARTMENT_NAMES = ["Engineering", "Sales"];
const FIRST_NAMES = ["Ada", "Ben", "Chen", "Dana", "Emil", "Fatma", "Goran", "Hana"];

/** Creates the database with its empty tables. */
export async function createSchema(server: PostgresServer): Promise<void> {
  await server.createDatabase(DATABASE);
  await server.sql(DATABASE, SCHEMA);
}

/** A writer at work, or done. */
export interface Writer {
  /** Transactions committed so far. */
  readonly transactions: number;
  /** Users that this writer has inserted and not deleted. */
  readonly users: number;
  /** Settles once the writer has stopped; rejects if a statement failed. */
  readonly done: Promise<void>;
}

interface Employee {
  readonly userId: string;
  readonly accountId: string;
}

/** Writes into a node's database, one small transaction after the other, until `signal` aborts. */
export function startWriter(
  server: PostgresServer,
  { node, signal }: { node: string; signal: AbortSignal },
): Writer {
  const employees: Employee[] = [];
  const writer = {
    transactions: 0,
    get users() {
      return employees.length;
    },
    done: Promise.resolve(),
  };
  writer.done = write();
  return writer;

  async function write(): Promise<void> {
    const client = await server.connect(DATABASE);
    try {
      await openDepartments(client, node);
      writer.transactions++;
      while (!signal.aborted) {
        await writeOne(client, { node, employees });
        writer.transactions++;
        await new Promise((wake) => setTimeout(wake, WRITER_PAUSE_MS));
      }
    } finally {
      await client.end();
    }
  }
}

async function openDepartments(client: pg.Client, node: string): Promise<void> {
  for (const name of DEPARTMENT_NAMES) {
    await client.query("INSERT INTO departments VALUES ($1, $2, $3)", [departmentId(node, name), node, name]);
  }
}

function departmentId(node: string, name: string): string {
  return `${node}-${name.toLowerCase()}`;
}

async function writeOne(
  client: pg.Client,
  { node, employees }: { node: string; employees: Employee[] },
): Promise<void> {
  const dice = Math.random();
  await client.query("BEGIN");
  if (employees.length < 4 || dice < 0.4) employees.push(await hire(client, node));
  else if (dice < 0.9) await transfer(client, pick(employees), pick(employees));
  else await dismiss(client, employees.splice(Math.floor(Math.random() * employees.length), 1)[0]);
  await client.query("COMMIT");
}

async function hire(client: pg.Client, node: string): Promise<Employee> {
  const employee = { userId: crypto.randomUUID(), accountId: crypto.randomUUID() };
  await client.query("INSERT INTO users (id, node, department_id, name) VALUES ($1, $2, $3, $4)", [
    employee.userId,
    node,
    departmentId(node, pick(DEPARTMENT_NAMES)),
    pick(FIRST_NAMES),
  ]);
  await client.query("INSERT INTO accounts (id, node, user_id, balance) VALUES ($1, $2, $3, 100)", [
    employee.accountId,
    node,
    employee.userId,
  ]);
  return employee;
}

async function transfer(client: pg.Client, from: Employee, to: Employee): Promise<void> {
  const statement = "UPDATE accounts SET balance = balance + $2, changed_at = now() WHERE id = $1";
  const amount = Math.round(Math.random() * 2000) / 100;
  await client.query(statement, [from.accountId, -amount]);
  await client.query(statement, [to.accountId, amount]);
}

async function dismiss(client: pg.Client, { userId, accountId }: Employee): Promise<void> {
  await client.query("DELETE FROM accounts WHERE id = $1", [accountId]);
  await client.query("DELETE FROM users WHERE id = $1", [userId]);
}

function pick<T>(choices: readonly T[]): T {
  return choices[Math.floor(Math.random() * choices.length)];
}

/** Rows of each table, in the order of {@link TABLES}. */
export async function countRows(server: PostgresServer): Promise<number[]> {
  const columns = TABLES.map((table) => `(SELECT count(*)::int FROM ${table}) AS ${table}`).join(", ");
  const [row] = await server.sql(DATABASE, `SELECT ${columns}`);
  return TABLES.map((table) => row[table]);
}

/** What one table holds: how many rows, and a digest over all of their values in key order. */
export interface TableDigest {
  readonly table: string;
  readonly rows: number;
  readonly digest: string;
}

/** The digest of every table, all of the same moment. */
export async function digestTables(server: PostgresServer): Promise<TableDigest[]> {
  const parts = TABLES.map((table) => `
    SELECT '${table}' AS table, count(*)::int AS rows,
           md5(coalesce(string_agg(md5(t::text), '' ORDER BY id), '')) AS digest
    FROM ${table} t`);
  return await server.sql(DATABASE, parts.join(" UNION ALL "));
}

/** How many users each node has written, as this database sees it. */
export async function usersByNode(server: PostgresServer): Promise<Map<string, number>> {
  const rows = await server.sql(DATABASE, "SELECT node, count(*)::int AS users FROM users GROUP BY node");
  return new Map(rows.map(({ node, users }) => [node, users]));
}
