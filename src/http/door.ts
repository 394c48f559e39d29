/**
 * The door of the peer port: what a connection has to show, and in which time, before HTTP/2 begins on it.
 *
 * Whoever dials is a stranger until then. Strangers hold a socket each and nothing else, a bounded number of them;
 * when there are too many the oldest goes, so that they cannot keep the peers out.
 */
import type { X509Certificate } from "node:crypto";
import { constants } from "node:crypto";
import type { Socket } from "node:net";
import { createServer, type Server, type TLSSocket } from "node:tls";
import { log } from "../log.ts";
import type { ProvenPeer } from "../wire/channel.ts";
import { remoteOf } from "./channel.ts";
import { type FirstBytes, readFirstBytes } from "./preface.ts";
import { type KeySource, proveOther } from "./trust.ts";
import { goAway, turnAway, TURNED_AWAY, type TurnedAway } from "./turn_away.ts";

/** Connections at a time: far more than a mesh needs, few enough to bound what is held. */
export const MAX_CONNECTIONS = 256;
/** Of these, connections that have not shown who they are. */
export const MAX_STRANGERS = 128;
/** A connection has this long to show who it is, milliseconds. */
export const HANDSHAKE_MS = 10_000;
/** A node that joins has this long for its requests, milliseconds: a certificate is signed meanwhile. */
const JOIN_MS = 30_000;
/** One line per reason in this time, milliseconds, is a warning: anybody may knock as often as they like. */
const WARNING_INTERVAL_MS = 60_000;

const logger = log("http");

const SENTENCE =
  "This is mmlite's peer port, for other mmlite nodes; the control API is elsewhere (see --api)";
const TLS_SENTENCE = `${SENTENCE}. It takes TLS with a client certificate only (https://)`;

/** A connection that may begin with HTTP/2. */
export type Guest =
  | { readonly kind: "peer"; readonly peer: ProvenPeer; readonly chain: readonly X509Certificate[] }
  /** Cleartext: nobody proves anything. */
  | { readonly kind: "unproven" }
  /** Has no certificate, and an invite is open. */
  | { readonly kind: "joiner" };

interface DoorOptions {
  /** Null for cleartext. */
  readonly tls: KeySource | null;
  /** Nodes without a certificate may ask to join, at the moment. */
  readonly takesJoiners: () => boolean;
  /** Begins HTTP/2 on a socket whose bytes have not been read yet. */
  readonly begin: (socket: Socket, guest: Guest) => void;
}

interface Stranger {
  readonly socket: Socket;
  /** Closes the connection. */
  timer: ReturnType<typeof setTimeout>;
}

/** Takes connections in. */
export class Door {
  readonly #options: DoorOptions;
  readonly #tls: Server | null;
  readonly #sockets = new Set<Socket>();
  /** In the order of their coming; by {@link endpointsOf}. */
  readonly #strangers = new Map<string, Stranger>();
  readonly #warnedAt = new Map<string, number>();
  readonly #forgetKeys: () => void;

  constructor(options: DoorOptions) {
    this.#options = options;
    const { tls } = options;
    this.#tls = tls === null ? null : this.#tlsServer(tls);
    this.#forgetKeys = tls?.onChange(() => this.#tls?.setSecureContext(secureContext(tls))) ?? (() => {});
  }

  /** Deals with a new connection. Never throws. */
  async take(socket: Socket): Promise<void> {
    if (this.#sockets.size >= MAX_CONNECTIONS) {
      this.#warn("too_many", socket, `${MAX_CONNECTIONS} connections are open`);
      return void socket.destroy();
    }
    this.#hold(socket);
    const first = await readFirstBytes(socket, HANDSHAKE_MS);
    this.#orDestroy(socket, () => this.#begin(socket, first));
  }

  /** Destroys every socket; takes no notice of new keys any more. */
  close(): void {
    this.#forgetKeys();
    for (const socket of this.#sockets) socket.destroy();
  }

  #hold(socket: Socket): void {
    if (this.#strangers.size >= MAX_STRANGERS) this.#dropOldest();
    const key = endpointsOf(socket);
    this.#sockets.add(socket);
    this.#strangers.set(key, { socket, timer: setTimeout(() => socket.destroy(), HANDSHAKE_MS) });
    socket.once("close", () => this.#forget(key, socket));
    socket.on("error", () => socket.destroy());
  }

  #dropOldest(): void {
    const [[key, { socket }]] = this.#strangers;
    const why = `${MAX_STRANGERS} newer connections have not shown who they are`;
    this.#warn("too_many_strangers", socket, why);
    // Not when it has closed: many may come before.
    this.#forget(key, socket);
    socket.destroy();
  }

  #forget(key: string, socket: Socket): void {
    this.#sockets.delete(socket);
    this.#recognise(key, socket);
  }

  /** The connection is a stranger's no longer. */
  #recognise(key: string, socket: Socket): void {
    const stranger = this.#strangers.get(key);
    if (stranger?.socket !== socket) return;
    clearTimeout(stranger.timer);
    this.#strangers.delete(key);
  }

  #begin(socket: Socket, first: FirstBytes): void {
    switch (first) {
      case "tls":
        return this.#tls === null ? turnAway(socket, SENTENCE) : void this.#tls.emit("connection", socket);
      case "http2":
        if (this.#tls !== null) return this.#refuse(socket, "tls_required");
        this.#recognise(endpointsOf(socket), socket);
        return this.#options.begin(socket, { kind: "unproven" });
      case "other":
        return turnAway(socket, this.#tls === null ? SENTENCE : TLS_SENTENCE);
      case "nothing":
        return void socket.destroy();
    }
  }

  /** Whatever a connection makes us throw ends it, and it alone. */
  #orDestroy(socket: Socket, step: () => void): void {
    try {
      step();
    } catch (error) {
      logger.debug("A connection from {remote} ended: {error}", { remote: remoteOf(socket), error });
      socket.destroy();
    }
  }

  #tlsServer(tls: KeySource): Server {
    const server = createServer({
      ...secureContext(tls),
      requestCert: true,
      // The dialler is judged below, and told a word about it.
      rejectUnauthorized: false,
      ALPNProtocols: ["h2"],
      handshakeTimeout: HANDSHAKE_MS,
    });
    server.on("tlsClientError", (error, socket) => {
      logger.debug("A TLS handshake failed: {error}", { error: error.message });
      socket.destroy();
    });
    server.on("secureConnection", (socket) => this.#orDestroy(socket, () => this.#secured(socket, tls)));
    return server;
  }

  #secured(socket: TLSSocket, tls: KeySource): void {
    const key = endpointsOf(socket);
    const stranger = this.#strangers.get(key);
    socket.on("error", () => socket.destroy());
    socket.once("close", () => stranger?.socket.destroy());
    if (stranger === undefined || socket.alpnProtocol !== "h2") return void socket.destroy();
    const proof = proveOther(socket, tls.current);
    if (proof.peer !== null) {
      if (proof.peer.cluster !== tls.current.name.cluster) return this.#refuse(socket, "other_cluster");
      this.#recognise(key, stranger.socket);
      return this.#options.begin(socket, { kind: "peer", ...proof });
    }
    if (proof.why !== "certificate_required" || !this.#options.takesJoiners()) {
      return this.#refuse(socket, proof.why);
    }
    // Stays a stranger, but for its time.
    clearTimeout(stranger.timer);
    stranger.timer = setTimeout(() => stranger.socket.destroy(), JOIN_MS);
    this.#options.begin(socket, { kind: "joiner" });
  }

  #refuse(socket: Socket, why: TurnedAway): void {
    this.#warn(why, socket, TURNED_AWAY[why].seen);
    goAway(socket, why);
  }

  #warn(reason: string, socket: Socket, why: string): void {
    const now = performance.now();
    const isNews = now - (this.#warnedAt.get(reason) ?? -Infinity) >= WARNING_INTERVAL_MS;
    if (isNews) this.#warnedAt.set(reason, now);
    logger[isNews ? "warn" : "debug"]("Turned a connection from {remote} away: {why}", {
      remote: remoteOf(socket),
      why,
    });
  }
}

function secureContext(tls: KeySource) {
  const { certificate, key, authorities } = tls.current;
  return {
    cert: certificate,
    key,
    ca: [...authorities],
    minVersion: "TLSv1.3" as const,
    // A resumed connection would show no certificate.
    secureOptions: constants.SSL_OP_NO_TICKET,
  };
}

/** What no two connections have in common. */
function endpointsOf({ remoteAddress, remotePort, localAddress, localPort }: Socket): string {
  return `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`;
}
