/**
 * The dialling end: channels to peers, those to one peer on one connection.
 */
import type { Channel, PeerName } from "../wire/channel.ts";
import { formatHostPort } from "./channel.ts";
import type { Connection } from "./connection.ts";
import { cannotReach, dialAborted } from "./dial_errors.ts";
import { closeSession, openSession, requestChannel } from "./peer_session.ts";
import { addressOf, parsePeerUrl } from "./peer_url.ts";
import type { ChannelRoute } from "./session_options.ts";
import type { KeySource } from "./trust.ts";
import { TrustWatch } from "./trust_watch.ts";

/** A peer has this long to take the connection and answer the request, milliseconds. */
export const CONNECT_TIMEOUT_MS = 10_000;

interface DiallerOptions {
  /** What this node shows, and whom it trusts; null where it dials cleartext only. */
  readonly tls: KeySource | null;
  /** This node's name. */
  readonly self: string;
}

interface DialOptions {
  /** Who has to be there. Proven under TLS before a byte is sent; on cleartext nobody proves anything. */
  readonly peer: PeerName;
  readonly path: ChannelRoute;
  /** For dialling only: it does not break the channel later. */
  readonly signal: AbortSignal;
  readonly connectTimeoutMs?: number;
}

/** Dials peers. */
export class PeerDialler {
  readonly #options: DiallerOptions;
  readonly #sessions = new Map<string, SharedSession>();
  readonly #trust: TrustWatch;

  constructor(options: DiallerOptions) {
    this.#options = options;
    this.#trust = new TrustWatch(options.tls);
  }

  /**
   * Opens a channel to a peer's port, on the connection to it if there is one. Resolves once the peer has taken it.
   *
   * Throws `invalid_input` for a URL that is not a peer's, `config` for `https` without a certificate, `aborted` on
   * `signal`, and else `unreachable` with host, port and cause.
   */
  async dial(url: URL, { peer, path, signal, connectTimeoutMs }: DialOptions): Promise<Channel> {
    const address = addressOf(parsePeerUrl(url.href));
    const remote = formatHostPort(address.host, address.port);
    if (signal.aborted) throw dialAborted(remote);
    const failed = watchForFailure(remote, signal, connectTimeoutMs ?? CONNECT_TIMEOUT_MS);
    const shared = this.#sharedSession(url, peer);
    try {
      return await shared.request({ route: path, self: this.#options.self }, failed.promise);
    } finally {
      failed.stopWatching();
    }
  }

  /** Breaks every channel off. */
  close(): void {
    this.#trust.close();
    for (const shared of this.#sessions.values()) shared.breakOff();
    this.#sessions.clear();
  }

  #sharedSession(url: URL, peer: PeerName): SharedSession {
    const key = `${url.origin} ${peer.cluster}/${peer.node}`;
    const present = this.#sessions.get(key);
    if (present !== undefined && !present.isOver) return present;
    const shared = new SharedSession(async (onEmpty, signal) => {
      const { connection, chain } = await openSession(url, { tls: this.#options.tls, peer, onEmpty, signal });
      if (chain.length > 0) this.#trust.watch(connection, chain);
      return connection;
    });
    this.#sessions.set(key, shared);
    void shared.over.then(() => {
      if (this.#sessions.get(key) === shared) this.#sessions.delete(key);
    });
    return shared;
  }
}

/** One connection for all that want channels on it; it ends with the last of them. */
class SharedSession {
  readonly #opened: Promise<Connection>;
  readonly #stop = new AbortController();
  /** Settles when the connection has ended, or was never made. */
  readonly over: Promise<void>;
  #connection: Connection | undefined;
  #requests = 0;
  #isOver = false;

  constructor(open: (onEmpty: () => void, signal: AbortSignal) => Promise<Connection>) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.over = promise;
    this.#opened = open(() => this.#closeIfUnused(), this.#stop.signal);
    const end = () => {
      this.#isOver = true;
      resolve();
    };
    this.#opened.then((connection) => {
      this.#connection = connection;
      connection.session.once("close", end);
      if (connection.session.destroyed) end();
      this.#closeIfUnused();
    }, end);
  }

  /** No further channel can be opened on it. */
  get isOver(): boolean {
    return this.#isOver || this.#stop.signal.aborted || (this.#connection?.isOver ?? false);
  }

  async request(
    options: { route: ChannelRoute; self: string },
    failed: Promise<never>,
  ): Promise<Channel> {
    this.#requests++;
    try {
      const connection = await Promise.race([this.#opened, failed]);
      const requested = requestChannel(connection, options);
      try {
        return await Promise.race([requested, failed]);
      } catch (error) {
        requested.then((channel) => channel.destroy(), () => {});
        throw error;
      }
    } finally {
      this.#requests--;
      this.#closeIfUnused();
    }
  }

  breakOff(): void {
    this.#stop.abort();
    this.#connection?.breakOff();
  }

  #closeIfUnused(): void {
    if (this.#requests > 0) return;
    if (this.#connection === undefined) return this.#stop.abort();
    if (this.#connection.channelCount > 0) return;
    this.#stop.abort();
    closeSession(this.#connection);
  }
}

/** The clock and the caller's signal. */
function watchForFailure(
  remote: string,
  signal: AbortSignal,
  timeoutMs: number,
): { readonly promise: Promise<never>; stopWatching(): void } {
  const { promise, reject } = Promise.withResolvers<never>();
  promise.catch(() => {});
  const abort = () => reject(dialAborted(remote));
  signal.addEventListener("abort", abort, { once: true });
  const timer = setTimeout(() => reject(cannotReach(remote, `no answer within ${timeoutMs} ms`)), timeoutMs);
  return {
    promise,
    stopWatching() {
      clearTimeout(timer);
      signal.removeEventListener("abort", abort);
    },
  };
}
