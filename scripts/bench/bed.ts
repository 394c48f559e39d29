/**
 * Where the rivals run: two PostgreSQL servers of one release, a database to send from, and for each run a fresh
 * copy of the same receiving database.
 */
import { type PostgresServer, type StartOptions, startPostgres } from "../../tests/support/postgres.ts";
import { digest } from "./digest.ts";
import { ARRIVALS, type Database, MARKS } from "./marks.ts";

/** The database that everything is sent from. */
export const SOURCE = "source";
/** The publication that the built-in subscription reads. */
export const PUBLICATION = "builtin";
/** Makes it. */
export const PUBLISH = `CREATE PUBLICATION ${PUBLICATION} FOR TABLES IN SCHEMA public`;
/** What every run's receiving database is a copy of. */
const TEMPLATE = "template_target";

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

/** Where a server runs, and its settings on top of those of all. */
export type Place = Pick<StartOptions, "enter" | "settings">;

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
  { enter, settings }: Place = {},
): Promise<PostgresServer> {
  return stack.use(await startPostgres({ major: 18, settings: { ...SETTINGS, ...settings }, enter }));
}

/** A workload's tables: `schema` on both sides, `receiverSchema` only on the receiver's. */
interface Schemas {
  readonly schema: string;
  readonly receiverSchema?: string;
}

/** Makes a workload's databases. */
export async function createDatabases({ publisher, subscriber }: Bed, schemas: Schemas): Promise<void> {
  await Promise.all([
    createDatabase(publisher, SOURCE, `${MARKS}; ${schemas.schema}; ${PUBLISH}`),
    createTemplate(subscriber, schemas),
  ]);
}

/** Makes what every receiving database of a server is a copy of. */
export async function createTemplate(
  server: PostgresServer,
  { schema, receiverSchema = "" }: Schemas,
): Promise<void> {
  await createDatabase(server, TEMPLATE, `${MARKS}; ${ARRIVALS}; ${schema}; ${receiverSchema}`);
}

async function createDatabase(server: PostgresServer, name: string, schema: string): Promise<void> {
  await server.createDatabase(name);
  await server.sql(name, schema);
  // Hint bits and visibility are settled once, not by the first rival that comes along.
  await server.sql(name, "VACUUM ANALYZE");
}

/** Removes a workload's databases. */
export async function dropDatabases({ publisher, subscriber }: Bed): Promise<void> {
  await dropDatabase(publisher, SOURCE);
  await dropTemplate(subscriber);
}

/** Makes the receiving database of a run. */
export async function createTarget({ name, bed }: Run): Promise<void> {
  await copyTemplate(bed.subscriber, name);
  await bed.publisher.sql("postgres", "CHECKPOINT");
}

/** Makes a copy of the template. */
export async function copyTemplate(server: PostgresServer, name: string): Promise<void> {
  // Copying files begins and ends with a checkpoint: every run finds the same state on disk.
  await server.sql("postgres", `CREATE DATABASE ${name} TEMPLATE ${TEMPLATE} STRATEGY file_copy`);
}

/** Removes the receiving database of a run. */
export async function dropTarget({ name, bed }: Run): Promise<void> {
  await dropDatabase(bed.subscriber, name);
}

/** Removes the template. */
export async function dropTemplate(server: PostgresServer): Promise<void> {
  await dropDatabase(server, TEMPLATE);
}

/** Removes a database, whoever is connected to it. */
export async function dropDatabase(server: PostgresServer, name: string): Promise<void> {
  await server.sql("postgres", `DROP DATABASE ${name} WITH (FORCE)`);
}

/** Removes the slots of a database, which would keep it; nobody reads from them any more. */
export async function dropSlots({ server, database }: Database): Promise<void> {
  await server.sql(
    database,
    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()",
  );
}

/** Where everything is sent from. */
export function sourceOf({ publisher }: Bed): Database {
  return { server: publisher, database: SOURCE };
}

/** Where a run's changes arrive. */
export function targetOf({ name, bed }: Run): Database {
  return { server: bed.subscriber, database: name };
}

/** What all tables of the source hold. */
export function digestSource(bed: Bed): Promise<string> {
  return digest(sourceOf(bed), sourceOf(bed));
}

/** What a run's receiving database holds, columns that only the receiver has left out. */
export function digestTarget(run: Run): Promise<string> {
  return digest(targetOf(run), sourceOf(run.bed));
}
