/**
 * A socket to a peer: TCP alone, or with TLS on it and the certainty of who is there.
 */
import { connect, type Socket } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import type { X509Certificate } from "node:crypto";
import { isSamePeer } from "../pki/identity.ts";
import type { PeerName, ProvenPeer } from "../wire/channel.ts";
import { cannotReach, cannotTrust, distrustError, NOT_A_PEER } from "./dial_errors.ts";
import type { Distrust } from "./turn_away.ts";
import { isDistrust, type Keys, proveOther } from "./trust.ts";

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

/** Who is at the other end, and the certificates that it showed. */
interface Proven {
  readonly peer: ProvenPeer;
  readonly chain: readonly X509Certificate[];
}

interface SecureSocket extends Proven {
  readonly socket: TLSSocket;
}

/** A connected TCP socket; `signal` destroys it while it connects. */
export async function connectPlain(address: Address, signal: AbortSignal): Promise<Socket> {
  const socket = connect(address);
  await connected(socket, "connect", signal);
  return socket;
}

/**
 * A TLS connection to exactly `peer`; throws `untrusted` for anybody else, `unreachable` for who speaks something else.
 * Host names play no part: the SAN URI says who it is.
 */
export async function connectSecure(
  address: Address,
  options: SecureOptions,
  signal: AbortSignal,
): Promise<SecureSocket> {
  const { material: { certificate: cert, key }, remote } = options;
  const socket = beginTls(address, options, { cert, key });
  try {
    // Fails before this node's certificate goes out, which names it and its cluster.
    await connected(socket, "secureConnect", signal);
  } catch (error) {
    if (!isDistrust(error as NodeJS.ErrnoException)) throw error;
    throw distrustError(remote, await whatIsWrong(address, options, signal));
  }
  try {
    return { socket, ...requirePeer(socket, options) };
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

function beginTls(
  address: Address,
  { material }: SecureOptions,
  options: { cert?: string; key?: string; rejectUnauthorized?: boolean },
): TLSSocket {
  return connectTls({
    ...address,
    ...options,
    ca: [...material.authorities],
    minVersion: "TLSv1.3",
    ALPNProtocols: ["h2"],
    checkServerIdentity: () => undefined,
  });
}

/** Connects once more, showing nothing, to see what is wrong with a certificate by the same rules on every runtime. */
async function whatIsWrong(
  address: Address,
  options: SecureOptions,
  signal: AbortSignal,
): Promise<Distrust> {
  const socket = beginTls(address, options, { rejectUnauthorized: false });
  await connected(socket, "secureConnect", signal);
  try {
    const proof = proveOther(socket, options.material);
    return proof.peer === null ? proof.why : "unknown_authority";
  } finally {
    socket.destroy();
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
  { material, peer, remote }: SecureOptions,
): Proven {
  if (socket.alpnProtocol !== "h2") {
    throw cannotReach(remote, "it does not speak HTTP/2", { hint: NOT_A_PEER });
  }
  const proof = proveOther(socket, material);
  if (proof.peer === null) throw distrustError(remote, proof.why);
  if (isSamePeer(proof.peer, peer)) return proof;
  const { cluster, node } = proof.peer;
  if (cluster !== peer.cluster) {
    throw cannotTrust(
      remote,
      `its certificate is for cluster "${cluster}", and this node is of cluster "${peer.cluster}"`,
      { hint: "Start both nodes with the same --cluster and certificates for it, or remove the peer" },
    );
  }
  throw cannotTrust(remote, `its certificate is for node "${node}", not for "${peer.node}"`, {
    hint: `Correct the address, or add the peer as "${node}"`,
  });
}
