/**
 * The end of a copy: all rows have come, and applications may write once this node has what was committed elsewhere while
 * they came. So whatever is written here follows that, on every node.
 */
import { delay } from "../backoff.ts";
import { MmliteError } from "../errors.ts";
import { closeClient, destroyClient, openClient } from "../pg/client.ts";
import { forgetCopy, openTables } from "../pg/copy_target.ts";
import { isLockTrouble, mapPostgresError } from "../pg/errors.ts";
import { type Query, queryWith } from "../pg/query.ts";
import type { PostgresTarget } from "../pg/target.ts";
import type { GroupKeeper } from "./group_keeper.ts";
import type { Peers } from "./peers.ts";

/** How often it is looked who has sent everything, milliseconds. */
const LOOK_MS = 100;

/** A lock that is waited for keeps everybody else from the table: for so long, then others have a turn. */
const LOCK_TIMEOUT = "500ms";
const LOCK_REST_MS = 1_000;

/** What each peer has said up to now of when it had sent everything. */
export type Heard = ReadonlyMap<string, number | undefined>;

/** Up to when each peer has sent everything, by its own clock. */
export function heardUntil(peers: Pick<Peers, "list">, groups: Pick<GroupKeeper, "caughtUpUntil">): Heard {
  return new Map(peers.list().map(({ name }) => [name, groups.caughtUpUntil(name)]));
}

/**
 * Resolves once every peer has said anew that it has sent everything, which is of a moment after `heard`, and it is
 * applied; throws `aborted` at the signal. `waiting` is told for whom it is waited.
 */
export async function awaitPeers(
  { peers, groups, heard, waiting, signal }: {
    readonly peers: Pick<Peers, "list">;
    readonly groups: Pick<GroupKeeper, "caughtUpUntil">;
    readonly heard: Heard;
    readonly waiting: (sentence: string) => void;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  const hasSaid = (name: string) => {
    const until = groups.caughtUpUntil(name);
    return until !== undefined && until !== heard.get(name);
  };
  while (!signal.aborted) {
    const behind = peers.list().filter(({ name, removing }) => !removing && !hasSaid(name))
      .map(({ name }) => `"${name}"`);
    if (behind.length === 0) return;
    waiting(
      `all rows have come, and what was committed on ${
        behind.join(", ")
      } meanwhile has to be applied first ` +
        "(`mmlite peers list` shows the links; a node that is gone has to be removed)",
    );
    await delay(LOOK_MS, signal);
  }
  throw new MmliteError("aborted", "Cannot wait for what others committed: stopped");
}

/**
 * Lets applications write, and ends the copy from `source` in a transaction in which `alongside` writes too. A session that holds a
 * table is waited for; throws `aborted` at the signal.
 */
export async function openToApplications(
  target: PostgresTarget,
  { source, alongside, waiting, signal }: {
    readonly source: string;
    readonly alongside: (query: Query) => Promise<void>;
    readonly waiting: (sentence: string) => void;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  const doing = "let applications write";
  const client = await openClient(target, {
    applicationName: "mmlite copy",
    settings: { lock_timeout: LOCK_TIMEOUT, statement_timeout: "0" },
    signal,
  });
  const breakOff = () => destroyClient(client);
  signal.addEventListener("abort", breakOff, { once: true });
  try {
    const query = queryWith(client);
    await persistently(() => openTables(query), { waiting, signal });
    await query("BEGIN");
    await query("SET LOCAL synchronous_commit = local");
    await forgetCopy(query, source);
    await alongside(query);
    await query("COMMIT");
  } catch (thrown) {
    if (signal.aborted) throw new MmliteError("aborted", `Cannot ${doing}: stopped`);
    throw mapPostgresError(thrown, doing);
  } finally {
    signal.removeEventListener("abort", breakOff);
    await closeClient(client);
  }
}

/** Somebody may read a table, and hold it for long. */
async function persistently(
  work: () => Promise<void>,
  { waiting, signal }: { readonly waiting: (sentence: string) => void; readonly signal: AbortSignal },
): Promise<void> {
  for (;;) {
    try {
      return await work();
    } catch (thrown) {
      if (!isLockTrouble(thrown) || signal.aborted) throw thrown;
      waiting("all rows have come, and a table is held by a session (pg_locks shows it)");
      await delay(LOCK_REST_MS, signal);
    }
  }
}
