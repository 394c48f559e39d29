/**
 * Sockets for the control API: a TCP address, a unix socket, or both.
 */
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { Socket } from "node:net";
import { getRequestListener } from "@hono/node-server";
import type { Address } from "../config/address.ts";
import type { Transport } from "./access.ts";
import type { Api } from "./app.ts";
import { listenOnTcp, listenOnUnix } from "./listen.ts";
import { toProblem } from "./problem.ts";

/** Longest wait for a request's header, milliseconds. */
const HEADERS_TIMEOUT_MS = 10_000;
/** Longest wait for a whole request, milliseconds. */
const REQUEST_TIMEOUT_MS = 30_000;
/** An idle keep-alive connection is closed after this, milliseconds; scrapers come every 15 s. */
const KEEP_ALIVE_TIMEOUT_MS = 20_000;
/** How often the server looks for connections past those limits, milliseconds. */
const CHECK_INTERVAL_MS = 5_000;
/** Largest request header, bytes. */
const MAX_HEADER_BYTES = 16 * 1024;
/** Answers under way may take this long at closing, milliseconds. */
const CLOSE_GRACE_MS = 1_000;

/** What {@link serveApi} needs; at least one of `address` and `socketPath`. */
export interface ServeOptions {
  readonly api: Api;
  /** Where to listen on TCP; port 0 lets the system choose. */
  readonly address?: Address;
  readonly socketPath?: string;
  /** Mode of the unix socket, its only guard: 0660 unless given. */
  readonly socketMode?: number;
  /** Closes the server when it aborts. */
  readonly signal?: AbortSignal;
}

/** A control API that listens. */
export interface ApiServer {
  /** Where it listens on TCP, with the port in use; null if it does not. */
  readonly address: Address | null;
  /** Stops listening, lets answers under way end for a second, then closes every connection. */
  close(): Promise<void>;
}

/** Listens, and answers until closed. Throws `config` for an address or a path that cannot be had. */
export async function serveApi(options: ServeOptions): Promise<ApiServer> {
  const { api, address, socketPath, socketMode = 0o660, signal } = options;
  const listeners: ApiListener[] = [];
  let closed: Promise<void> | undefined;
  const close = () => closed ??= closeListeners(listeners);
  let bound: Address | null = null;
  try {
    if (address !== undefined) {
      const listener = createListener(api, "tcp");
      bound = await listenOnTcp(listener.server, address);
      listeners.push(listener);
    }
    if (socketPath !== undefined) {
      const listener = createListener(api, "unix");
      await listenOnUnix(listener.server, { path: socketPath, mode: socketMode });
      listeners.push(listener);
    }
  } catch (error) {
    await close();
    throw error;
  }
  signal?.addEventListener("abort", () => void close(), { once: true });
  if (signal?.aborted) await close();
  return { address: bound, close };
}

interface ApiListener {
  readonly server: Server;
  /** Closes connections that have no request under way. */
  readonly closeUnused: () => void;
}

function createListener(api: Api, transport: Transport): ApiListener {
  const server = createServer({
    headersTimeout: HEADERS_TIMEOUT_MS,
    requestTimeout: REQUEST_TIMEOUT_MS,
    keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
    connectionsCheckingInterval: CHECK_INTERVAL_MS,
    maxHeaderSize: MAX_HEADER_BYTES,
  });
  server.on(
    "request",
    getRequestListener((request) => api(request, transport), {
      errorHandler: refuseUnreadable,
      overrideGlobalObjects: false,
    }),
  );
  return { server, closeUnused: trackConnections(server) };
}

/** The answer to a request that is not even a URL, such as one with a malformed Host header. */
function refuseUnreadable(): Response {
  const problem = toProblem({
    kind: "invalid_input",
    detail: "Cannot read the request: its path and Host header make no URL",
  });
  return new Response(JSON.stringify(problem), {
    status: problem.status,
    headers: { "content-type": "application/problem+json" },
  });
}

async function closeListeners(listeners: readonly ApiListener[]): Promise<void> {
  await Promise.all(listeners.map(async ({ server, closeUnused }) => {
    const end = once(server, "close");
    server.close();
    closeUnused();
    const timer = setTimeout(() => server.closeAllConnections(), CLOSE_GRACE_MS);
    await end;
    clearTimeout(timer);
  }));
}

/**
 * Returns what closes every connection that has no request under way, now and as soon as that becomes so.
 * `closeIdleConnections()` passes over connections that never had a request, which clients keep in store.
 */
function trackConnections(server: Server): () => void {
  const unused = new Set<Socket>();
  let closing = false;
  const release = (socket: Socket) => {
    if (closing) socket.destroy();
    else if (!socket.destroyed) unused.add(socket);
  };
  server.on("connection", (socket) => {
    release(socket);
    socket.once("close", () => unused.delete(socket));
  });
  server.on("request", ({ socket }, response) => {
    unused.delete(socket);
    response.once("close", () => release(socket));
  });
  return () => {
    closing = true;
    for (const socket of unused) socket.destroy();
  };
}
