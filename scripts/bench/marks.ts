/**
 * Marks: rows that a database writes before and after its load, and the time at which another one applies them.
 *
 * The receiving server notes that time itself, by its clock, in a table that is not replicated: what lies between
 * two marks is known exactly and without anybody polling for it.
 */
import { eventually } from "../../tests/support/poll.ts";
import type { PostgresServer } from "../../tests/support/postgres.ts";

/** A database of a server. */
export interface Database {
  readonly server: PostgresServer;
  readonly database: string;
}

/** Time allowed for what comes before a mark to be applied, milliseconds. */
const RUN_TIMEOUT_MS = 900_000;
const LOOK_INTERVAL_MS = 25;

/** The replicated table of marks. */
export const MARKS = "CREATE TABLE mark (id int PRIMARY KEY)";

/** What a receiver needs on top. A replica trigger fires for what is applied, not for what is written there. */
export const ARRIVALS = `
  CREATE SCHEMA local;
  CREATE TABLE local.arrival (mark int PRIMARY KEY, at timestamptz NOT NULL);
  CREATE FUNCTION local.note_arrival() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    INSERT INTO local.arrival VALUES (NEW.id, clock_timestamp());
    RETURN NULL;
  END $$;
  CREATE TRIGGER note_arrival AFTER INSERT ON mark FOR EACH ROW EXECUTE FUNCTION local.note_arrival();
  ALTER TABLE mark ENABLE REPLICA TRIGGER note_arrival`;

/** Writes a mark. */
export async function mark({ server, database }: Database, id: number): Promise<void> {
  await server.sql(database, `INSERT INTO mark VALUES (${id})`);
}

/** Waits for a mark to be applied. */
export async function marked({ server, database }: Database, id: number): Promise<void> {
  const client = await server.connect(database);
  try {
    const look = async () => (await client.query("SELECT FROM mark WHERE id = $1", [id])).rowCount === 1;
    const patience = { timeoutMs: RUN_TIMEOUT_MS, intervalMs: LOOK_INTERVAL_MS };
    await eventually(`mark ${id} to be applied in ${database}`, look, patience);
  } finally {
    await client.end();
  }
}

/** When a mark was applied, seconds by the clock of the machine. */
export async function arrivalOf({ server, database }: Database, id: number): Promise<number> {
  const [{ at }] = await server.sql(
    database,
    `SELECT extract(epoch FROM at)::float8 AS at FROM local.arrival WHERE mark = ${id}`,
  );
  return at;
}
