/**
 * Sockets for the control API: a TCP address, a unix socket, or both.
 */
import { once } from "node:events";
import { chmod, lstat, unlink } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { getRequestListener } from "@hono/node-server";
import { type Address, formatAddress } from "../config/address.ts";
import { MmliteError } from "../errors.ts";
import type { Transport } from "./access.ts";
import type { Api } from "./app.ts";
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
  const servers: ApiListener[] = [];
  let closed: Promise<void> | undefined;
  const close = () => closed ??= closeServers(servers);
  let bound: Address | null = null;
  try {
    if (address !== undefined) {
      const listener = await listenOnTcp(api, address);
      servers.push(listener);
      bound = { host: address.host, port: (listener.server.address() as AddressInfo).port };
    }
    if (socketPath !== undefined) servers.push(await listenOnUnix(api, socketPath, socketMode));
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

async function listenOnTcp(api: Api, { host, port }: Address): Promise<ApiListener> {
  const listener = createListener(api, "tcp");
  listener.server.listen({ host, port });
  await listening(listener.server, formatAddress({ host, port }));
  return listener;
}

async function listenOnUnix(api: Api, path: string, mode: number): Promise<ApiListener> {
  await removeStaleSocket(path);
  const listener = createListener(api, "unix");
  listener.server.listen({ path });
  await listening(listener.server, path);
  await chmod(path, mode);
  return listener;
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

/** Resolves once the server listens; throws `config` with a remedy if it cannot. */
async function listening(server: Server, where: string): Promise<void> {
  try {
    await once(server, "listening");
  } catch (error) {
    const code = (error as { code?: string }).code ?? "";
    const [why, hint] = LISTEN_FAULTS[code] ?? [code || (error as Error).message, undefined];
    throw new MmliteError("config", `Cannot serve the control API on "${where}": ${why}`, {
      hint,
      cause: error,
    });
  }
}

const LISTEN_FAULTS: Record<string, readonly [why: string, hint: string]> = {
  EADDRINUSE: [
    "it is in use by another process",
    "Stop that process, or choose another address with listen.api.address (--api)",
  ],
  EADDRNOTAVAIL: [
    "this machine does not have that address",
    "Choose one of this machine's addresses with --api",
  ],
  ENOTFOUND: ["no such host", "Choose one of this machine's addresses with listen.api.address (--api)"],
  EACCES: ["permission denied", "Choose a port above 1023, or a directory that this user may write to"],
  ENOENT: ["its directory does not exist", "Create the directory, or choose another path with --api-socket"],
  EINVAL: ["the path is too long for a socket", "Choose a path of at most 107 bytes with --api-socket"],
};

/** Removes the socket of a dead process; throws `config` if the file is something else or a process listens. */
async function removeStaleSocket(path: string): Promise<void> {
  const found = await lstat(path).catch(() => null);
  if (found === null) return;
  if (!found.isSocket()) {
    throw new MmliteError("config", `Cannot serve the control API on "${path}": it is not a socket`, {
      hint: "Remove the file, or choose another path with listen.api.socket (--api-socket)",
    });
  }
  if (await isAnswered(path)) {
    throw new MmliteError(
      "config",
      `Cannot serve the control API on "${path}": another process listens there`,
      {
        hint: "Stop that process, or choose another path with listen.api.socket (--api-socket)",
      },
    );
  }
  await unlink(path);
}

/** Whether a process listens on a unix socket; one that may not be asked counts as listening. */
async function isAnswered(path: string): Promise<boolean> {
  const socket = connect(path);
  try {
    await once(socket, "connect");
    return true;
  } catch (error) {
    return (error as { code?: string }).code !== "ECONNREFUSED";
  } finally {
    socket.destroy();
  }
}

async function closeServers(servers: readonly ApiListener[]): Promise<void> {
  await Promise.all(servers.map(async ({ server, closeUnused }) => {
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
