/**
 * The two ends of one channel: in memory, or over one HTTP/2 connection on the loopback; and what a test says and
 * hears at one of them.
 */
import { PeerDialler } from "../../src/http/peer_dialler.ts";
import { listenForPeers } from "../../src/http/peer_server.ts";
import { MmliteError } from "../../src/errors.ts";
import type { Channel } from "../../src/wire/channel.ts";
import { encodeFrame } from "../../src/wire/codec.ts";
import type { Frame } from "../../src/wire/frame.ts";
import { expectFrame, readFrames } from "../../src/wire/frame_stream.ts";

/** Both ends of a channel; which of them dialled is all that tells them apart. */
export interface ChannelPair extends AsyncDisposable {
  readonly dialling: Channel;
  readonly accepting: Channel;
}

/** A pair without a network: what is written arrives as it is, whatever its size. */
export function memoryPair(): ChannelPair {
  const [there, back] = [new Pipe(), new Pipe()];
  const dialling = endOf("accepting", { incoming: back, outgoing: there });
  const accepting = endOf("dialling", { incoming: there, outgoing: back });
  return {
    dialling,
    accepting,
    [Symbol.asyncDispose]() {
      dialling.destroy();
      return Promise.resolve();
    },
  };
}

/** A pair over HTTP/2. */
export async function httpPair(): Promise<ChannelPair> {
  const accepted = Promise.withResolvers<Channel>();
  const released = Promise.withResolvers<void>();
  const { signal } = new AbortController();
  const server = await listenForPeers({
    address: { host: "127.0.0.1", port: 0 },
    tls: null,
    accept: (channel) => {
      accepted.resolve(channel);
      return released.promise;
    },
    acceptReturn: () => Promise.reject(new Error("no return stream is expected")),
    join: null,
    signal,
  });
  const url = new URL(`http://127.0.0.1:${server.address.port}`);
  const peer = { cluster: "mmlite", node: "b" };
  const dialling = await new PeerDialler({ tls: null, self: "a" }).dial(url, { peer, path: "push", signal });
  return {
    dialling,
    accepting: await accepted.promise,
    async [Symbol.asyncDispose]() {
      released.resolve();
      dialling.destroy();
      await server.close();
    },
  };
}

/** One end of a channel in the hands of a test. */
export interface TestEnd {
  readonly channel: Channel;
  say(frame: Frame): Promise<void>;
  /** The next frame, which must be of this kind; a refusal instead is thrown as its error. */
  hear<K extends Frame["kind"]>(kind: K): Promise<Extract<Frame, { kind: K }>>;
}

/** Takes one end of a channel, which nobody else reads. */
export function takeEnd(channel: Channel): TestEnd {
  const frames = readFrames(channel);
  return {
    channel,
    say: (frame) => channel.write(encodeFrame(frame)),
    hear: (kind) => expectFrame(frames, kind),
  };
}

function endOf(remote: string, { incoming, outgoing }: { incoming: Pipe; outgoing: Pipe }): Channel {
  return {
    remote,
    peer: null,
    incoming: incoming.read(),
    write: async (bytes) => await outgoing.write(bytes),
    end: async () => await outgoing.end(),
    destroy(reason) {
      incoming.break(reason);
      // What was sent before a clean end still arrives.
      if (!outgoing.ended) outgoing.break();
    },
  };
}

/** One direction. */
class Pipe {
  ended = false;
  readonly #chunks: Uint8Array[] = [];
  #broken: Error | undefined;
  #wake: () => void = () => {};

  write(bytes: Uint8Array): void {
    if (this.#broken !== undefined) throw this.#broken;
    this.#chunks.push(bytes);
    this.#wake();
  }

  end(): void {
    if (this.#broken !== undefined) throw this.#broken;
    this.ended = true;
    this.#wake();
  }

  break(reason: Error = new MmliteError("unreachable", "Cannot use the channel: it is broken")): void {
    this.#broken ??= reason;
    this.#wake();
  }

  async *read(): AsyncGenerator<Uint8Array, void, undefined> {
    for (;;) {
      if (this.#broken !== undefined) throw this.#broken;
      const chunk = this.#chunks.shift();
      if (chunk !== undefined) yield chunk;
      else if (this.ended) return;
      else await new Promise<void>((resolve) => void (this.#wake = resolve));
    }
  }
}
