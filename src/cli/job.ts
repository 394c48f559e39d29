/**
 * A job of the node, from its beginning to its report: followed on standard error, and cancelled by a signal.
 */
import process from "node:process";
import type { Job } from "../api/job_schemas.ts";
import { delay } from "../backoff.ts";
import { ERROR_POLICY, isErrorKind, MmliteError } from "../errors.ts";
import { type ApiRequest, requestApi } from "./client.ts";
import type { Context, GlobalOptions } from "./context.ts";
import { formatCurl } from "./curl.ts";
import { requireDuration } from "./duration.ts";
import { type Endpoint, findEndpoint } from "./endpoint.ts";
import { untilSignal } from "./signals.ts";

/** How often it is asked how far the job is, milliseconds. */
const POLL_MS = 300;
/** A node that cannot tell of its job for longer is given up, milliseconds. */
const PATIENCE_MS = 30_000;

/** Lines about a job come no closer to each other, milliseconds. */
const LINE_MS = 5_000;
/** Characters of the bar on a terminal. */
const BAR_WIDTH = 20;

/** Options of a comparison. */
export interface ComparisonOptions extends GlobalOptions {
  readonly share?: string;
  readonly limit?: string;
  readonly timeout?: string;
}

/** What they are in a job's input. */
export function comparisonInput({ share, limit, timeout }: ComparisonOptions) {
  return {
    share: share === undefined ? undefined : requireNumber(share, "--share") / 100,
    limit: limit === undefined ? undefined : requireNumber(limit, "--limit"),
    settle_seconds: timeout === undefined ? undefined : requireDuration(timeout, "--timeout"),
  };
}

function requireNumber(text: string, option: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new MmliteError("usage", `Cannot use ${option} ${JSON.stringify(text)}: it is no whole number`);
}

/** Has the node do a job and waits for its end; undefined where only the curl line is printed. */
export async function runJob(
  input: object,
  { options, context }: { readonly options: GlobalOptions; readonly context: Context },
): Promise<Job | undefined> {
  const begun = await beginJob(input, { options, context });
  return begun === undefined ? undefined : await followJob(begun, { options, context });
}

/** A job that was begun, and the node that does it. */
interface BegunJob {
  readonly job: Job;
  readonly endpoint: Endpoint;
}

/** Has the node begin a job; undefined where only the curl line is printed. */
export async function beginJob(
  input: object,
  { options, context }: { readonly options: GlobalOptions; readonly context: Context },
): Promise<BegunJob | undefined> {
  const endpoint = await findEndpoint(options, context);
  const request: ApiRequest = { method: "POST", path: "/v1/jobs", body: input };
  if (options.asCurl) {
    context.print(formatCurl(request, endpoint));
    return undefined;
  }
  const { body } = await requestApi<Job>(request, endpoint);
  return { job: body, endpoint };
}

/**
 * Waits for the end of a job. A signal cancels it, or with `leave` only ends the waiting. With `plain` lines say how
 * far it is where standard error is no terminal.
 */
export function followJob(
  { job: { id }, endpoint }: BegunJob,
  { options, context, plain = false, leave = false }: {
    readonly options: GlobalOptions;
    readonly context: Context;
    readonly plain?: boolean;
    readonly leave?: boolean;
  },
): Promise<Job> {
  const shown = progressOf({ isQuiet: options.quiet === true, plain, context });
  return untilSignal((signal) => follow(id, { endpoint, signal, shown, leave }));
}

/** The report of a job that came to its end; throws what it failed of. */
export function requireResult(
  { id, state, error, result }: Job,
  command: string,
): NonNullable<Job["result"]> {
  if (result !== null) return result;
  if (error !== null) throw jobError(error);
  throw new MmliteError("aborted", `Cannot tell what came of job ${id}: it is ${state}`, {
    hint: `Run \`${command}\` again`,
  });
}

/** What a job failed of. */
export function jobError({ kind, message, hint }: NonNullable<Job["error"]>): MmliteError {
  return new MmliteError(isErrorKind(kind) ? kind : "internal", message, { hint });
}

/** The exit code of a comparison; `kind` is of what one failed of. A peer that refuses has told of no difference. */
export function exitCodeOf(outcome: "equal" | "differs" | "undecided" | "failed", kind: string): number {
  switch (outcome) {
    case "equal":
      return 0;
    case "differs":
      return 1;
    case "undecided":
      return ERROR_POLICY.transient.exitCode;
    case "failed": {
      const { exitCode } = ERROR_POLICY[isErrorKind(kind) ? kind : "internal"];
      return exitCode === 1 ? ERROR_POLICY.unreachable.exitCode : exitCode;
    }
  }
}

async function follow(
  id: string,
  { endpoint, signal, shown, leave }: {
    readonly endpoint: Endpoint;
    readonly signal: AbortSignal;
    readonly shown: ShownProgress;
    readonly leave: boolean;
  },
): Promise<Job> {
  const path = `/v1/jobs/${encodeURIComponent(id)}`;
  let heardAt = performance.now();
  try {
    for (;;) {
      let job: Job;
      try {
        ({ body: job } = await requestApi<Job>({ method: "GET", path }, endpoint));
      } catch (thrown) {
        // The job goes on where its node has lost PostgreSQL for a moment, or is busy.
        const passes = thrown instanceof MmliteError && thrown.disposition === "retry" && !signal.aborted;
        if (!passes || performance.now() - heardAt > PATIENCE_MS) throw thrown;
        await delay(POLL_MS, signal);
        continue;
      }
      heardAt = performance.now();
      if (job.state !== "queued" && job.state !== "running") return job;
      if (signal.aborted && leave) {
        throw new MmliteError("aborted", `Cannot wait any more: stopped, and job ${id} goes on`, {
          hint: `GET ${path} tells how far it is, DELETE ${path} cancels it`,
        });
      }
      if (signal.aborted) {
        await requestApi<void>({ method: "DELETE", path }, endpoint);
        throw new MmliteError("aborted", `Cannot go on: stopped, and job ${id} is cancelled`);
      }
      shown.show(job);
      await delay(POLL_MS, signal);
    }
  } finally {
    shown.clear();
  }
}

/** Where it is shown how far a job is. */
interface ShownProgress {
  show(job: Job): void;
  clear(): void;
}

function progressOf(
  { isQuiet, plain, context }: {
    readonly isQuiet: boolean;
    readonly plain: boolean;
    readonly context: Context;
  },
): ShownProgress {
  if (!isQuiet && process.stderr.isTTY === true) return progressBar;
  return !isQuiet && plain ? progressLines(context) : { show: () => {}, clear: () => {} };
}

/** One line that is written over again and again, where somebody looks. */
const progressBar: ShownProgress = {
  show: (job) => void process.stderr.write(`\r\x1b[K${bar(job)}${describeProgress(job)}`),
  clear: () => void process.stderr.write("\r\x1b[K"),
};

/** A line now and then, for logs. */
function progressLines({ note }: Context): ShownProgress {
  let [shownAt, last] = [-Infinity, ""];
  return {
    show: (job) => {
      const line = describeProgress(job);
      if (line === last || performance.now() - shownAt < LINE_MS) return;
      [shownAt, last] = [performance.now(), line];
      note(`job ${job.id}: ${line}`);
    },
    clear: () => {},
  };
}

function bar({ progress }: Job): string {
  if (progress === null) return "";
  const done = Math.round(progress * BAR_WIDTH);
  return `[${"#".repeat(done)}${" ".repeat(BAR_WIDTH - done)}] `;
}

function describeProgress({ state, progress, rows, bytes, eta_seconds: eta }: Job): string {
  const parts = state === "queued" ? ["waiting for other jobs"] : [
    progress === null ? "reading" : `${Math.round(progress * 100)} %`,
    `${rows ?? 0} rows`,
    `${Math.round((bytes ?? 0) / 1000)} kB exchanged`,
    ...(eta === null ? [] : [`${Math.ceil(eta)} s left`]),
  ];
  return parts.join(", ");
}
