/**
 * Why a peer cannot be dialled, in sentences: what the system, TLS and HTTP/2 say, and what an operator can do.
 */
import { MmliteError } from "../errors.ts";
import type { PeerName } from "../wire/channel.ts";
import { type Distrust, TURNED_AWAY, type TurnedAway } from "./turn_away.ts";

/** The remedy where something else than a peer answers. */
export const NOT_A_PEER =
  "Check that the URL is the peer's --listen address, not its control API or another program";

const THEIR_REMEDY =
  "Issue it a certificate with `mmlite cert issue` from the CA whose file this node has; compare both clocks";

interface Reason {
  readonly why: string;
  readonly hint?: string;
}

const NO_TLS: Reason = {
  why: "it does not speak TLS",
  hint: "Give its URL as http:// if it runs without TLS on purpose; check that the port is its --listen port",
};

const REASONS: Readonly<Record<string, Reason>> = {
  ECONNREFUSED: { why: "nothing listens there (ECONNREFUSED)" },
  ENOTFOUND: { why: "the host name is unknown (ENOTFOUND)" },
  EAI_AGAIN: { why: "no name server answers (EAI_AGAIN)" },
  EHOSTUNREACH: { why: "there is no route to the host (EHOSTUNREACH)" },
  ENETUNREACH: { why: "there is no route to its network (ENETUNREACH)" },
  // Somebody is there and did not like what was said.
  ECONNRESET: { why: "it closed the connection (ECONNRESET)", hint: NOT_A_PEER },
  EPIPE: { why: "it closed the connection (EPIPE)", hint: NOT_A_PEER },
  ERR_HTTP2_ERROR: { why: "it does not speak HTTP/2", hint: NOT_A_PEER },
  ERR_SSL_WRONG_VERSION_NUMBER: NO_TLS,
  ERR_SSL_PACKET_LENGTH_TOO_LONG: NO_TLS,
  ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION: { why: "it does not speak TLS 1.3", hint: NOT_A_PEER },
  ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL: { why: "it does not speak HTTP/2", hint: NOT_A_PEER },
};

/** What an error of a socket or a session means. */
export function dialError(remote: string, cause: NodeJS.ErrnoException): MmliteError {
  if (cause instanceof MmliteError) return cause;
  const reason: Reason = REASONS[cause.code ?? ""] ?? { why: cause.message, hint: NOT_A_PEER };
  return cannotReach(remote, reason.why, { hint: reason.hint, cause });
}

/** What the peer said when it turned us away. */
export function turnedAwayError(remote: string, word: TurnedAway): MmliteError {
  const { told, hint } = TURNED_AWAY[word];
  return (word === "tls_required" ? cannotReach : cannotTrust)(remote, told, { hint });
}

/** What is wrong with the certificate that the peer showed. */
export function distrustError(remote: string, word: Distrust): MmliteError {
  const isClock = word === "certificate_not_yet_valid";
  return cannotTrust(remote, TURNED_AWAY[word].seen, {
    hint: isClock ? TURNED_AWAY[word].hint : THEIR_REMEDY,
  });
}

/** An `untrusted` error about dialling: one of the two certificates is not accepted. */
export function cannotTrust(
  remote: string,
  why: string,
  options: { hint?: string; cause?: unknown } = {},
): MmliteError {
  return new MmliteError("untrusted", `Cannot reach the peer at ${remote}: ${why}`, options);
}

/** An `unreachable` error about dialling. */
export function cannotReach(
  remote: string,
  why: string,
  options: { hint?: string; cause?: unknown } = {},
): MmliteError {
  return new MmliteError("unreachable", `Cannot reach the peer at ${remote}: ${why}`, options);
}

/** The error of a dialler whose caller has stopped. */
export function dialAborted(remote: string): MmliteError {
  return new MmliteError("aborted", `Cannot reach the peer at ${remote}: stopped`);
}

/** A connection's certificate is good no longer. */
export function cannotGoOn({ peer, remote }: { peer: PeerName | null; remote: string }): MmliteError {
  const node = peer?.node;
  return new MmliteError(
    "untrusted",
    `Cannot go on with ${remote}: the certificate of node "${node}" is not good any more`,
    { hint: `Issue node "${node}" a new certificate with \`mmlite cert issue\`` },
  );
}
