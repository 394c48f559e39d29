/**
 * The HTTP/2 sessions on the peer port: routes, and each stream of frames handed on as a channel.
 */
import {
  type IncomingHttpHeaders,
  performServerHandshake,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import type { Socket } from "node:net";
import { log } from "../log.ts";
import { NODE_NAME } from "../node_name.ts";
import type { Channel, PeerName } from "../wire/channel.ts";
import { remoteOf } from "./channel.ts";
import { Connection } from "./connection.ts";
import type { Guest } from "./door.ts";
import { JOIN_PATH, type JoinRoutes, serveJoin } from "./join_routes.ts";
import {
  CHANNEL_PATHS,
  type ChannelRoute,
  CONTENT_TYPES,
  JOIN_SERVER_OPTIONS,
  NODE_HEADER,
  openWindow,
  SERVER_OPTIONS,
  tearDownLater,
} from "./session_options.ts";
import type { KeySource } from "./trust.ts";
import { TrustWatch } from "./trust_watch.ts";

/** A connection without an open stream is closed after this time, milliseconds. */
export const IDLE_SESSION_MS = 10_000;

const ROUTE_OF_PATH = new Map(
  Object.entries(CHANNEL_PATHS).map(([route, path]) => [path as string, route as ChannelRoute]),
);

const logger = log("http");

/** What to do with the streams of peers. */
export interface PeerRoutes {
  /** A peer pushes. Owns the channel until its promise settles; then the channel is ended, or broken off if it
   * rejected. */
  readonly accept: (channel: Channel) => Promise<void>;
  /** A peer offers a stream on which this node may push to it; `node` is its name, proven under TLS. */
  readonly acceptReturn: (channel: Channel, node: string) => Promise<void>;
  /** A peer asks about tables; `node` as above. Left out where nobody answers. */
  readonly acceptQuestions?: (channel: Channel, node: string) => Promise<void>;
  /** A peer offers a stream on which it answers questions about its tables. Left out where nobody asks. */
  readonly acceptAnswers?: (channel: Channel, node: string) => Promise<void>;
  /** A peer copies the rows of this node; `node` as above. Left out where nobody gives them. */
  readonly acceptCopy?: (channel: Channel, node: string) => Promise<void>;
  /** Null where no node can join. */
  readonly join: JoinRoutes | null;
}

/** The HTTP/2 sessions of those that the door has let in. */
export class PeerSessions {
  readonly #routes: PeerRoutes;
  readonly #serving = new Set<Promise<void>>();
  readonly #trust: TrustWatch;

  constructor(routes: PeerRoutes, tls: KeySource | null) {
    this.#routes = routes;
    this.#trust = new TrustWatch(tls);
  }

  /** Begins with HTTP/2 on a socket whose bytes have not been read yet. */
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
    if (guest.kind === "peer") this.#trust.watch(connection, guest.chain);
    session.on("stream", (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => {
      stream.on("error", (error) => logger.debug("A peer's stream broke: {error}", { error }));
      this.#route(connection, stream, headers);
    });
  }

  /** Resolves once every stream has been dealt with; their sockets have to be closed before. */
  async close(): Promise<void> {
    this.#trust.close();
    await Promise.allSettled(this.#serving);
  }

  #route(connection: Connection, stream: ServerHttp2Stream, headers: IncomingHttpHeaders): void {
    const { ":path": path, ":method": method } = headers;
    if (path === JOIN_PATH && connection.peer !== null) {
      return this.#serveJoin(stream, headers, connection.peer);
    }
    const route = ROUTE_OF_PATH.get(path ?? "");
    if (route === undefined) return answer(stream, 404, "No such path on mmlite's peer port");
    if (method !== "POST") return answer(stream, 405, "Only POST is taken here");
    const serve = (accept: (channel: Channel) => Promise<void>) =>
      this.#track(serveChannel(connection, stream, { accept, contentType: CONTENT_TYPES[route] }));
    if (route === "push") return serve(this.#routes.accept);
    const node = String(headers[NODE_HEADER] ?? "");
    if (!NODE_NAME.test(node)) return answer(stream, 400, `The header ${NODE_HEADER} must name a node`);
    if (connection.peer !== null && connection.peer.node !== node) {
      return answer(stream, 403, `The certificate is for another node than the header ${NODE_HEADER} names`);
    }
    const accept = this.#acceptOf(route);
    if (accept === undefined) return answer(stream, 404, "No such path on mmlite's peer port");
    serve((channel) => accept(channel, node));
  }

  #acceptOf(route: Exclude<ChannelRoute, "push">) {
    switch (route) {
      case "return":
        return this.#routes.acceptReturn;
      case "ask":
        return this.#routes.acceptQuestions;
      case "answer":
        return this.#routes.acceptAnswers;
      case "copy":
        return this.#routes.acceptCopy;
    }
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
    this.#track(serveJoin(stream, headers, { routes: join, peer }));
  }

  #track(serving: Promise<void>): void {
    this.#serving.add(serving);
    void serving.then(() => this.#serving.delete(serving));
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
  if (stream.destroyed) return;
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
  { accept, contentType }: {
    readonly accept: (channel: Channel) => Promise<void>;
    readonly contentType: string;
  },
): Promise<void> {
  const channel = connection.open(stream);
  try {
    // Throws for a stream that was reset right away.
    stream.respond({ ":status": 200, "content-type": contentType });
    await accept(channel);
    await channel.end();
  } catch (error) {
    logger.debug("A peer's channel ended: {error}", { error });
  } finally {
    channel.destroy();
  }
}
