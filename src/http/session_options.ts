/**
 * What both ends of a peer connection set: HTTP/2 windows and limits, the routes, and how sessions are torn down.
 */
import type { Http2Session, ServerOptions, Settings } from "node:http2";

/** The routes that frames travel over, each a `POST` with frames in both bodies. */
export const FRAME_PATHS = {
  /** The dialling node pushes its transactions; acks come back. */
  push: "/mmlite/v1/push",
  /** The accepting node pushes, over a stream that the dialling node has opened for it. */
  return: "/mmlite/v1/return",
} as const;
/** A route that frames travel over. */
export type FrameRoute = keyof typeof FRAME_PATHS;
/** Media type of both bodies. */
export const CONTENT_TYPE = "application/vnd.mmlite.frames";

/** All routes that nodes keep a stream open on; on those that no frames travel over, lines of JSON do, and rows. */
export const CHANNEL_PATHS = {
  ...FRAME_PATHS,
  /** The dialling node asks about tables; answers come back. */
  ask: "/mmlite/v1/ask",
  /** The accepting node asks, over a stream that the dialling node has opened for it. */
  answer: "/mmlite/v1/answer",
  /** The dialling node copies the rows of the accepting one. */
  copy: "/mmlite/v1/copy",
} as const;
/** One of them. */
export type ChannelRoute = keyof typeof CHANNEL_PATHS;
/** Media types of both bodies. */
export const CONTENT_TYPES: Readonly<Record<ChannelRoute, string>> = {
  push: CONTENT_TYPE,
  return: CONTENT_TYPE,
  ask: "application/jsonl",
  answer: "application/jsonl",
  copy: "application/octet-stream",
};
/** Names the dialling node, on every route but that on which it says so itself. */
export const NODE_HEADER = "mmlite-node";

/** Bytes that may be under way unread on a stream: 40 MB/s at 200 ms round trip, where 64 KiB give 320 KB/s. */
export const WINDOW_BYTES = 8 * 0x10_0000;
/** One stream each way between two nodes, and as many again that are just ending while their successors begin. */
export const MAX_STREAMS = 4;
/** Room for every stream's window: one that nobody reads must not stop the others. */
const SESSION_WINDOW_BYTES = MAX_STREAMS * WINDOW_BYTES;

const SETTINGS: Settings = {
  enablePush: false,
  initialWindowSize: WINDOW_BYTES,
  maxConcurrentStreams: MAX_STREAMS,
  // Our own request has a handful of short headers.
  maxHeaderListSize: 8192,
};

/** Whoever is ended on has this long to end as well, milliseconds, before the connection or stream is reset. */
export const LINGER_MS = 10_000;

/** Node.js refuses streams to a session that holds more, MB: what fills the windows of the others must not count. */
const MAX_SESSION_MEMORY = 2 * SESSION_WINDOW_BYTES / 1_000_000;

/** Options of a session we dial. */
export const CLIENT_OPTIONS = {
  settings: SETTINGS,
  maxReservedRemoteStreams: 0,
  maxSessionMemory: MAX_SESSION_MEMORY,
};

/** Options of sessions that others dial. */
export const SERVER_OPTIONS: ServerOptions = {
  settings: SETTINGS,
  maxSessionMemory: MAX_SESSION_MEMORY,
  maxHeaderListPairs: 32,
  maxSettings: 16,
};

/** Options of sessions of nodes without a certificate, which want to join: two short requests in small windows. */
export const JOIN_SERVER_OPTIONS: ServerOptions = {
  ...SERVER_OPTIONS,
  maxSessionMemory: 1,
  settings: { ...SETTINGS, initialWindowSize: 0xffff, maxConcurrentStreams: 2 },
};

/** Opens the window of a connected session; `initialWindowSize` covers its streams only. */
export function openWindow(session: Http2Session): void {
  if (!session.destroyed) session.setLocalWindowSize(SESSION_WINDOW_BYTES);
}

/**
 * Puts every teardown of a session off to the next turn of the event loop; to be called before it reads anything.
 *
 * The runtime tears a session down while it still handles the frame that asked for it. Deno 2.9.6 frees the
 * memory that nghttp2 then goes on to use, so that one GOAWAY from anybody, which every HTTP/2 client sends when
 * it closes, ends the process (denoland/deno#36788).
 */
export function tearDownLater(session: Http2Session): void {
  const close = session.close.bind(session);
  const destroy = session.destroy.bind(session);
  session.close = (callback) => void setImmediate(() => session.destroyed || close(callback));
  session.destroy = (error, code) => void setImmediate(() => session.destroyed || destroy(error, code));
}
