/**
 * Streams that peers without an address have opened so that this node can push to them; each waits here for the
 * link to its peer.
 */
import { MmliteError } from "../errors.ts";
import type { Channel } from "../wire/channel.ts";
import { encodeFrame } from "../wire/codec.ts";
import { keepAlive } from "../wire/liveness.ts";

interface ReturnStreamsOptions {
  /** This node's name. */
  readonly self: string;
  /** Where a peer is dialled: null if it dials this node, undefined if it is none. */
  readonly urlOf: (peer: string) => string | null | undefined;
}

/** What there is of one peer. */
interface Place {
  /** Nobody pushes over it yet. */
  waiting?: HeldStream;
  /** The link pushes over it. */
  used?: HeldStream;
  /** Wakes the link that waits for a stream. */
  wake: () => void;
}

/** The streams of all peers: at most one that is used and one that waits for each. */
export class ReturnStreams {
  readonly #options: ReturnStreamsOptions;
  readonly #places = new Map<string, Place>();
  #isClosed = false;

  constructor(options: ReturnStreamsOptions) {
    this.#options = options;
  }

  /** Keeps a stream that `peer` opened until it is over; one that is not wanted is refused with the reason. */
  async offer(peer: string, channel: Channel): Promise<void> {
    const unwanted = this.#unwanted(peer);
    if (this.#isClosed) return channel.destroy();
    if (unwanted !== null) return await refuse(channel, unwanted);
    const stream = new HeldStream(channel);
    const place = this.#place(peer);
    place.waiting?.destroy(replaced(peer));
    place.waiting = stream;
    // The peer has given the older stream up, if it is the peer: on cleartext anybody may say so.
    if (channel.peer !== null) place.used?.destroy(replaced(peer));
    place.wake();
    await stream.over;
    if (place.waiting === stream) place.waiting = undefined;
    if (place.used === stream) place.used = undefined;
  }

  /** The newest stream of a peer that nobody uses, once there is one; throws `aborted` when `signal` aborts. */
  async take(peer: string, signal: AbortSignal): Promise<Channel> {
    const place = this.#place(peer);
    const wake = () => place.wake();
    signal.addEventListener("abort", wake, { once: true });
    try {
      while (!signal.aborted) {
        const stream = place.waiting;
        if (stream !== undefined) {
          place.waiting = undefined;
          place.used = stream;
          return stream.use();
        }
        await new Promise<void>((resolve) => void (place.wake = resolve));
      }
    } finally {
      signal.removeEventListener("abort", wake);
    }
    throw new MmliteError("aborted", `Cannot push to peer "${peer}": stopped while waiting for it to dial`);
  }

  /** Ends what a peer has opened. */
  drop(peer: string): void {
    const place = this.#places.get(peer);
    place?.waiting?.destroy();
    place?.used?.destroy();
  }

  /** Ends all streams, and takes no more. */
  close(): void {
    this.#isClosed = true;
    for (const peer of this.#places.keys()) this.drop(peer);
  }

  #place(peer: string): Place {
    const known = this.#places.get(peer);
    if (known !== undefined) return known;
    const place: Place = { wake: () => {} };
    this.#places.set(peer, place);
    return place;
  }

  #unwanted(peer: string): MmliteError | null {
    const url = this.#options.urlOf(peer);
    if (url === null) return null;
    const { self } = this.#options;
    const cannot = `Cannot push to node "${peer}" over its own connection`;
    return url === undefined
      ? new MmliteError("refused", `${cannot}: it is not registered on "${self}"`, {
        hint: `Run \`mmlite peers add ${peer}\` on "${self}"`,
      })
      : new MmliteError("refused", `${cannot}: "${self}" dials it`, {
        hint: `If it cannot be dialled, run \`mmlite peers add ${peer}\`, without URL, on "${self}"`,
      });
  }
}

/** A stream on its way from the server to a link, which is told when the link lets go of it. */
class HeldStream implements Channel {
  readonly remote: string;
  readonly peer: Channel["peer"];
  readonly incoming: Channel["incoming"];
  /** Settles when nobody needs the stream any more. */
  readonly over: Promise<void>;
  readonly #channel: Channel;
  readonly #stopBeating: () => void;
  readonly #end: () => void;

  constructor(channel: Channel) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#channel = channel;
    this.#end = resolve;
    this.over = promise;
    this.remote = channel.remote;
    this.peer = channel.peer;
    this.incoming = channel.incoming;
    // The peer would take silence for the end. Nobody reads what it sends, so its silence means nothing.
    const liveness = keepAlive(channel);
    liveness.listening(false);
    this.#stopBeating = () => liveness.stop();
  }

  /** Gives it to somebody who reads, beats and destroys it. */
  use(): Channel {
    this.#stopBeating();
    return this;
  }

  write(bytes: Uint8Array): Promise<void> {
    return this.#channel.write(bytes);
  }

  end(): Promise<void> {
    return this.#channel.end();
  }

  destroy(reason?: Error): void {
    this.#stopBeating();
    this.#channel.destroy(reason);
    this.#end();
  }
}

/** Not `unreachable`, which would break the connection off that the new stream is on. */
function replaced(peer: string): MmliteError {
  return new MmliteError("transient", `Cannot go on with peer "${peer}": it has opened another stream`);
}

async function refuse(channel: Channel, error: MmliteError): Promise<void> {
  const { kind: errorKind, message, hint } = error;
  await channel.write(encodeFrame({ kind: "refusal", errorKind, message, hint }));
}
