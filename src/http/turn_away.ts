/**
 * Why a connection to the peer port is turned away: the words that go over the wire, and what the dialler makes of them.
 *
 * They say something about what the dialler did or showed, as TLS alerts do, and never anything about this node.
 */
import { Buffer } from "node:buffer";
import type { Socket } from "node:net";
import { LINGER_MS } from "./session_options.ts";

/** What is wrong with what the other end showed. */
export type Distrust =
  | "certificate_required"
  | "certificate_expired"
  | "certificate_not_yet_valid"
  | "unknown_authority"
  | "wrong_usage"
  | "bad_certificate"
  | "other_cluster";
/** Why a connection is not taken. */
export type TurnedAway = Distrust | "tls_required";

interface Explanation {
  /** What the accepting node sees, for its log. */
  readonly seen: string;
  /** The same in the dialling node's status, and what its operator can do. */
  readonly told: string;
  readonly hint: string;
}

/** What each word means to the operators of both nodes. */
export const TURNED_AWAY: Readonly<Record<TurnedAway, Explanation>> = {
  tls_required: {
    seen: "it does not speak TLS",
    told: "it takes TLS only",
    hint: "Give its URL as https://",
  },
  certificate_required: {
    seen: "it showed no certificate",
    told: "it wants a certificate, and this node showed none",
    hint: "Issue this node a certificate with `mmlite cert issue`",
  },
  certificate_expired: {
    seen: "its certificate has expired",
    told: "it does not accept this node's certificate, which has expired",
    hint:
      "Issue this node a new certificate with `mmlite cert issue`; compare both clocks if it is still valid",
  },
  certificate_not_yet_valid: {
    seen: "its certificate is not valid yet",
    told: "it does not accept this node's certificate, which is not valid yet",
    hint: "Set the clocks of both hosts right",
  },
  unknown_authority: {
    seen: "this node's CA did not sign its certificate",
    told: "it does not accept this node's certificate, which its CA did not sign",
    hint: "Issue this node a certificate from the cluster's CA, or give both nodes the same CA file",
  },
  wrong_usage: {
    seen: "its certificate is not for servers and clients both",
    told: "it does not accept this node's certificate, which is not for servers and clients both",
    hint: "Issue this node a certificate with `mmlite cert issue`",
  },
  bad_certificate: {
    seen: "its certificate is not that of an mmlite node",
    told: "it does not accept this node's certificate, which is not that of an mmlite node",
    hint: "Issue this node a certificate with `mmlite cert issue`",
  },
  other_cluster: {
    seen: "its certificate is for another cluster",
    told: "it does not accept this node's certificate, which is for another cluster",
    hint: "Start both nodes with the same --cluster and certificates for it, or remove the peer",
  },
};

/** HTTP/2's code for a connection that lacks security (RFC 9113, section 7). */
export const INADEQUATE_SECURITY = 0xc;
const FRAME_SETTINGS = 4;
const FRAME_GOAWAY = 7;

/** Whether a GOAWAY's data is one of our words. */
export function isTurnedAway(word: string): word is TurnedAway {
  return Object.hasOwn(TURNED_AWAY, word);
}

/** Ends a connection of somebody who speaks HTTP/2: empty settings, which must come first, and a GOAWAY. */
export function goAway(socket: Socket, word: TurnedAway): void {
  const goAway = Buffer.alloc(8 + word.length);
  goAway.writeUInt32BE(INADEQUATE_SECURITY, 4);
  goAway.write(word, 8, "latin1");
  endWith(socket, Buffer.concat([frame(FRAME_SETTINGS, Buffer.alloc(0)), frame(FRAME_GOAWAY, goAway)]));
}

/** Ends a connection of somebody who speaks something else: a sentence in HTTP/1, which `curl` shows. */
export function turnAway(socket: Socket, sentence: string): void {
  const head = [
    "HTTP/1.1 400 Bad Request",
    "content-type: text/plain; charset=utf-8",
    `content-length: ${sentence.length + 1}`,
    "connection: close",
  ];
  endWith(socket, Buffer.from(`${head.join("\r\n")}\r\n\r\n${sentence}\n`));
}

/** A frame of stream 0 (RFC 9113, section 4.1). */
function frame(type: number, payload: Buffer): Buffer {
  const header = Buffer.alloc(9);
  header.writeUIntBE(payload.length, 0, 3);
  header[3] = type;
  return Buffer.concat([header, payload]);
}

/** Closing with bytes unread makes TCP throw away what was sent last, so they are read for a moment. */
function endWith(socket: Socket, bytes: Buffer): void {
  const timer = setTimeout(() => socket.destroy(), LINGER_MS);
  socket.once("close", () => clearTimeout(timer));
  socket.resume();
  socket.end(bytes);
}
