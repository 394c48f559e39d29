/**
 * Long work that operators ask this node for: one job after the other, each on record until newer ones push it out.
 *
 * A restart ends what is under way; the record says so, and what to do. What must not stay half done goes on.
 */
import type { Job, JobInput, JobSummary } from "../api/job_schemas.ts";
import { backoffMs, delay } from "../backoff.ts";
import { MmliteError, toMmliteError } from "../errors.ts";
import { log } from "../log.ts";
import {
  beginJob,
  createJob,
  endJob,
  failUnderWay,
  forgetJob,
  type JobError,
  type JobRow,
  noteCreated,
  readJob,
  readJobs,
  resumeJobs,
} from "../pg/jobs.ts";
import type { Query } from "../pg/query.ts";
import type { Database } from "./database.ts";
import { JobProgress } from "./job_progress.ts";

/** What a job is given to work with. */
export interface JobContext {
  readonly progress: JobProgress;
  /** Aborts when the job is cancelled or the node closes. */
  readonly signal: AbortSignal;
}

/** The same for one that runs as a job, with its own record. */
export interface JobRun extends JobContext {
  /** Puts the result on record in a transaction of the caller: with its commit the job has ended, whatever comes then. */
  readonly succeed: (query: Query, result: Job["result"]) => Promise<void>;
  /** Puts on record what it has created, in the transaction that does; returns all of it, across restarts. */
  readonly created: (query: Query, names: readonly string[]) => Promise<string[]>;
  /** What goes on record with it if it fails. */
  readonly found: (result: Job["result"]) => void;
}

/** A kind of job. */
export interface JobKind<Input extends JobInput> {
  /** Throws what is wrong with the input, before the job is on record. */
  check(input: Input): void;
  /** Does the work; its result goes on record. */
  run(input: Input, run: JobRun): Promise<Job["result"]>;
  /** What to do about a job that a restart ended; null where it goes on by itself. */
  readonly interruptedHint: string | null;
}

/** All kinds, by the `type` that the API takes. */
export type JobKinds = { readonly [Type in JobInput["type"]]: JobKind<Extract<JobInput, { type: Type }>> };

interface JobsOptions {
  readonly database: Pick<Database, "control">;
  readonly kinds: JobKinds;
  /** Aborts when the node closes. */
  readonly signal: AbortSignal;
}

interface UnderWay {
  readonly progress: JobProgress;
  readonly stop: AbortController;
}

/** Jobs that wait or run, at most: each is a minute's work or more. */
const MAX_UNDER_WAY = 100;

/** See the module's head. */
export class Jobs {
  readonly #options: JobsOptions;
  readonly #logger = log("jobs");
  readonly #underWay = new Map<string, UnderWay>();
  #turn: Promise<void> = Promise.resolve();

  constructor(options: JobsOptions) {
    this.#options = options;
  }

  /** What an earlier process left under way goes on, or is on record as ended; to be called once, when all else is there. */
  async load(): Promise<void> {
    const query = this.#query("look for jobs");
    const resuming = Object.entries(this.#options.kinds).filter(([, kind]) => kind.interruptedHint === null)
      .map(([type]) => type);
    const ids = await failUnderWay(query, {
      except: resuming,
      errorOf: (type) => interrupted(this.#kindOf(type), type),
    });
    for (const id of ids) this.#logger.warn("Job {id} was cut short by the restart of this node", { id });
    for (const { id, input } of await resumeJobs(query, resuming)) this.#enqueue(id, input as JobInput);
  }

  /** Resolves once nothing runs any more. */
  async close(): Promise<void> {
    await this.#turn;
  }

  /** Puts a job on record, and begins it when those before it have ended. */
  async create(input: JobInput, { dryRun }: { dryRun: boolean }): Promise<Job> {
    this.#kindOf(input.type)!.check(input);
    if (dryRun) return imagined(input);
    if (this.#underWay.size >= MAX_UNDER_WAY) {
      throw new MmliteError("transient", `Cannot begin a job: ${MAX_UNDER_WAY} wait already`, {
        hint: "Wait for some to end, or cancel them",
      });
    }
    const row = await createJob(this.#query("begin a job"), { type: input.type, input });
    this.#enqueue(row.id, input);
    return this.#show(row);
  }

  /** Every job, the latest first. */
  async list(): Promise<JobSummary[]> {
    return (await readJobs(this.#query("list the jobs"))).map((row) => summary(this.#show(row)));
  }

  /** Throws `not_found`. */
  async get(id: string): Promise<Job> {
    const row = await readJob(this.#query(`show job ${id}`), id);
    if (row === undefined) throw notFound(id);
    return this.#show(row);
  }

  /** Cancels a job, or forgets one that has ended; throws `not_found`. */
  async remove(id: string): Promise<void> {
    const { state } = await this.get(id);
    const query = this.#query(`cancel job ${id}`);
    if (state !== "queued" && state !== "running") return void await forgetJob(query, id);
    await endJob(query, id, { state: "cancelled" });
    this.#underWay.get(id)?.stop.abort();
  }

  /** It begins when those before it have ended. */
  #enqueue(id: string, input: JobInput): void {
    const job = { progress: new JobProgress(), stop: new AbortController() };
    this.#underWay.set(id, job);
    this.#turn = this.#turn.then(() => this.#run(id, input, job));
  }

  async #run(id: string, input: JobInput, { progress, stop }: UnderWay): Promise<void> {
    const signal = AbortSignal.any([stop.signal, this.#options.signal]);
    let found: Job["result"] = null;
    try {
      const begin = () => beginJob(this.#query(`begin job ${id}`), id);
      if (!await this.#persistently(begin, signal)) return;
      progress.begin();
      this.#logger.info("Job {id} ({type}) begins", { id, type: input.type });
      const result = await this.#kindOf(input.type)!.run(input, {
        ...{ progress, signal },
        succeed: (query, result) => endJob(query, id, { state: "succeeded", result }),
        created: (query, names) => noteCreated(query, id, names),
        found: (result) => found = result,
      });
      await this.#end(id, { state: "succeeded", result });
      this.#logger.info("Job {id} has ended", { id });
    } catch (thrown) {
      if (stop.signal.aborted) this.#logger.info("Job {id} is cancelled", { id });
      else await this.#fail(id, toMmliteError(thrown), found);
    } finally {
      this.#underWay.delete(id);
    }
  }

  async #fail(
    id: string,
    { kind, message, hint }: MmliteError,
    result: Job["result"],
  ): Promise<void> {
    if (this.#options.signal.aborted) return;
    this.#logger.warn("Job {id} failed: {error}", { id, error: message });
    await this.#end(id, { state: "failed", error: { kind, message, hint }, result });
  }

  /** One that this node's end cuts short is found at the next start. */
  async #end(id: string, outcome: Parameters<typeof endJob>[2]): Promise<void> {
    await this.#persistently(() => endJob(this.#query(`end job ${id}`), id, outcome), this.#options.signal);
  }

  /** PostgreSQL may be away: tries until it is done, or `signal` aborts; then there is no outcome. */
  async #persistently<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T | undefined> {
    for (let failures = 0; !signal.aborted; failures++) {
      try {
        return await work();
      } catch (thrown) {
        if (failures === 0) this.#logger.warn("{error}", { error: toMmliteError(thrown).message });
        await delay(backoffMs(failures), signal);
      }
    }
  }

  #kindOf(type: string): JobKind<JobInput> | undefined {
    return (this.#options.kinds as Record<string, JobKind<JobInput> | undefined>)[type];
  }

  #show(row: JobRow): Job {
    const progress = this.#underWay.get(row.id)?.progress;
    return {
      id: row.id,
      type: row.type,
      state: row.state,
      input: row.input as Job["input"],
      created_at: row.createdAt,
      started_at: row.startedAt,
      finished_at: row.finishedAt,
      progress: row.state === "succeeded" ? 1 : progress?.fraction ?? null,
      rows: progress?.rows ?? null,
      bytes: progress?.bytes() ?? null,
      eta_seconds: progress?.etaSeconds ?? null,
      error: row.error,
      result: row.result as Job["result"],
    };
  }

  #query(doing: string) {
    return this.#options.database.control.query(doing);
  }
}

/** What a dry run answers. */
function imagined(input: JobInput): Job {
  const nothing = { started_at: null, finished_at: null, progress: null, rows: null, bytes: null };
  return {
    ...{ id: "0", type: input.type, state: "queued", input, created_at: new Date().toISOString() },
    ...{ ...nothing, eta_seconds: null, error: null, result: null },
  };
}

function summary({ result: _, ...rest }: Job): JobSummary {
  return rest;
}

function interrupted(kind: JobKind<JobInput> | undefined, type: string): JobError {
  return {
    kind: "aborted",
    message: `Cannot go on with ${type}: this node was restarted meanwhile`,
    hint: kind?.interruptedHint ?? "Begin it again",
  };
}

function notFound(id: string): MmliteError {
  return new MmliteError("not_found", `Cannot find job ${JSON.stringify(id)}: there is none`, {
    hint: "GET /v1/jobs lists those that there are",
  });
}
