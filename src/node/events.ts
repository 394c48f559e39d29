/**
 * What happens on the node, for whoever listens: looked for at an interval, and only while somebody does.
 */
import type { NodeEvent } from "../api/control.ts";
import type { JobSummary } from "../api/job_schemas.ts";
import type { NodeStatus, PeerStatus, Trouble } from "../api/schemas.ts";
import { delay } from "../backoff.ts";
import { MmliteError, toMmliteError } from "../errors.ts";
import { log } from "../log.ts";
import type { Query } from "../pg/query.ts";
import { formatTableName } from "../table_name.ts";
import { ConflictFeed, type FedConflict } from "./conflict_feed.ts";

/** How often it is looked what has happened, milliseconds. */
const LOOK_INTERVAL_MS = 1_000;
/** So many may listen at once: each has PostgreSQL asked every second. */
const MAX_LISTENERS = 16;

interface NodeEventsOptions {
  readonly query: Query;
  readonly status: () => Promise<NodeStatus>;
  readonly jobs: () => Promise<readonly JobSummary[]>;
  /** Aborts when the node closes. */
  readonly signal: AbortSignal;
}

/** See the module's head. */
export class NodeEvents {
  readonly #options: NodeEventsOptions;
  readonly #logger = log("events");
  #listeners = 0;

  constructor(options: NodeEventsOptions) {
    this.#options = options;
  }

  /** See `NodeControl.events`; throws `transient` where too many listen. */
  listen({ after, signal }: { after: string | null; signal: AbortSignal }): AsyncIterable<NodeEvent> {
    if (this.#listeners >= MAX_LISTENERS) {
      throw new MmliteError("transient", `Cannot send events: ${MAX_LISTENERS} listen already`, {
        hint: "End one of them, then try again",
      });
    }
    return this.#listen(after, AbortSignal.any([signal, this.#options.signal]));
  }

  async *#listen(after: string | null, signal: AbortSignal): AsyncGenerator<NodeEvent> {
    this.#listeners++;
    try {
      const changes = new StatusChanges();
      const jobs = new JobChanges();
      const conflicts = new Conflicts(this.#options.query, after);
      while (!signal.aborted) {
        let isBehind = false;
        yield* await this.#attempt(async () => {
          const { fed, more } = await conflicts.read();
          isBehind = more;
          return fed.map(conflictEvent);
        });
        if (isBehind) continue;
        yield* await this.#attempt(async () => changes.since(await this.#options.status()));
        yield* await this.#attempt(async () => jobs.since(await this.#options.jobs()));
        await delay(LOOK_INTERVAL_MS, signal);
      }
    } finally {
      this.#listeners--;
    }
  }

  /** The database is away, or busy: there is another look. */
  async #attempt(look: () => Promise<NodeEvent[]>): Promise<NodeEvent[]> {
    try {
      return await look();
    } catch (thrown) {
      this.#logger.debug("{error}", { error: toMmliteError(thrown).message });
      return [];
    }
  }
}

/** A feed that begins once the database can be asked. */
class Conflicts {
  readonly #query: Query;
  readonly #after: string | null;
  #feed: ConflictFeed | undefined;

  constructor(query: Query, after: string | null) {
    this.#query = query;
    this.#after = after;
  }

  async read(): ReturnType<ConflictFeed["read"]> {
    this.#feed ??= this.#after === null
      ? await ConflictFeed.fromNow(this.#query)
      : ConflictFeed.after(this.#query, this.#after);
    return await this.#feed.read();
  }
}

/** What is new in a status since the last one; at first everything. */
class StatusChanges {
  #peers = new Map<string, string>();
  #problems = new Map<string, Trouble>();

  since({ peers, problems }: NodeStatus): NodeEvent[] {
    return [...this.#peerEvents(peers), ...this.#problemEvents(problems)];
  }

  #peerEvents(peers: readonly PeerStatus[]): NodeEvent[] {
    const events = peers.map(({ name, state, since, inbound }) => ({
      name: "peer" as const,
      id: null,
      data: { name, state, since, inbound: inbound.state },
    }));
    const before = this.#peers;
    this.#peers = new Map(events.map(({ data }) => [data.name, JSON.stringify(data)]));
    return events.filter(({ data }) => before.get(data.name) !== this.#peers.get(data.name));
  }

  #problemEvents(problems: readonly Trouble[]): NodeEvent[] {
    const before = this.#problems;
    this.#problems = new Map(problems.map((problem) => [problem.message, problem]));
    const came = [...this.#problems].filter(([message]) => !before.has(message));
    const went = [...before].filter(([message]) => !this.#problems.has(message));
    return [
      ...went.map(([_, problem]) => problemEvent("gone", problem)),
      ...came.map(([_, problem]) => problemEvent("present", problem)),
    ];
  }
}

/** What is new of jobs since the last look; at first those that have not ended. */
class JobChanges {
  #said: Map<string, string> | undefined;

  since(jobs: readonly JobSummary[]): NodeEvent[] {
    const events = jobs.map(({ id, type, state, progress }) => ({
      name: "job" as const,
      id: null,
      data: { id, type, state, progress },
    })).reverse();
    const before = this.#said;
    this.#said = new Map(events.map(({ data }) => [data.id, JSON.stringify(data)]));
    return events.filter(({ data: { id, state } }) =>
      before === undefined
        ? state === "queued" || state === "running"
        : before.get(id) !== this.#said!.get(id)
    );
  }
}

function problemEvent(state: "present" | "gone", problem: Trouble): NodeEvent {
  return { name: "problem", id: null, data: { state, ...problem } };
}

function conflictEvent({ conflict, position }: FedConflict): NodeEvent {
  const { id, type, resolution, notedAt } = conflict;
  return {
    name: "conflict",
    id: position,
    data: { id, type, resolution, table: formatTableName(conflict), noted_at: notedAt },
  };
}
