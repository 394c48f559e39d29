/**
 * Where the rivals run: two PostgreSQL servers of one release, a database to send from, and for each run a fresh
 * copy of the same receiving database.
 *
 * Every workload's transactions stand between two marks. The receiver's table of marks has a column more, which
 * the server fills with its clock when the mark is applied: the time between the two is known exactly and without
 * anybody polling for it.
 */
import { eventually } from "../../tests/support/poll.ts";
import { type PostgresServer, type StartOptions, startPostgres } from "../../tests/support/postgres.ts";

/** The database that everything is sent from. */
export const SOURCE = "source";
/** The publication that the built-in subscription reads. */
export const PUBLICATION = "builtin";
/** What every run's receiving database is a copy of. */
const TEMPLATE = "template_target";
/** Time allowed for a run, milliseconds. */
const RUN_TIMEOUT_MS = 900_000;
const LOOK_INTERVAL_MS = 25;

/** Nothing but the load is to cost time: no checkpoint and no autovacuum falls into a run. fsync stays on. */
const SETTINGS = {
  shared_buffers: "512MB",
  max_wal_size: "64GB",
  checkpoint_timeout: "1h",
  autovacuum: "off",
  max_replication_slots: "50",
  max_wal_senders: "50",
};

/** The servers with the databases of one workload. */
export interface Bed {
  readonly publisher: PostgresServer;
  readonly subscriber: PostgresServer;
}

/** Where a server runs. */
export type Place = Pick<StartOptions, "enter">;

/** One run of one rival. */
export interface Run {
  /** Unlike that of any other run of the workload: names databases, slots and nodes. */
  readonly name: string;
  readonly bed: Bed;
}

/** Starts the servers; `places` says where, if not both on this machine's loopback. */
export async function openBed(
  stack: AsyncDisposableStack,
  places: readonly [Place, Place] = [{}, {}],
): Promise<Bed> {
  const [publisher, subscriber] = await Promise.all(places.map((place) => openServer(stack, place)));
  return { publisher, subscriber };
}

/** Starts a server. */
export async function openServer(
  stack: AsyncDisposableStack,
  { enter }: Place = {},
): Promise<PostgresServer> {
  return stack.use(await startPostgres({ major: 18, settings: SETTINGS, enter }));
}

/** A workload's tables: `schema` on both sides, `receiverSchema` only on the receiver's. */
interface Schemas {
  readonly schema: string;
  readonly receiverSchema?: string;
}

const MARKS = "CREATE TABLE mark (id int PRIMARY KEY)";

/** Makes a workload's databases. */
export async function createDatabases({ publisher, subscriber }: Bed, schemas: Schemas): Promise<void> {
  const publication = `CREATE PUBLICATION ${PUBLICATION} FOR TABLES IN SCHEMA public`;
  await Promise.all([
    createDatabase(publisher, SOURCE, `${MARKS}; ${schemas.schema}; ${publication}`),
    createTemplate(subscriber, schemas),
  ]);
}

/** Makes what every receiving database of a server is a copy of. */
export async function createTemplate(
  server: PostgresServer,
  { schema, receiverSchema = "" }: Schemas,
): Promise<void> {
  const clock = "ALTER TABLE mark ADD at timestamptz DEFAULT clock_timestamp()";
  await createDatabase(server, TEMPLATE, `${MARKS}; ${clock}; ${schema}; ${receiverSchema}`);
}

async function createDatabase(server: PostgresServer, name: string, schema: string): Promise<void> {
  await server.createDatabase(name);
  await server.sql(name, schema);
  // Hint bits and visibility are settled once, not by the first rival that comes along.
  await server.sql(name, "VACUUM ANALYZE");
}

/** Removes a workload's databases. */
export async function dropDatabases({ publisher, subscriber }: Bed): Promise<void> {
  await publisher.sql("postgres", `DROP DATABASE ${SOURCE} WITH (FORCE)`);
  await subscriber.sql("postgres", `DROP DATABASE ${TEMPLATE} WITH (FORCE)`);
}

/** Makes the receiving database of a run. */
export async function createTarget({ name, bed }: Run): Promise<void> {
  // Copying files begins and ends with a checkpoint: every run finds the same state on disk.
  await bed.subscriber.sql("postgres", `CREATE DATABASE ${name} TEMPLATE ${TEMPLATE} STRATEGY file_copy`);
  await bed.publisher.sql("postgres", "CHECKPOINT");
}

/** Removes it. */
export async function dropTarget({ name, bed }: Run): Promise<void> {
  await bed.subscriber.sql("postgres", `DROP DATABASE ${name} WITH (FORCE)`);
}

/** Writes a mark into the source. */
export async function mark({ publisher }: Bed, id: number): Promise<void> {
  await publisher.sql(SOURCE, `INSERT INTO mark VALUES (${id})`);
}

/** Waits for a mark to be applied. */
export async function marked({ name, bed: { subscriber } }: Run, id: number): Promise<void> {
  const client = await subscriber.connect(name);
  try {
    const look = async () => (await client.query("SELECT FROM mark WHERE id = $1", [id])).rowCount === 1;
    const patience = { timeoutMs: RUN_TIMEOUT_MS, intervalMs: LOOK_INTERVAL_MS };
    await eventually(`mark ${id} to be applied in ${name}`, look, patience);
  } finally {
    await client.end();
  }
}

/** The time between two applied marks, seconds. */
export async function secondsBetween({ name, bed }: Run, first: number, last: number): Promise<number> {
  const [{ seconds }] = await bed.subscriber.sql(
    name,
    `SELECT extract(epoch FROM l.at - f.at)::float8 AS seconds
       FROM mark f, mark l WHERE f.id = ${first} AND l.id = ${last}`,
  );
  return seconds;
}

/** A digest of all tables of the source that is independent of the order of rows. */
export function digestSource({ publisher }: Bed): Promise<string> {
  return digest(publisher, SOURCE, publisher);
}

/** The same of a run's receiving database, columns that only the receiver has left out. */
export function digestTarget({ name, bed }: Run): Promise<string> {
  return digest(bed.subscriber, name, bed.publisher);
}

async function digest(server: PostgresServer, database: string, publisher: PostgresServer): Promise<string> {
  const tables = await publisher.sql(
    SOURCE,
    `SELECT table_name AS name, string_agg(quote_ident(column_name), ', ' ORDER BY ordinal_position) AS columns
       FROM information_schema.columns WHERE table_schema = 'public' GROUP BY table_name ORDER BY table_name`,
  );
  const parts = tables.map(({ name, columns }) =>
    `SELECT '${name}' AS name, count(*), sum(hashtextextended(t::text, 0)) AS digest
       FROM (SELECT ${columns} FROM public.${name}) t`
  );
  return JSON.stringify(await server.sql(database, parts.join(" UNION ALL ")));
}
