/**
 * The first bytes of a connection to the peer port: TLS, HTTP/2, or somebody who meant another port.
 */
import { Buffer } from "node:buffer";
import type { Socket } from "node:net";

/** How the client's connection preface begins (RFC 9113, section 3.4); no method of HTTP/1 does. */
const PREFACE = "PRI";
/** Type of the TLS record that carries a ClientHello (RFC 8446, section 5.1). */
const HANDSHAKE_RECORD = 0x16;

/** What a connection begins with; `nothing` if it closed, or was silent for too long. */
export type FirstBytes = "tls" | "http2" | "other" | "nothing";

/** Looks at a connection's first bytes, which stay to be read. */
export async function readFirstBytes(socket: Socket, timeoutMs: number): Promise<FirstBytes> {
  const { promise, resolve } = Promise.withResolvers<FirstBytes>();
  const timer = setTimeout(() => resolve("nothing"), timeoutMs);
  let first = Buffer.alloc(0);
  const look = () => {
    for (let chunk = socket.read(); chunk !== null; chunk = socket.read()) {
      first = Buffer.concat([first, chunk]);
    }
    const seen = classify(first);
    if (seen !== undefined) resolve(seen);
  };
  const closed = () => resolve("nothing");
  socket.on("readable", look).once("close", closed);
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    socket.off("readable", look).off("close", closed);
    if (first.length > 0) socket.unshift(first);
  }
}

function classify(first: Buffer): FirstBytes | undefined {
  if (first[0] === HANDSHAKE_RECORD) return "tls";
  if (first.length < PREFACE.length) return undefined;
  return first.toString("latin1", 0, PREFACE.length) === PREFACE ? "http2" : "other";
}
