/**
 * Outgoing replication to one peer: attempt after attempt, and what to do when one ends.
 *
 * Nothing here knows what a session does; nothing in a session knows that it is repeated.
 */
import { BACKOFF_LIMIT_MS, backoffMs, delay } from "../backoff.ts";
import { type ErrorKind, MmliteError, toMmliteError } from "../errors.ts";
import { log } from "../log.ts";

/** What a link does at the moment. */
export type LinkState =
  | { readonly name: "connecting" }
  /** The peer takes nothing before it has copied its rows. */
  | { readonly name: "copying"; readonly error: MmliteError }
  | { readonly name: "catchup" }
  | { readonly name: "streaming" }
  | { readonly name: "backoff"; readonly error: MmliteError }
  | { readonly name: "paused" }
  | { readonly name: "blocked"; readonly error: MmliteError }
  | { readonly name: "fenced"; readonly error: MmliteError };

/** How long a link that is blocked by what may be mended elsewhere, schemas or clocks that differ, waits before it
 * looks again, milliseconds. */
export const MENDED_ELSEWHERE_RETRY_MS = 5_000;
/** How long one waits that is blocked by what an operator has to mend at the peer, at first and at most,
 * milliseconds: each look sends the transaction again. */
export const OPERATOR_RETRY_MS = 5_000;
export const OPERATOR_RETRY_LIMIT_MS = 60_000;

/** States that a link which looks again stays in, in status. */
const STAYING: readonly LinkState["name"][] = ["blocked", "copying"];

/** What an attempt tells its link. */
export interface AttemptReport {
  /** Data flows. */
  entered(state: "catchup" | "streaming"): void;
  /** The peer holds more than at the attempt's start: what stood in the way before is over. */
  progressed(): void;
}

interface LinkOptions {
  /** The peer's name, for log lines. */
  readonly peer: string;
  /** One attempt: returns when the signal aborts, throws when it breaks. */
  readonly attempt: (signal: AbortSignal, report: AttemptReport) => Promise<void>;
}

/** A link with its retry loop. Does nothing until {@link Link.start}. */
export class Link {
  readonly #options: LinkOptions;
  readonly #logger;
  #state: LinkState = { name: "connecting" };
  #since = new Date();
  #lastError: { error: MmliteError; at: Date } | undefined;
  #reported = "";
  #stop: AbortController | undefined;
  #attempt: AbortController | undefined;
  #running: Promise<void> = Promise.resolve();
  #wake = new AbortController();

  constructor(options: LinkOptions) {
    this.#options = options;
    this.#logger = log("link", options.peer);
  }

  get state(): LinkState {
    return this.#state;
  }

  /** When the present state began. */
  get since(): Date {
    return this.#since;
  }

  /** The last error of any attempt; stays after the link has healed. */
  get lastError(): { readonly error: MmliteError; readonly at: Date } | undefined {
    return this.#lastError;
  }

  /** Starts the loop; does nothing if it runs. */
  start(): void {
    if (this.#stop !== undefined) return;
    this.#stop = new AbortController();
    this.#running = this.#run(this.#stop.signal);
  }

  /** Stops the loop and waits for the attempt to end; the link is `paused` then. */
  async stop(): Promise<void> {
    this.#stop?.abort();
    await this.#running;
    this.#stop = undefined;
    this.#enter({ name: "paused" });
  }

  /** Ends a wait at once, if the link is in one. */
  retry(): void {
    this.#wake.abort();
  }

  /** Breaks the present attempt off, because its PostgreSQL is going down; the loop goes on with a wait. */
  interrupt(): void {
    this.#attempt?.abort();
  }

  async #run(signal: AbortSignal): Promise<void> {
    for (let failures = 0; !signal.aborted;) {
      this.#enter({ name: "connecting" });
      this.#attempt = new AbortController();
      const attempt = AbortSignal.any([signal, this.#attempt.signal]);
      const startedAt = performance.now();
      // Connecting alone is no success: a transaction that cannot be applied would be tried many times a second.
      const report: AttemptReport = {
        entered: (state) => this.#enter({ name: state }),
        progressed: () => void (failures = 0),
      };
      try {
        await this.#options.attempt(attempt, report);
        if (!signal.aborted) {
          throw new MmliteError("aborted", "Cannot go on: the local PostgreSQL is going down");
        }
      } catch (thrown) {
        if (signal.aborted) return;
        if (performance.now() - startedAt > BACKOFF_LIMIT_MS) failures = 0;
        await this.#rest(toMmliteError(thrown), failures++, signal);
      }
    }
  }

  async #rest(error: MmliteError, failures: number, signal: AbortSignal): Promise<void> {
    this.#lastError = { error, at: new Date() };
    this.#wake = new AbortController();
    const woken = AbortSignal.any([signal, this.#wake.signal]);
    switch (error.disposition) {
      case "retry":
        this.#enter({ name: error.kind === "copying" ? "copying" : "backoff", error });
        return await delay(backoffMs(failures), woken);
      case "block":
        this.#enter({ name: "blocked", error });
        return await lookAgain(error.kind, failures, woken);
      case "fence":
        this.#enter({ name: "fenced", error });
        return await aborted(woken);
    }
  }

  #enter(state: LinkState): void {
    if (state.name === this.#state.name) {
      this.#state = state;
      return;
    }
    // A link that looks again while an operator is needed stays blocked in status until data flows; and so does one
    // whose peer copies its rows.
    if (state.name === "connecting" && STAYING.includes(this.#state.name)) return;
    this.#state = state;
    this.#since = new Date();
    this.#report(state);
  }

  /** Each error once, however often the same attempt fails again. */
  #report(state: LinkState): void {
    if (!("error" in state)) {
      if (state.name !== "connecting") this.#reported = "";
      return this.#logger[state.name === "connecting" ? "debug" : "info"]("Link is {state}", {
        state: state.name,
      });
    }
    const { message, hint } = state.error;
    const level = message === this.#reported ? "debug" : state.name === "copying" ? "info" : "warn";
    this.#reported = message;
    this.#logger[level]("Link is {state}: {error}; {hint}", { state: state.name, error: message, hint });
  }
}

/** Waits until a blocked link looks again, by itself where the cause may be gone without anybody telling it. */
async function lookAgain(kind: ErrorKind, failures: number, signal: AbortSignal): Promise<void> {
  switch (kind) {
    case "schema_mismatch":
    case "clock_skew":
      return await delay(MENDED_ELSEWHERE_RETRY_MS, signal);
    case "apply_failed":
    case "permission":
      return await delay(Math.min(OPERATOR_RETRY_LIMIT_MS, OPERATOR_RETRY_MS * 2 ** failures), signal);
    default:
      return await aborted(signal);
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}
