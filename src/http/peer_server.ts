/**
 * The listening end: takes peers' connections on one port and hands each stream on as a channel.
 */
import type { X509Certificate } from "node:crypto";
import {
  type IncomingHttpHeaders,
  performServerHandshake,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import { type AddressInfo, createServer as createTcpServer, type Server, type Socket } from "node:net";
import { MmliteError } from "../errors.ts";
import { log } from "../log.ts";
import { NODE_NAME } from "../node_name.ts";
import type { Channel, PeerName } from "../wire/channel.ts";
import { formatHostPort, remoteOf } from "./channel.ts";
import { Connection } from "./connection.ts";
import { cannotGoOn } from "./dial_errors.ts";
import { Door, type Guest } from "./door.ts";
import { JOIN_PATH, type JoinRoutes, serveJoin } from "./join_routes.ts";
import {
  CONTENT_TYPE,
  FRAME_PATHS,
  JOIN_SERVER_OPTIONS,
  NODE_HEADER,
  openWindow,
  SERVER_OPTIONS,
  tearDownLater,
} from "./session_options.ts";
import { isStillGood, type KeySource } from "./trust.ts";

/** A connection without an open stream is closed after this time, milliseconds. */
export const IDLE_SESSION_MS = 10_000;
/** How often the certificates of those connected are looked at, milliseconds. */
const TRUST_INTERVAL_MS = 60_000;

const logger = log("http");

/** The port that peers dial. */
export interface PeerServer {
  /** Where it listens; the port is the one the system chose if 0 was asked for. */
  readonly address: { readonly host: string; readonly port: number };
  /** Stops listening and breaks what is open; resolves once all is closed and every `accept` has settled. */
  close(): Promise<void>;
}

/** What to do with the streams of peers. */
export interface PeerRoutes {
  /** A peer pushes. Owns the channel until its promise settles; then the channel is ended, or broken off if it
   * rejected. */
  readonly accept: (channel: Channel) => Promise<void>;
  /** A peer offers a stream on which this node may push to it; `node` is its name, proven under TLS. */
  readonly acceptReturn: (channel: Channel, node: string) => Promise<void>;
  /** Null where no node can join. */
  readonly join: JoinRoutes | null;
}

interface ListenOptions extends PeerRoutes {
  readonly address: { readonly host: string; readonly port: number };
  /** Null for cleartext. */
  readonly tls: KeySource | null;
  /** Closes the server when it aborts. */
  readonly signal: AbortSignal;
}

/** Listens for peers; throws `config` if the address cannot be bound. */
export async function listenForPeers(
  { address, tls, signal, ...routes }: ListenOptions,
): Promise<PeerServer> {
  const sessions = new PeerSessions(routes, tls);
  const door = new Door({
    tls,
    takesJoiners: () => routes.join?.isOpen() ?? false,
    begin: (socket, guest) => sessions.begin(socket, guest),
  });
  const tcp = createTcpServer({ noDelay: true }, (socket) => void door.take(socket));
  await listen(tcp, address);
  const close = async () => {
    signal.removeEventListener("abort", close);
    const { promise: closed, resolve } = Promise.withResolvers<void>();
    tcp.close(() => resolve());
    door.close();
    await closed;
    await sessions.close();
  };
  signal.addEventListener("abort", close);
  if (signal.aborted) await close();
  return { address: boundAddress(tcp), close };
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

/** The HTTP/2 sessions of those that the door has let in. */
class PeerSessions {
  readonly #routes: PeerRoutes;
  readonly #tls: KeySource | null;
  readonly #serving = new Set<Promise<void>>();
  readonly #proven = new Map<Connection, readonly X509Certificate[]>();
  readonly #forgetKeys: () => void;
  readonly #timer: ReturnType<typeof setInterval> | undefined;

  constructor(routes: PeerRoutes, tls: KeySource | null) {
    this.#routes = routes;
    this.#tls = tls;
    this.#forgetKeys = tls?.onChange(() => this.#breakDistrusted()) ?? (() => {});
    if (tls !== null) this.#timer = setInterval(() => this.#breakDistrusted(), TRUST_INTERVAL_MS);
  }

  begin(socket: Socket, guest: Guest): void {
    const options = guest.kind === "joiner" ? JOIN_SERVER_OPTIONS : SERVER_OPTIONS;
    const session = performServerHandshake(socket, options);
    tearDownLater(session);
    session.on("error", (error) => logger.debug("A peer's session broke: {error}", { error }));
    closeWhenIdle(session);
    if (guest.kind === "joiner") return this.#serveJoiner(session);
    openWindow(session);
    const peer = guest.kind === "peer" ? guest.peer : null;
    const connection = new Connection(session, { remote: remoteOf(socket), peer });
    if (guest.kind === "peer") this.#watchTrust(connection, guest.chain);
    session.on("stream", (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => {
      stream.on("error", (error) => logger.debug("A peer's stream broke: {error}", { error }));
      this.#route(connection, stream, headers);
    });
  }

  async close(): Promise<void> {
    this.#forgetKeys();
    clearInterval(this.#timer);
    await Promise.allSettled(this.#serving);
  }

  #route(connection: Connection, stream: ServerHttp2Stream, headers: IncomingHttpHeaders): void {
    const { ":path": path, ":method": method } = headers;
    const isReturn = path === FRAME_PATHS.return;
    if (path === JOIN_PATH && connection.peer !== null) {
      return this.#serveJoin(stream, headers, connection.peer);
    }
    if (path !== FRAME_PATHS.push && !isReturn) {
      return answer(stream, 404, "No such path on mmlite's peer port");
    }
    if (method !== "POST") return answer(stream, 405, "Only POST is taken here");
    if (!isReturn) return this.#serve(connection, stream, this.#routes.accept);
    const node = String(headers[NODE_HEADER] ?? "");
    if (!NODE_NAME.test(node)) return answer(stream, 400, `The header ${NODE_HEADER} must name a node`);
    if (connection.peer !== null && connection.peer.node !== node) {
      return answer(stream, 403, `The certificate is for another node than the header ${NODE_HEADER} names`);
    }
    this.#serve(connection, stream, (channel) => this.#routes.acceptReturn(channel, node));
  }

  #serve(
    connection: Connection,
    stream: ServerHttp2Stream,
    accept: (channel: Channel) => Promise<void>,
  ): void {
    const serving = serveChannel(connection, stream, accept);
    this.#serving.add(serving);
    void serving.then(() => this.#serving.delete(serving));
  }

  #serveJoiner(session: ServerHttp2Session): void {
    session.on("stream", (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => {
      stream.on("error", (error) => logger.debug("A joiner's stream broke: {error}", { error }));
      this.#serveJoin(stream, headers, null);
    });
  }

  #serveJoin(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, peer: PeerName | null): void {
    const { join } = this.#routes;
    if (join === null) return stream.close();
    const serving = serveJoin(stream, headers, { routes: join, peer });
    this.#serving.add(serving);
    void serving.then(() => this.#serving.delete(serving));
  }

  #watchTrust(connection: Connection, chain: readonly X509Certificate[]): void {
    this.#proven.set(connection, chain);
    connection.session.once("close", () => this.#proven.delete(connection));
  }

  /** Ends the connections whose certificate is good no longer: it has expired, or its CA is trusted no more. */
  #breakDistrusted(): void {
    const { authorities } = this.#tls!.current;
    for (const [connection, chain] of this.#proven) {
      if (!isStillGood(chain, authorities)) connection.breakOff(cannotGoOn(connection));
    }
  }
}

/** Breaks a session off that has had no open stream for a while. */
function closeWhenIdle(session: ServerHttp2Session): void {
  let timer = setTimeout(() => session.destroy(), IDLE_SESSION_MS);
  let open = 0;
  session.on("stream", (stream: ServerHttp2Stream) => {
    clearTimeout(timer);
    open++;
    stream.once("close", () => {
      clearTimeout(timer);
      open--;
      if (open === 0 && !session.destroyed) timer = setTimeout(() => session.destroy(), IDLE_SESSION_MS);
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
  connection: Connection,
  stream: ServerHttp2Stream,
  accept: (channel: Channel) => Promise<void>,
): Promise<void> {
  const channel = connection.open(stream);
  stream.respond({ ":status": 200, "content-type": CONTENT_TYPE });
  try {
    await accept(channel);
    await channel.end();
  } catch (error) {
    logger.debug("A peer's channel ended: {error}", { error });
  } finally {
    channel.destroy();
  }
}
