/**
 * A client that runs the transactions planned for it, and notes what each changed as the server said.
 */
// @ts-types="@types/pg"
import pg from "pg";
import { delay } from "../../src/backoff.ts";
import { eventually } from "../../tests/support/poll.ts";
import type { Member } from "./member.ts";
import type { Change } from "./model.ts";
import type { Operation, PlannedTransaction } from "./plan.ts";
import { keyText, LOG_TABLE, statementsOf } from "./tables.ts";

/** What became of a transaction, as far as its client knows. */
export interface Attempt {
  readonly id: number;
  readonly node: string;
  /** The server has said that it is committed. */
  readonly told: boolean;
  /** Why it was undone, as the SQLSTATE; `lost` where the connection broke before or within COMMIT. */
  readonly failure: string | null;
  /** When its client learned so, by its own clock: later for a later transaction on the same row of the same node. */
  readonly endedAt: number;
  readonly changes: readonly Change[];
  /** How many operations of each kind changed something. */
  readonly kinds: readonly Operation["kind"][];
}

/** Time allowed for a server to come back, milliseconds. */
const RECONNECT_TIMEOUT_MS = 60_000;

/** Whom a client writes to. */
type Place = Pick<Member, "name" | "server" | "database">;

/** Runs the transactions of one client, in order; each is asked for when the one before it has ended. */
export async function runClient(
  member: Place,
  client: number,
  transactions: Iterable<PlannedTransaction>,
): Promise<Attempt[]> {
  const attempts: Attempt[] = [];
  let connection: pg.Client | undefined;
  try {
    for (const planned of transactions) {
      await delay(planned.pauseMs);
      connection ??= await connect(member);
      const attempt = await runTransaction(connection, { member, client, planned });
      attempts.push(attempt);
      if (attempt.failure === "lost") {
        void connection.end().catch(() => {});
        connection = undefined;
      }
    }
  } finally {
    await connection?.end().catch(() => {});
  }
  return attempts;
}

async function connect({ server, database }: Place): Promise<pg.Client> {
  const options = { timeoutMs: RECONNECT_TIMEOUT_MS, intervalMs: 20 };
  return await eventually("the server to take connections", () => server.connect(database), options);
}

async function runTransaction(
  connection: pg.Client,
  { member, client, planned }: { member: Place; client: number; planned: PlannedTransaction },
): Promise<Attempt> {
  const { id, operations } = planned;
  const changes: Change[] = [];
  const kinds: Operation["kind"][] = [];
  const attempt = { id, node: member.name, changes, kinds };
  try {
    await connection.query("BEGIN");
    await connection.query(`INSERT INTO public.${LOG_TABLE} VALUES ($1, $2, $3)`, [id, member.name, client]);
    for (const operation of operations) {
      const done = await runOperation(connection, operation);
      changes.push(...done);
      if (done.length > 0) kinds.push(operation.kind);
    }
    await connection.query("COMMIT");
    return { ...attempt, told: true, failure: null, endedAt: performance.now() };
  } catch (thrown) {
    const failure = await undo(connection, thrown);
    return { ...attempt, told: false, failure, endedAt: performance.now() };
  }
}

/** Undoes a failed transaction; why it failed. */
async function undo(connection: pg.Client, thrown: unknown): Promise<string> {
  const code = thrown instanceof pg.DatabaseError ? thrown.code! : "lost";
  if (code === "lost" || code.startsWith("57P")) return "lost";
  try {
    await connection.query("ROLLBACK");
    return code;
  } catch {
    return "lost";
  }
}

async function runOperation(connection: pg.Client, operation: Operation): Promise<Change[]> {
  const changes: Change[] = [];
  const { table } = operation;
  for (const { text, values, effect } of statementsOf(operation)) {
    const { rows } = await connection.query(text, [...values]);
    if (effect === "truncate") changes.push({ kind: "truncate", table });
    if (effect === "changed_key" && rows.length > 0 && operation.kind === "change_key") {
      changes.push({ kind: "delete", table, key: keyText(operation.key) });
    }
    for (const { key, row } of rows) {
      if (effect === "delete") changes.push({ kind: "delete", table, key: keyText(key) });
      else changes.push({ kind: "put", table, key: keyText(key), row });
    }
  }
  return changes;
}
