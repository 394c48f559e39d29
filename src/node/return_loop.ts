/**
 * The stream that this node keeps open to a peer which cannot dial it, so that the peer can push over it.
 *
 * Apart from the link to the same peer: pausing or blocking one direction does not stop the other.
 */
import { backoffMs, delay } from "../backoff.ts";
import { type MmliteError, toMmliteError } from "../errors.ts";
import { log } from "../log.ts";
import type { Channel } from "../wire/channel.ts";

/** After a stream that lived this long the next is dialled without a longer wait than the first, milliseconds. */
const CALM_MS = 1_000;

/** What the loop needs. */
export interface ReturnPorts {
  readonly dial: (signal: AbortSignal) => Promise<Channel>;
  /** Receives on the stream until it is over, or `signal` aborts. */
  readonly receive: (channel: Channel, signal: AbortSignal) => Promise<void>;
  /** No stream could be opened. */
  readonly failed: (error: MmliteError) => void;
}

/** Opens the stream again and again; does nothing until {@link ReturnLoop.start}. */
export class ReturnLoop {
  readonly #ports: ReturnPorts;
  readonly #logger;
  #stop: AbortController | undefined;
  #running: Promise<void> = Promise.resolve();
  #reported = "";

  constructor(peer: string, ports: ReturnPorts) {
    this.#ports = ports;
    this.#logger = log("return", peer);
  }

  /** Starts the loop; does nothing if it runs. */
  start(): void {
    if (this.#stop !== undefined) return;
    this.#logger.info("The peer does not dial this node: it pushes over a stream that this node opens");
    const { signal } = this.#stop = new AbortController();
    this.#running = this.#running.then(() => this.#run(signal));
  }

  /** Stops the loop and ends its stream; resolves when what it was receiving is over. */
  async stop(): Promise<void> {
    if (this.#stop !== undefined) this.#logger.info("This node opens no stream to the peer any longer");
    this.#stop?.abort();
    this.#stop = undefined;
    await this.#running;
  }

  async #run(signal: AbortSignal): Promise<void> {
    for (let failures = 0; !signal.aborted; failures++) {
      const startedAt = performance.now();
      await this.#attempt(signal);
      if (performance.now() - startedAt > CALM_MS) failures = 0;
      await delay(backoffMs(failures), signal);
    }
  }

  async #attempt(signal: AbortSignal): Promise<void> {
    try {
      const channel = await this.#ports.dial(signal);
      this.#reported = "";
      await this.#ports.receive(channel, signal);
    } catch (thrown) {
      if (!signal.aborted) this.#failed(toMmliteError(thrown));
    }
  }

  /** Each error once, however often the same attempt fails again. */
  #failed(error: MmliteError): void {
    this.#ports.failed(error);
    const { message, hint } = error;
    const level = message === this.#reported ? "debug" : "warn";
    this.#reported = message;
    this.#logger[level]("{error}; {hint}", { error: message, hint });
  }
}
