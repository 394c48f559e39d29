/**
 * A dialled HTTP/2 session: opened once somebody is proven to be there, and the requests on it.
 */
import { type ClientHttp2Session, type ClientHttp2Stream, connect } from "node:http2";
import type { X509Certificate } from "node:crypto";
import type { Socket } from "node:net";
import { MmliteError } from "../errors.ts";
import type { Channel, PeerName } from "../wire/channel.ts";
import { formatHostPort } from "./channel.ts";
import { Connection } from "./connection.ts";
import { cannotReach, dialError, NOT_A_PEER, turnedAwayError } from "./dial_errors.ts";
import { connectPlain, connectSecure } from "./peer_socket.ts";
import { addressOf } from "./peer_url.ts";
import {
  CHANNEL_PATHS,
  type ChannelRoute,
  CLIENT_OPTIONS,
  CONTENT_TYPES,
  LINGER_MS,
  NODE_HEADER,
  openWindow,
  tearDownLater,
} from "./session_options.ts";
import type { KeySource } from "./trust.ts";
import { isTurnedAway } from "./turn_away.ts";

interface OpenOptions {
  readonly tls: KeySource | null;
  readonly peer: PeerName;
  /** Called whenever the last channel has closed. */
  readonly onEmpty: () => void;
  /** Gives up while nobody is connected. */
  readonly signal: AbortSignal;
}

/** A dialled connection, and the certificates that the peer showed; none on cleartext. */
export interface PeerSession {
  readonly connection: Connection;
  readonly chain: readonly X509Certificate[];
}

/** Connects to a peer's port, and proves that it is `peer` under TLS; throws `unreachable` and why. */
export async function openSession(url: URL, options: OpenOptions): Promise<PeerSession> {
  const address = addressOf(url);
  const remote = formatHostPort(address.host, address.port);
  const { socket, peer, chain } = await openSocket(url, remote, options);
  const session = beginSession(socket, url);
  const connection = new Connection(session, { remote, peer, onEmpty: options.onEmpty });
  session.on("error", (error) => connection.fail(dialError(remote, error)));
  session.on("goaway", (_code, _last, data?: Uint8Array) => {
    const word = new TextDecoder().decode(data);
    if (isTurnedAway(word)) connection.fail(turnedAwayError(remote, word));
  });
  return { connection, chain };
}

async function openSocket(url: URL, remote: string, { tls, peer, signal }: OpenOptions) {
  const address = addressOf(url);
  try {
    if (url.protocol === "http:") {
      return { socket: await connectPlain(address, signal), peer: null, chain: [] };
    }
    if (tls === null) throw noCertificate(url);
    return await connectSecure(address, { material: tls.current, peer, remote }, signal);
  } catch (error) {
    throw signal.aborted ? error : dialError(remote, error as Error);
  }
}

/** Begins HTTP/2 on a connected socket. */
export function beginSession(socket: Socket, url: URL): ClientHttp2Session {
  const session = connect(url, { ...CLIENT_OPTIONS, createConnection: () => socket });
  tearDownLater(session);
  session.once("connect", () => openWindow(session));
  return session;
}

function noCertificate(url: URL): MmliteError {
  return new MmliteError("config", `Cannot dial ${url.origin}: this node has no certificate`, {
    hint:
      "Issue it one with `mmlite cert issue`, or give the peer's URL as http:// where both run without TLS",
  });
}

/** Opens a stream on a connection; resolves once the peer has taken it, else throws `unreachable`. */
export async function requestChannel(
  connection: Connection,
  { route, self }: { route: ChannelRoute; self: string },
): Promise<Channel> {
  const stream = startRequest(connection, {
    ":method": "POST",
    ":path": CHANNEL_PATHS[route],
    "content-type": CONTENT_TYPES[route],
    ...(route === "push" ? {} : { [NODE_HEADER]: self }),
  });
  const channel = connection.open(stream);
  try {
    await answered(stream, { connection, contentType: CONTENT_TYPES[route] });
    return channel;
  } catch (error) {
    channel.destroy();
    throw error;
  }
}

function startRequest(connection: Connection, headers: Record<string, string>): ClientHttp2Stream {
  try {
    return (connection.session as ClientHttp2Session).request(headers, { endStream: false });
  } catch (error) {
    throw connection.failure ?? dialError(connection.remote, error as Error);
  }
}

/** Resolves when the peer has taken the request; anything but status 200 with that type throws. */
async function answered(
  stream: ClientHttp2Stream,
  { connection, contentType }: { readonly connection: Connection; readonly contentType: string },
): Promise<void> {
  const { remote } = connection;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const fail = (error: MmliteError) => reject(connection.failure ?? error);
  stream.once("response", (headers) => {
    const status = Number(headers[":status"]);
    if (status !== 200) fail(cannotReach(remote, `it answered status ${status}`, { hint: NOT_A_PEER }));
    else if (headers["content-type"] === contentType) resolve();
    else fail(cannotReach(remote, "what answers there is not mmlite", { hint: NOT_A_PEER }));
  });
  stream.once("error", (error) => fail(dialError(remote, error)));
  stream.once("close", () => {
    fail(cannotReach(remote, "it closed the connection without an HTTP/2 answer", { hint: NOT_A_PEER }));
  });
  await promise;
}

/** Ends a session that has no streams any more; the other end has a moment to agree. */
export function closeSession({ session }: Connection): void {
  if (session.destroyed) return;
  const timer = setTimeout(() => session.destroy(), LINGER_MS);
  session.once("close", () => clearTimeout(timer));
  session.close();
}
