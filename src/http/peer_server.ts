/**
 * The listening end: the port that peers dial, from binding it to closing all that came of it.
 */
import { type AddressInfo, createServer as createTcpServer, type Server } from "node:net";
import { MmliteError } from "../errors.ts";
import { log } from "../log.ts";
import { formatHostPort } from "./channel.ts";
import { Door } from "./door.ts";
import { type PeerRoutes, PeerSessions } from "./peer_sessions.ts";
import type { KeySource } from "./trust.ts";

const logger = log("http");

/** The port that peers dial. */
export interface PeerServer {
  /** Where it listens; the port is the one the system chose if 0 was asked for. */
  readonly address: { readonly host: string; readonly port: number };
  /** Stops listening and breaks what is open; resolves once all is closed and every `accept` has settled. */
  close(): Promise<void>;
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
  try {
    await listen(tcp, address);
  } catch (error) {
    door.close();
    await sessions.close();
    throw error;
  }
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
    (error) => logger.warn("Cannot take a connection: {error}", { error }),
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
