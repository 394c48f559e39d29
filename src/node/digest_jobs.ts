/**
 * Digests of this node's tables for nodes that join: they may take long, so whoever wants them asks again and again.
 */
import { delay } from "../backoff.ts";
import { digestTables } from "../pg/digest.ts";
import { publishedTables } from "../pg/publication.ts";
import type { Query } from "../pg/query.ts";
import { tableMatcher } from "../pg/table_pattern.ts";
import { formatTableName } from "../table_name.ts";
import { type LocalTable, readTables } from "../pg/tables.ts";
import type { Database } from "./database.ts";
import type { JoinAnswer, JoinRequestOf } from "./join_messages.ts";
import { toCompared } from "./table_comparison.ts";
import type { Patterns } from "./table_patterns.ts";

/** How long one answer waits for the digests, milliseconds: well below what a request may take. */
const WAIT_MS = 5_000;
/** A job that nobody has asked for as long as this ends, milliseconds: whoever wanted it is gone. */
const IDLE_LIMIT_MS = 60_000;
/** From this release on partitions are published under the name of their root, and so they are compared everywhere. */
const ROOT_VERSION = 130_000;

type Digests = NonNullable<JoinAnswer<"digest">["digests"]>;

interface DigestJobsOptions {
  readonly database: Database;
  readonly patterns: Patterns;
  readonly signal: AbortSignal;
  /** {@link IDLE_LIMIT_MS} unless given, milliseconds. */
  readonly idleLimitMs?: number;
}

interface Job {
  /** Which request it is for. */
  readonly key: string;
  readonly digests: Promise<Digests>;
  readonly stop: AbortController;
  /** Counts requests, so that a job ends when no other came for {@link IDLE_LIMIT_MS}. */
  requests: number;
}

/** The tables that patterns match, each partitioned one as a whole, by schema and name. */
export async function readComparableTables(query: Query, patterns: Patterns): Promise<LocalTable[]> {
  return publishedTables(await readTables(query), {
    matches: tableMatcher(patterns),
    serverVersion: ROOT_VERSION,
  });
}

/** One job for each node at most; another request of that node ends the one before. */
export class DigestJobs {
  readonly #options: DigestJobsOptions;
  readonly #jobs = new Map<string, Job>();

  constructor(options: DigestJobsOptions) {
    this.#options = options;
  }

  /** The digests that a node asks for, or null if they take longer than a moment: it asks again then. */
  async answer(node: string, request: JoinRequestOf<"digest">): Promise<JoinAnswer<"digest">> {
    const job = this.#jobOf(node, request);
    job.requests++;
    const waiting = new AbortController();
    const late = delay(WAIT_MS, waiting.signal).then(() => null);
    try {
      const digests = await Promise.race([job.digests, late]);
      if (digests !== null) this.#end(node, job);
      return { digests };
    } catch (thrown) {
      this.#end(node, job);
      throw thrown;
    } finally {
      waiting.abort();
      void this.#endIfIdle(node, job);
    }
  }

  /** Ends what is read for a node: nobody will ask for it. */
  stop(node: string): void {
    this.#jobs.get(node)?.stop.abort();
    this.#jobs.delete(node);
  }

  #jobOf(node: string, request: JoinRequestOf<"digest">): Job {
    const key = JSON.stringify(request);
    const present = this.#jobs.get(node);
    if (present?.key === key) return present;
    present?.stop.abort();
    const stop = new AbortController();
    const digests = this.#digest(request, AbortSignal.any([stop.signal, this.#options.signal]));
    digests.catch(() => {});
    const job = { key, digests, stop, requests: 0 };
    this.#jobs.set(node, job);
    return job;
  }

  async #digest({ tables }: JoinRequestOf<"digest">, signal: AbortSignal): Promise<Digests> {
    const { database, patterns } = this.#options;
    const query = database.control.query("list the tables for a node that joins");
    const wanted = new Map(tables.map((table) => [formatTableName(table), table]));
    const present = await readComparableTables(query, patterns);
    const digests = await digestTables({
      target: database.target,
      tables: present.filter((table) => wanted.has(formatTableName(table))),
      isHashed: (table) => wanted.get(formatTableName(table))!.hashed,
      signal,
    });
    return digests.map(toCompared);
  }

  async #endIfIdle(node: string, job: Job): Promise<void> {
    const { requests, stop } = job;
    const { idleLimitMs = IDLE_LIMIT_MS, signal } = this.#options;
    await delay(idleLimitMs, AbortSignal.any([stop.signal, signal]));
    if (job.requests === requests && this.#jobs.get(node) === job) this.stop(node);
  }

  #end(node: string, job: Job): void {
    job.stop.abort();
    if (this.#jobs.get(node) === job) this.#jobs.delete(node);
  }
}
