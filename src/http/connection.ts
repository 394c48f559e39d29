/**
 * One HTTP/2 session with another node and the channels on it, the same at both ends.
 *
 * A channel that ends leaves the others alone; one that is broken off because nobody is there any more takes the
 * connection and all of them with it.
 */
import type { Http2Session, Http2Stream } from "node:http2";
import { MmliteError } from "../errors.ts";
import type { Channel, ProvenPeer } from "../wire/channel.ts";
import { StreamChannel } from "./channel.ts";

/** An HTTP/2 session, while it lasts. */
export class Connection {
  /** The other end's address and port. */
  readonly remote: string;
  /** Who the other end proved to be; null on cleartext. */
  readonly peer: ProvenPeer | null;
  readonly session: Http2Session;
  readonly #channels = new Set<StreamChannel>();
  readonly #onEmpty: () => void;
  #reason: MmliteError | undefined;
  #failure: MmliteError | undefined;
  #isOver = false;

  /** `onEmpty` is called whenever the last channel has closed. Handles the session's `error` event from now on. */
  constructor(
    session: Http2Session,
    options: { remote: string; peer: ProvenPeer | null; onEmpty?: () => void },
  ) {
    this.session = session;
    this.remote = options.remote;
    this.peer = options.peer;
    this.#onEmpty = options.onEmpty ?? (() => {});
    session.once("close", () => void (this.#isOver = true));
  }

  /** No further stream can be opened. */
  get isOver(): boolean {
    return this.#isOver || this.session.destroyed || this.session.closed;
  }

  /** Why it was broken off, if somebody said it. */
  get reason(): MmliteError | undefined {
    return this.#reason;
  }

  /** What went wrong with the session itself, if anything did: what to say of a request that was never answered. */
  get failure(): MmliteError | undefined {
    return this.#reason ?? this.#failure;
  }

  get channelCount(): number {
    return this.#channels.size;
  }

  /** A channel over `stream`, whose `error` and `close` events it handles from now on. */
  open(stream: Http2Stream): Channel {
    const channel = new StreamChannel(stream, this);
    this.#channels.add(channel);
    stream.once("close", () => this.#forget(channel));
    return channel;
  }

  /** To be called for a channel that was reset, and says why. It does not count any more: on a connection that is
   * stuck its stream may never close. */
  abandon(channel: StreamChannel, reason: Error | undefined): void {
    if (reason instanceof MmliteError && reason.kind === "unreachable") this.breakOff(reason);
    this.#forget(channel);
  }

  /** The session reports an error; the first one counts. */
  fail(failure: MmliteError): void {
    this.#failure ??= failure;
  }

  /** Breaks every channel off, at once. */
  breakOff(reason?: MmliteError): void {
    this.#reason ??= reason;
    this.#isOver = true;
    this.session.destroy();
  }

  #forget(channel: StreamChannel): void {
    if (this.#channels.delete(channel) && this.#channels.size === 0) this.#onEmpty();
  }
}
