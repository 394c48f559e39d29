/**
 * The dialling end: channels to peers, those to one peer on one connection.
 */
import type { MmliteError } from "../errors.ts";
import type { Channel, PeerName } from "../wire/channel.ts";
import { formatHostPort } from "./channel.ts";
import { cannotGoOn, cannotReach, dialAborted } from "./dial_errors.ts";
import { closeSession, openSession, type PeerSession, requestChannel } from "./peer_session.ts";
import { addressOf, parsePeerUrl } from "./peer_url.ts";
import type { FrameRoute } from "./session_options.ts";
import { isStillGood, type KeySource } from "./trust.ts";

/** A peer has this long to take the connection and answer the request, milliseconds. */
export const CONNECT_TIMEOUT_MS = 10_000;
/** How often the certificates of those connected are looked at, milliseconds. */
const TRUST_INTERVAL_MS = 60_000;

interface DiallerOptions {
  /** What this node shows, and whom it trusts; null where it dials cleartext only. */
  readonly tls: KeySource | null;
  /** This node's name. */
  readonly self: string;
}

interface DialOptions {
  /** Who has to be there. Proven under TLS before a byte is sent; on cleartext nobody proves anything. */
  readonly peer: PeerName;
  readonly path: FrameRoute;
  /** For dialling only: it does not break the channel later. */
  readonly signal: AbortSignal;
  readonly connectTimeoutMs?: number;
}

/** Dials peers. */
export class PeerDialler {
  readonly #options: DiallerOptions;
  readonly #links = new Map<string, SharedSession>();
  readonly #forgetKeys: () => void;
  readonly #timer: ReturnType<typeof setInterval> | undefined;

  constructor(options: DiallerOptions) {
    this.#options = options;
    const { tls } = options;
    this.#forgetKeys = tls?.onChange(() => this.#breakDistrusted()) ?? (() => {});
    if (tls !== null) this.#timer = setInterval(() => this.#breakDistrusted(), TRUST_INTERVAL_MS);
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
    this.#forgetKeys();
    clearInterval(this.#timer);
    for (const shared of this.#links.values()) shared.breakOff();
    this.#links.clear();
  }

  #sharedSession(url: URL, peer: PeerName): SharedSession {
    const key = `${url.origin} ${peer.cluster}/${peer.node}`;
    const present = this.#links.get(key);
    if (present !== undefined && !present.isOver) return present;
    const shared = new SharedSession((onEmpty, signal) =>
      openSession(url, { tls: this.#options.tls, peer, onEmpty, signal })
    );
    this.#links.set(key, shared);
    void shared.over.then(() => {
      if (this.#links.get(key) === shared) this.#links.delete(key);
    });
    return shared;
  }

  /** Ends the connections whose certificate is good no longer: it has expired, or its CA is trusted no more. */
  #breakDistrusted(): void {
    const { authorities } = this.#options.tls!.current;
    for (const shared of this.#links.values()) shared.breakUnlessGood(authorities);
  }
}

/** One connection for all that want channels on it; it ends with the last of them. */
class SharedSession {
  readonly #opened: Promise<PeerSession>;
  readonly #stop = new AbortController();
  /** Settles when the connection has ended, or was never made. */
  readonly over: Promise<void>;
  #session: PeerSession | undefined;
  #requests = 0;
  #isOver = false;

  constructor(open: (onEmpty: () => void, signal: AbortSignal) => Promise<PeerSession>) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.over = promise;
    this.#opened = open(() => this.#closeIfUnused(), this.#stop.signal);
    const end = () => {
      this.#isOver = true;
      resolve();
    };
    this.#opened.then((session) => {
      this.#session = session;
      session.connection.session.once("close", end);
      if (session.connection.session.destroyed) end();
      this.#closeIfUnused();
    }, end);
  }

  /** No further channel can be opened on it. */
  get isOver(): boolean {
    return this.#isOver || this.#stop.signal.aborted || (this.#session?.connection.isOver ?? false);
  }

  async request(
    options: { route: FrameRoute; self: string },
    failed: Promise<never>,
  ): Promise<Channel> {
    this.#requests++;
    try {
      const { connection } = await Promise.race([this.#opened, failed]);
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

  breakOff(reason?: MmliteError): void {
    this.#stop.abort();
    this.#session?.connection.breakOff(reason);
  }

  breakUnlessGood(authorities: readonly string[]): void {
    if (this.#session === undefined || this.#session.chain.length === 0) return;
    const { chain, connection } = this.#session;
    if (isStillGood(chain, authorities)) return;
    this.breakOff(cannotGoOn(connection));
  }

  #closeIfUnused(): void {
    if (this.#requests > 0) return;
    if (this.#session === undefined) return this.#stop.abort();
    if (this.#session.connection.channelCount > 0) return;
    this.#stop.abort();
    closeSession(this.#session.connection);
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
