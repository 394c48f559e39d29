/**
 * The watch over the local PostgreSQL: notices that it goes down, lets go of it at once, and takes hold again.
 *
 * A walsender that waits for acks keeps PostgreSQL from stopping, and an idle connection keeps a smart shutdown
 * waiting for ever, so neither may stay once the server has been told to stop.
 */
import { backoffMs, delay } from "../backoff.ts";
import { MmliteError, toMmliteError } from "../errors.ts";
import { log } from "../log.ts";
import { closeClient, openClient } from "../pg/client.ts";
import { type NodeRow, readNode, requireSameNode } from "../pg/identity.ts";
import { type DatabaseLock, openLock } from "../pg/lock.ts";
import { readServerFacts, requireUsable, type ServerFacts } from "../pg/server.ts";
import type { Database } from "./database.ts";

/** How often the server is asked whether it still lets connections in, milliseconds: a smart shutdown shows only so. */
const PROBE_INTERVAL_MS = 5_000;

interface GuardOptions {
  readonly database: Database;
  readonly node: NodeRow;
  /** Breaks off every replication stream and apply session. */
  readonly interrupt: () => void;
}

/** Whether the database is in our hands. */
export class Guard {
  readonly #options: GuardOptions;
  readonly #logger = log("guard");
  /** Why the database cannot be used at the moment; null while it can. */
  problem: MmliteError | null = null;

  constructor(options: GuardOptions) {
    this.#options = options;
  }

  /** Watches until `signal` aborts; throws when the database can never be this node's again. */
  async run(signal: AbortSignal): Promise<void> {
    let lock = this.#options.database.lock;
    while (!signal.aborted) {
      const problem = await this.#untilDown(lock, signal);
      if (problem === undefined) break;
      this.problem = problem;
      this.#logger.warn("Lost the database: {error}", { error: problem.message });
      await Promise.all([lock.close(), this.#letGo()]);
      const taken = await this.#takeHold(signal);
      if (taken === undefined) return;
      lock = taken;
      this.problem = null;
      this.#logger.info("The database is back");
    }
    await lock.close();
  }

  /** Resolves to the trouble once there is some, to undefined when the signal aborts. */
  async #untilDown(lock: DatabaseLock, signal: AbortSignal): Promise<MmliteError | undefined> {
    const woken = AbortSignal.any([signal, lock.lost]);
    for (;;) {
      await delay(PROBE_INTERVAL_MS, woken);
      if (signal.aborted) return undefined;
      if (lock.lost.aborted) return toMmliteError(lock.lost.reason);
      const trouble = await this.#probe(signal);
      if (signal.aborted) return undefined;
      if (trouble?.kind === "unreachable") return trouble;
    }
  }

  async #probe(signal: AbortSignal): Promise<MmliteError | undefined> {
    try {
      await closeClient(
        await openClient(this.#options.database.target, { applicationName: "mmlite probe", signal }),
      );
      return undefined;
    } catch (thrown) {
      return toMmliteError(thrown);
    }
  }

  /** Breaks off every session that could keep the server from stopping. */
  async #letGo(): Promise<void> {
    this.#options.interrupt();
    await this.#options.database.control.release();
  }

  async #takeHold(signal: AbortSignal): Promise<DatabaseLock | undefined> {
    for (let failures = 0; !signal.aborted; failures++) {
      await delay(Math.min(backoffMs(failures), PROBE_INTERVAL_MS), signal);
      try {
        return await this.#tryHold(signal);
      } catch (thrown) {
        const error = toMmliteError(thrown);
        // Links try by themselves: a server that came up for a moment, and is stopped again, may have let one in.
        await this.#letGo();
        // Anything else may pass: a server in recovery, a password that is being changed, a lock that lingers.
        if (error.disposition === "fence") throw error;
        this.problem = error;
      }
    }
    return undefined;
  }

  async #tryHold(signal: AbortSignal): Promise<DatabaseLock> {
    const { database, node } = this.#options;
    const lock = await openLock(database.target, signal);
    try {
      const query = database.control.query("check the database again");
      const facts = await readServerFacts(query);
      requireUsable(facts);
      requireSameServer(facts, database.facts);
      requireStillSame(await readNode(query), node);
      return lock;
    } catch (thrown) {
      await lock.close();
      throw thrown;
    }
  }
}

/** What the handshake tells of the server is read once; a server that was replaced or promoted needs a new start. */
function requireSameServer(now: ServerFacts, before: ServerFacts): void {
  const same = now.systemIdentifier === before.systemIdentifier && now.timeline === before.timeline &&
    now.versionNumber === before.versionNumber;
  if (same) return;
  throw new MmliteError(
    "fenced",
    `Cannot go on with PostgreSQL ${now.version} on timeline ${now.timeline}: it was ${before.version} ` +
      `on timeline ${before.timeline} when this process started`,
    { hint: "Start mmlite again: it checks then whether this is still the node's own database" },
  );
}

function requireStillSame(found: NodeRow | undefined, node: NodeRow): void {
  if (found !== undefined) requireSameNode(found, node);
  if (found?.incarnation === node.incarnation) return;
  throw new MmliteError(
    "fenced",
    `Cannot go on as node "${node.name}": its database was replaced while it was away`,
    { hint: "Drop schema mmlite and its slots in that database, then start again and add its peers again" },
  );
}
