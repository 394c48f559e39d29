/**
 * Peer ports and diallers for tests of the connection between nodes: on the loopback, and what tests do with channels.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import { type ErrorKind, MmliteError } from "../../src/errors.ts";
import type { JoinRoutes } from "../../src/http/join_routes.ts";
import { PeerDialler } from "../../src/http/peer_dialler.ts";
import { listenForPeers, type PeerServer } from "../../src/http/peer_server.ts";
import type { FrameRoute } from "../../src/http/session_options.ts";
import type { KeySource } from "../../src/http/trust.ts";
import type { Channel } from "../../src/wire/channel.ts";

/** A signal that never aborts. */
export const NEVER = new AbortController().signal;

interface PortOptions {
  readonly tls?: KeySource | null;
  readonly acceptReturn?: (channel: Channel, node: string) => Promise<void>;
  readonly join?: JoinRoutes;
  readonly signal?: AbortSignal;
  readonly port?: number;
}

/** Listens on the loopback; cleartext unless told, and return streams are taken like others. */
export async function openPort(
  accept: (channel: Channel) => Promise<void>,
  options: PortOptions = {},
): Promise<PeerServer & { readonly url: URL }> {
  const { tls = null, acceptReturn = accept, join = null, signal = NEVER, port = 0 } = options;
  const address = { host: "127.0.0.1", port };
  const server = await listenForPeers({ address, tls, accept, acceptReturn, join, signal });
  const scheme = tls === null ? "http" : "https";
  return { ...server, url: new URL(`${scheme}://127.0.0.1:${server.address.port}`) };
}

/** Dials node "b" of cluster "mmlite" as node "a", on a connection of its own. */
export function dial(
  url: URL,
  options: { path?: FrameRoute; signal?: AbortSignal; connectTimeoutMs?: number; tls?: KeySource } = {},
): Promise<Channel> {
  const { tls = null, ...dialling } = options;
  const dialler = new PeerDialler({ tls, self: "a" });
  return dialler.dial(url, { peer: PEER, path: "push", signal: NEVER, ...dialling });
}

/** Whom {@link dial} means to reach. */
export const PEER = { cluster: "mmlite", node: "b" };

/** Sends back what arrives. */
export async function echo(channel: Channel): Promise<void> {
  for await (const chunk of channel.incoming) await channel.write(chunk);
}

/** Reads to the end; how many bytes came. */
export async function drain(channel: Channel): Promise<number> {
  let total = 0;
  for await (const chunk of channel.incoming) total += chunk.length;
  return total;
}

/** Fails unless `promise` rejects with an error of this kind that says this, or whose hint does. */
export function rejectsWith(
  promise: Promise<unknown>,
  kind: ErrorKind,
  message: RegExp,
  hint?: RegExp,
): Promise<void> {
  return assert.rejects(promise, (error: unknown) => {
    assert(error instanceof MmliteError, String(error));
    assert.equal(error.kind, kind, error.message);
    assert.match(error.message, message);
    if (hint !== undefined) assert.match(error.hint, hint);
    return true;
  });
}

/** A TCP server that treats each connection with `handle`; closed and all its sockets with it at the end. */
export async function tcpServer(handle: (socket: net.Socket) => void) {
  const sockets = new Set<net.Socket>();
  const server = net.createServer((socket) => {
    sockets.add(socket.on("error", () => {}));
    handle(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: new URL(`http://127.0.0.1:${(server.address() as net.AddressInfo).port}`),
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
