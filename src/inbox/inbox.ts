/**
 * Incoming replication: at most one receiving session per sender, the newest.
 *
 * A sender that dials again has given up its older session, which may be half dead: that one is ended, and is over
 * before the new one touches the database.
 */
import type { Channel } from "../wire/channel.ts";
import type { InboundState, InboxPorts } from "./ports.ts";
import { receive } from "./session.ts";

interface Running {
  readonly abort: () => void;
  readonly ended: Promise<void>;
}

/** The receiving sessions of a node. */
export class Inbox {
  readonly #ports: InboxPorts;
  readonly #running = new Map<string, Running>();
  readonly #all = new Set<Promise<void>>();
  readonly #stop = new AbortController();
  #interrupt = new AbortController();

  constructor(options: {
    readonly admit: InboxPorts["admit"];
    readonly observe: (sender: string, state: InboundState) => void;
  }) {
    this.#ports = {
      ...options,
      supersede: async (sender, session) => {
        const older = this.#running.get(sender);
        this.#running.set(sender, session);
        older?.abort();
        await older?.ended;
      },
    };
  }

  /** Serves one channel until it is over. */
  async accept(channel: Channel): Promise<void> {
    const session = receive(
      channel,
      this.#ports,
      AbortSignal.any([this.#stop.signal, this.#interrupt.signal]),
    );
    this.#all.add(session);
    await session;
    this.#all.delete(session);
  }

  /** Ends every session, because the local PostgreSQL is going down; new ones may come. */
  interrupt(): void {
    this.#interrupt.abort();
    this.#interrupt = new AbortController();
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
}
