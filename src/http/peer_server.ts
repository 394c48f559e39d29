/**
 * The listening end: takes peers' connections on one port and hands each stream on as a channel.
 *
 * Whoever dials is a stranger until the handshake: sessions are bounded in number, size and idle time.
 */
import { createServer, type Http2Server, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import { type AddressInfo, createServer as createTcpServer, type Server, type Socket } from "node:net";
import { MmliteError } from "../errors.ts";
import { log } from "../log.ts";
import type { Channel } from "../wire/channel.ts";
import { formatHostPort, openChannel, remoteOf } from "./channel.ts";
import { startsLikeHttp2, turnAway } from "./preface.ts";
import { CONTENT_TYPE, openWindow, PUSH_PATH, SERVER_OPTIONS, tearDownLater } from "./session_options.ts";

/** Connections at a time: far more than a mesh needs, few enough to bound what strangers can hold. */
export const MAX_CONNECTIONS = 256;
/** A connection without an open stream is closed after this time, milliseconds. */
export const IDLE_SESSION_MS = 10_000;

const logger = log("http");

/** The port that peers dial. */
export interface PeerServer {
  /** Where it listens; the port is the one the system chose if 0 was asked for. */
  readonly address: { readonly host: string; readonly port: number };
  /** Stops listening and breaks what is open; resolves once all is closed and every `accept` has settled. */
  close(): Promise<void>;
}

interface ListenOptions {
  readonly address: { readonly host: string; readonly port: number };
  /** Owns the channel until its promise settles; then the channel is ended, or broken off if it rejected. */
  readonly accept: (channel: Channel) => Promise<void>;
  /** Closes the server when it aborts. */
  readonly signal: AbortSignal;
}

/** Listens for peers; throws `config` if the address cannot be bound. */
export async function listenForPeers({ address, accept, signal }: ListenOptions): Promise<PeerServer> {
  const serving = new Set<Promise<void>>();
  const http = serveStreams((channel) => track(serving, accept(channel)));
  const sockets = new Set<Socket>();
  const tcp = createTcpServer((socket) => void takeConnection(socket, { http, sockets }));
  await listen(tcp, address);
  const close = async () => {
    signal.removeEventListener("abort", close);
    await closeAll(tcp, sockets);
    await Promise.allSettled(serving);
  };
  signal.addEventListener("abort", close);
  if (signal.aborted) await close();
  return { address: boundAddress(tcp), close };
}

/** Keeps `work` in `set` while it runs. */
function track(set: Set<Promise<void>>, work: Promise<void>): Promise<void> {
  set.add(work);
  const done = () => set.delete(work);
  work.then(done, done);
  return work;
}

async function listen(tcp: Server, address: { host: string; port: number }): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  tcp.once("error", reject);
  tcp.listen(address, resolve);
  try {
    await promise;
  } catch (error) {
    throw listenError(formatHostPort(address.host, address.port), error as NodeJS.ErrnoException);
  }
  // One failed accept (out of file descriptors, say) must not end the process.
  tcp.off("error", reject).on(
    "error",
    (error) => logger.warning("Cannot take a connection: {error}", { error }),
  );
}

const LISTEN_REMEDIES: Readonly<Record<string, readonly [why: string, hint: string]>> = {
  EADDRINUSE: ["another process listens there", "Stop that process, or give another port with --listen"],
  EACCES: ["not permitted", "Give a port from 1024 up with --listen, or grant CAP_NET_BIND_SERVICE"],
  // What Deno 2.9 makes of EADDRNOTAVAIL.
  EINVAL: ["this host has no such address", "Give an address of this host, or 0.0.0.0, with --listen"],
  EADDRNOTAVAIL: ["this host has no such address", "Give an address of this host, or 0.0.0.0, with --listen"],
  ENOTFOUND: ["the host name is unknown", "Give an address of this host, or 0.0.0.0, with --listen"],
};

function listenError(address: string, error: NodeJS.ErrnoException): MmliteError {
  const [why, hint] = LISTEN_REMEDIES[error.code ?? ""] ?? [error.message, undefined];
  return new MmliteError("config", `Cannot listen for peers on ${address}: ${why}`, { hint, cause: error });
}

function boundAddress(tcp: Server): { host: string; port: number } {
  const { address, port } = tcp.address() as AddressInfo;
  return { host: address, port };
}

async function closeAll(tcp: Server, sockets: ReadonlySet<Socket>): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  tcp.close(() => resolve());
  for (const socket of sockets) socket.destroy();
  await promise;
}

/** Looks at a connection's first bytes: HTTP/2 goes on to `http`, anything else gets a sentence. */
async function takeConnection(
  socket: Socket,
  { http, sockets }: { http: Http2Server; sockets: Set<Socket> },
): Promise<void> {
  if (sockets.size >= MAX_CONNECTIONS) {
    socket.destroy();
    return logger.warning("Turned a connection from {remote} away: {max} are open", {
      remote: remoteOf(socket),
      max: MAX_CONNECTIONS,
    });
  }
  sockets.add(socket);
  socket.once("close", () => sockets.delete(socket));
  socket.on("error", () => socket.destroy());
  if (await startsLikeHttp2(socket, IDLE_SESSION_MS)) http.emit("connection", socket);
  else turnAway(socket);
}

/** The HTTP/2 part: sessions with a bounded idle time, and one route. */
function serveStreams(accept: ListenOptions["accept"]): Http2Server {
  const http = createServer(SERVER_OPTIONS);
  http.on("session", (session) => {
    tearDownLater(session);
    openWindow(session);
    closeWhenIdle(session);
  });
  http.on("sessionError", (error) => logger.debug("A peer's session broke: {error}", { error }));
  http.on("stream", (stream: ServerHttp2Stream, headers) => {
    stream.on("error", (error) => logger.debug("A peer's stream broke: {error}", { error }));
    if (headers[":path"] !== PUSH_PATH) return answer(stream, 404, "No such path on mmlite's peer port");
    if (headers[":method"] !== "POST") {
      return answer(stream, 405, "Only POST is taken here");
    }
    void serveChannel(stream, accept);
  });
  return http;
}

/** Breaks a session off that has had no open stream for a while. */
function closeWhenIdle(session: ServerHttp2Session): void {
  let timer = setTimeout(() => session.destroy(), IDLE_SESSION_MS);
  session.on("stream", (stream: ServerHttp2Stream) => {
    clearTimeout(timer);
    stream.once("close", () => {
      clearTimeout(timer);
      if (!session.destroyed) timer = setTimeout(() => session.destroy(), IDLE_SESSION_MS);
    });
  });
  session.once("close", () => clearTimeout(timer));
}

function answer(stream: ServerHttp2Stream, status: number, sentence: string): void {
  stream.respond({
    ":status": status,
    "content-type": "text/plain; charset=utf-8",
    ...(status === 405 ? { allow: "POST" } : {}),
  });
  stream.end(`${sentence}\n`);
}

async function serveChannel(
  stream: ServerHttp2Stream,
  accept: (channel: Channel) => Promise<void>,
): Promise<void> {
  const session = stream.session;
  if (session === undefined) return;
  const channel = openChannel(stream, { session, remote: remoteOf(session.socket as Socket) });
  stream.respond({
    ":status": 200,
    "content-type": CONTENT_TYPE,
  });
  try {
    await accept(channel);
    await channel.end();
  } catch (error) {
    logger.debug("A peer's channel ended: {error}", { error });
  } finally {
    channel.destroy();
  }
}
