/**
 * Incoming replication: at most one receiving session per sender, the newest.
 *
 * A sender that dials again has given up its older session, which may be half dead: that one is ended, and is over
 * before the new one touches the database.
 */
import type { MmliteError } from "../errors.ts";
import type { Channel } from "../wire/channel.ts";
import type { InboundState, InboxPorts, RunningSession } from "./ports.ts";
import { receive } from "./session.ts";

/** The receiving sessions of a node. */
export class Inbox {
  readonly #ports: InboxPorts;
  readonly #running = new Map<string, RunningSession>();
  readonly #all = new Set<Promise<void>>();
  readonly #stop = new AbortController();
  #interrupt = new AbortController();

  constructor(ports: InboxPorts) {
    this.#ports = ports;
  }

  /** Serves one channel until it is over; one that this node opened to a sender, until `opened.signal` aborts too. */
  async accept(channel: Channel, opened?: { sender: string; signal: AbortSignal }): Promise<void> {
    const signals = [this.#stop.signal, this.#interrupt.signal, ...(opened ? [opened.signal] : [])];
    if (opened !== undefined) this.#observe(opened.sender, { name: "waiting" });
    const session = receive(channel, {
      ports: this.#ports,
      openedTo: opened?.sender,
      register: (sender, session) => this.#register(sender, session),
      refused: (sender, error) => this.failed(sender, error),
      signal: AbortSignal.any(signals),
    });
    this.#all.add(session);
    await session;
    this.#all.delete(session);
  }

  /** Nothing can be received from a sender, and why. */
  failed(sender: string, error: MmliteError): void {
    this.#observe(sender, { name: "failed", error });
  }

  /** Ends every session, because the local PostgreSQL is going down; new ones may come. */
  interrupt(): void {
    this.#interrupt.abort();
    this.#interrupt = new AbortController();
  }

  /** Runs `work` while nothing is received from a sender: a session of it is ended, and a new one waits. */
  async without<Result>(sender: string, work: () => Promise<Result>): Promise<Result> {
    const { promise: ended, resolve } = Promise.withResolvers<void>();
    try {
      await this.#register(sender, { abort: () => {}, ended });
      return await work();
    } finally {
      resolve();
    }
  }

  /** Ends the session of one sender, if there is one, and waits for that. */
  async drop(sender: string): Promise<void> {
    const running = this.#running.get(sender);
    running?.abort();
    await running?.ended;
  }

  /** Ends every session for good and waits for that. */
  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#all);
  }

  /** While the real one is being received from, what befalls another that gives its name is not its. */
  #observe(sender: string, state: InboundState): void {
    if (!this.#running.has(sender)) this.#ports.observe(sender, state);
  }

  async #register(sender: string, session: RunningSession): Promise<void> {
    const older = this.#running.get(sender);
    this.#running.set(sender, session);
    void session.ended.then(() => {
      if (this.#running.get(sender) === session) this.#running.delete(sender);
    });
    older?.abort();
    await older?.ended;
  }
}
