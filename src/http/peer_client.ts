/**
 * The dialling end of a channel: one HTTP/2 session with one long POST on it.
 */
import { type ClientHttp2Session, type ClientHttp2Stream, connect } from "node:http2";
import { MmliteError } from "../errors.ts";
import type { Channel } from "../wire/channel.ts";
import { formatHostPort, openChannel } from "./channel.ts";
import { CLIENT_OPTIONS, CONTENT_TYPE, openWindow, PUSH_PATH, tearDownLater } from "./session_options.ts";
import { parsePeerUrl } from "./peer_url.ts";

/** A peer has this long to take the connection and answer the request, milliseconds. */
export const CONNECT_TIMEOUT_MS = 10_000;

const NOT_A_PEER =
  "Check that the URL is the peer's --listen address, not its control API or another program";

interface DialOptions {
  readonly signal: AbortSignal;
  /** The route; its default is the push. */
  readonly path?: string;
  readonly connectTimeoutMs?: number;
}

/**
 * Opens a channel to a peer's port. Resolves once a peer has taken it.
 *
 * Throws `invalid_input` for a URL that is not a peer's, `aborted` on `signal`, and else `unreachable` with host,
 * port and cause. `signal` is for dialling only: it does not break the channel later.
 */
export async function dialPeer(url: URL, options: DialOptions): Promise<Channel> {
  const { hostname, port } = parsePeerUrl(url.href);
  const { signal, path = PUSH_PATH, connectTimeoutMs = CONNECT_TIMEOUT_MS } = options;
  const remote = formatHostPort(hostname.replace(/^\[|\]$/g, ""), Number(port || 80));
  if (signal.aborted) throw aborted(remote);
  const session = connect(url, CLIENT_OPTIONS);
  tearDownLater(session);
  const failed = watchForFailure(session, { remote, signal, connectTimeoutMs });
  session.once("connect", () => openWindow(session));
  try {
    const stream = session.request({
      ":method": "POST",
      ":path": path,
      "content-type": CONTENT_TYPE,
    }, { endStream: false });
    const channel = openChannel(stream, { session, remote });
    stream.once("close", () => session.close());
    await Promise.race([answered(stream, remote), failed.promise]);
    return channel;
  } catch (error) {
    session.destroy();
    throw error;
  } finally {
    failed.stopWatching();
  }
}

/** Resolves when the peer has taken the request; anything but status 200 with frames throws. */
async function answered(stream: ClientHttp2Stream, remote: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  stream.once("response", (headers) => {
    const status = Number(headers[":status"]);
    if (status !== 200) reject(unreachable(remote, `it answered status ${status}`, { hint: NOT_A_PEER }));
    else if (headers["content-type"] === CONTENT_TYPE) resolve();
    else reject(unreachable(remote, "what answers there is not mmlite", { hint: NOT_A_PEER }));
  });
  stream.once("error", (error) => reject(sessionError(remote, error)));
  stream.once("close", () => {
    reject(unreachable(remote, "it closed the connection without an HTTP/2 answer", { hint: NOT_A_PEER }));
  });
  await promise;
}

/** What can go wrong with a session before the answer: its own errors, the clock, the caller's signal. */
function watchForFailure(
  session: ClientHttp2Session,
  options: { remote: string; signal: AbortSignal; connectTimeoutMs: number },
): { readonly promise: Promise<never>; stopWatching(): void } {
  const { remote, signal, connectTimeoutMs } = options;
  const { promise, reject } = Promise.withResolvers<never>();
  promise.catch(() => {});
  // Stays attached: after the answer the stream reports the break, but the session's error still needs a taker.
  session.on("error", (error) => reject(sessionError(remote, error)));
  const abort = () => reject(aborted(remote));
  signal.addEventListener("abort", abort, { once: true });
  const timer = setTimeout(() => {
    reject(unreachable(remote, `no answer within ${connectTimeoutMs} ms`));
  }, connectTimeoutMs);
  return {
    promise,
    stopWatching() {
      clearTimeout(timer);
      signal.removeEventListener("abort", abort);
    },
  };
}

const REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: "nothing listens there (ECONNREFUSED)",
  ENOTFOUND: "the host name is unknown (ENOTFOUND)",
  EHOSTUNREACH: "there is no route to the host (EHOSTUNREACH)",
  ENETUNREACH: "there is no route to its network (ENETUNREACH)",
  ERR_HTTP2_ERROR: "it does not speak HTTP/2",
};

/** Somebody is there and did not like what was said. */
const CLOSED = ["ECONNRESET", "EPIPE"];

function sessionError(remote: string, cause: NodeJS.ErrnoException): MmliteError {
  const { code = "", message } = cause;
  if (CLOSED.includes(code)) {
    return unreachable(remote, `it closed the connection (${code})`, { hint: NOT_A_PEER, cause });
  }
  if (code in REASONS) return unreachable(remote, REASONS[code], { cause });
  return unreachable(remote, message, { hint: NOT_A_PEER, cause });
}

function unreachable(
  remote: string,
  why: string,
  options: { hint?: string; cause?: Error } = {},
): MmliteError {
  return new MmliteError("unreachable", `Cannot reach the peer at ${remote}: ${why}`, options);
}

function aborted(remote: string): MmliteError {
  return new MmliteError("aborted", `Cannot reach the peer at ${remote}: stopped`);
}
