/**
 * What both ends of a peer connection set: HTTP/2 windows and limits, the routes, and how sessions are torn down.
 */
import type { Http2Session, ServerOptions, Settings } from "node:http2";

/** Where a node pushes its transactions: `POST`, the request body down, acks up the response. */
export const PUSH_PATH = "/mmlite/v1/push";
/** Media type of both bodies. */
export const CONTENT_TYPE = "application/vnd.mmlite.frames";

/** Bytes that may be under way unread: 40 MB/s at 100 ms round trip, where the default 64 KiB gives 640 KB/s. */
export const WINDOW_BYTES = 4 * 0x10_0000;

const SETTINGS: Settings = {
  enablePush: false,
  initialWindowSize: WINDOW_BYTES,
  // A session carries one channel, and both end together.
  maxConcurrentStreams: 1,
  // Our own request has a handful of short headers.
  maxHeaderListSize: 8192,
};

/** Options of a session we dial. */
export const CLIENT_OPTIONS = { settings: SETTINGS, maxReservedRemoteStreams: 0 };

/** Options of sessions that strangers may dial. */
export const SERVER_OPTIONS: ServerOptions = {
  settings: SETTINGS,
  maxHeaderListPairs: 32,
  maxOutstandingPings: 4,
  maxSettings: 16,
};

/** Opens the window of a connected session; `initialWindowSize` covers its streams only. */
export function openWindow(session: Http2Session): void {
  if (!session.destroyed) session.setLocalWindowSize(WINDOW_BYTES);
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
