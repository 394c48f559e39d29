/**
 * A socket to a peer: TCP alone, or with TLS on it and the certainty of who is there.
 */
import { connect, type Socket } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import type { X509Certificate } from "node:crypto";
import { isSamePeer, peerNameOf } from "../pki/identity.ts";
import type { PeerName } from "../wire/channel.ts";
import { cannotReach, cannotTrust, dialError, NOT_A_PEER } from "./dial_errors.ts";
import { chainOf, type Keys } from "./trust.ts";

interface Address {
  readonly host: string;
  readonly port: number;
}

interface SecureOptions {
  /** What to show, and whom to trust; no key shows nothing. */
  readonly material: Pick<Keys, "authorities"> & Partial<Keys>;
  /** Who has to be there. */
  readonly peer: PeerName;
  readonly remote: string;
}

/** A connected TCP socket; `signal` destroys it while it connects. */
export async function connectPlain(address: Address, signal: AbortSignal): Promise<Socket> {
  const socket = connect(address);
  await connected(socket, "connect", signal);
  return socket;
}

/**
 * A TLS connection to exactly `peer`, and the certificates that it showed; throws `unreachable` for anybody else.
 * Host names play no part: the SAN URI says who it is.
 */
export async function connectSecure(
  address: Address,
  { material, peer, remote }: SecureOptions,
  signal: AbortSignal,
): Promise<{ socket: TLSSocket; chain: readonly X509Certificate[] }> {
  const socket = connectTls({
    ...address,
    cert: material.certificate,
    key: material.key,
    ca: [...material.authorities],
    minVersion: "TLSv1.3",
    ALPNProtocols: ["h2"],
    checkServerIdentity: () => undefined,
  });
  await connected(socket, "secureConnect", signal);
  try {
    const chain = chainOf(socket);
    requirePeer(socket, chain[0], { peer, remote });
    return { socket, chain };
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

/** Resolves at `event`; an error, an end or an abort of `signal` before it destroys the socket and is thrown. */
export async function connected(socket: Socket, event: string, signal: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const abort = () => reject(signal.reason);
  socket.once(event, resolve).on("error", reject);
  socket.once("close", () => reject(Object.assign(new Error("closed"), { code: "ECONNRESET" })));
  signal.addEventListener("abort", abort, { once: true });
  if (signal.aborted) abort();
  try {
    await promise;
  } catch (error) {
    socket.destroy();
    throw error;
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

function requirePeer(
  socket: TLSSocket,
  certificate: X509Certificate | undefined,
  { peer, remote }: Omit<SecureOptions, "material">,
): void {
  if (!socket.authorized || certificate === undefined) {
    throw dialError(
      remote,
      Object.assign(new Error("its certificate is not accepted"), socket.authorizationError),
    );
  }
  if (socket.alpnProtocol !== "h2") {
    throw cannotReach(remote, "it does not speak HTTP/2", { hint: NOT_A_PEER });
  }
  const found = peerNameOf(certificate);
  if (found === null) {
    throw cannotTrust(remote, "its certificate is not that of an mmlite node", {
      hint: "Issue it a certificate with `mmlite cert issue`",
    });
  }
  if (isSamePeer(found, peer)) return;
  if (found.cluster !== peer.cluster) {
    throw cannotTrust(
      remote,
      `its certificate is for cluster "${found.cluster}", and this node is of cluster "${peer.cluster}"`,
      { hint: "Start both nodes with the same --cluster and certificates for it, or remove the peer" },
    );
  }
  throw cannotTrust(remote, `its certificate is for node "${found.node}", not for "${peer.node}"`, {
    hint: `Correct the address, or add the peer as "${found.node}"`,
  });
}
