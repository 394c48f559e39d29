/**
 * This node's PostgreSQL: reached, checked, locked for this process alone, and with schema `mmlite` in it.
 */
import process from "node:process";
import { MmliteError } from "../errors.ts";
import { type Control, openControl } from "../pg/control.ts";
import { type DatabaseLock, openLock } from "../pg/lock.ts";
import { ensureSchema } from "../pg/schema.ts";
import { readServerFacts, requireUsable, type ServerFacts } from "../pg/server.ts";
import { preferSocket, preferTcp } from "../pg/socket.ts";
import { describeTarget, parsePostgresUrl, type PostgresTarget } from "../pg/target.ts";

/** A usable database of this node's own. */
export interface Database {
  readonly target: PostgresTarget;
  /** The same for what reads a slot or applies: many bytes, most of them one way. */
  readonly streamTarget: PostgresTarget;
  readonly control: Control;
  readonly facts: ServerFacts;
  readonly lock: DatabaseLock;
  close(): Promise<void>;
}

/** Reaches the database and makes it ready; throws what stands in the way, with its remedy. */
export async function openDatabase(url: string, signal: AbortSignal): Promise<Database> {
  const { target, named, control, facts } = await reachDatabase(url, signal);
  let lock: DatabaseLock | undefined;
  try {
    requireUsable(facts);
    lock = await openLock(target, signal);
    await ensureSchema(control.query(`set up schema "mmlite" in ${describeTarget(target)}`));
    // One that was named by TCP keeps TCP, but for TLS, which on one machine costs and protects nothing.
    const streamTarget = named.ssl === false ? await preferTcp(named, signal) : target;
    return { target, streamTarget, control, facts, lock, close: () => closeAll(control, lock!) };
  } catch (thrown) {
    await lock?.close();
    await control.close();
    throw thrown;
  }
}

/** Reaches the database without changing anything in it. */
export async function reachDatabase(
  url: string,
  signal?: AbortSignal,
): Promise<{ target: PostgresTarget; named: PostgresTarget; control: Control; facts: ServerFacts }> {
  const named = await parsePostgresUrl(url, process.env);
  const target = await preferSocket(named, signal);
  const control = openControl(target, "mmlite");
  const giveUp = () => void control.close();
  signal?.addEventListener("abort", giveUp, { once: true });
  try {
    return {
      target,
      named,
      control,
      facts: await readServerFacts(control.query(`connect to ${describeTarget(target)}`)),
    };
  } catch (thrown) {
    await control.close();
    throw signal?.aborted
      ? new MmliteError("aborted", `Cannot connect to ${describeTarget(target)}: stopped`)
      : thrown;
  } finally {
    signal?.removeEventListener("abort", giveUp);
  }
}

/** What an operator should know of a server that is usable all the same. */
export function serverWarnings(facts: ServerFacts): MmliteError[] {
  if (facts.trackCommitTimestamp) return [];
  return [
    new MmliteError(
      "server_setting",
      "Cannot settle conflicts by version, as track_commit_timestamp is off: what comes from other nodes is written " +
        "(apply_remote instead of last_update_wins), and nodes can come to hold different rows",
      { hint: "Run ALTER SYSTEM SET track_commit_timestamp = on, then restart PostgreSQL and mmlite" },
    ),
  ];
}

async function closeAll(control: Control, lock: DatabaseLock): Promise<void> {
  await lock.close();
  await control.close();
}
