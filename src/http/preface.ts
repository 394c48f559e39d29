/**
 * The first bytes of a connection to the peer port: HTTP/2, or somebody who meant another port.
 *
 * A cleartext HTTP/2 server cannot answer HTTP/1, so that `curl` would print nothing but an error.
 */
import { Buffer } from "node:buffer";
import type { Socket } from "node:net";

/** How the client's connection preface begins (RFC 9113, section 3.4); no method of HTTP/1 does. */
const PREFACE = "PRI";

const SENTENCE =
  "This is mmlite's peer port, for other mmlite nodes; the control API is elsewhere (see --api)\n";

/** Whether a connection speaks HTTP/2; its bytes stay to be read. False too if it closes or is silent for `timeoutMs`. */
export async function startsLikeHttp2(socket: Socket, timeoutMs: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const timer = setTimeout(() => resolve(false), timeoutMs);
  let first = Buffer.alloc(0);
  const look = () => {
    for (let chunk = socket.read(); chunk !== null; chunk = socket.read()) {
      first = Buffer.concat([first, chunk]);
    }
    if (first.length >= PREFACE.length) resolve(first.toString("latin1", 0, PREFACE.length) === PREFACE);
  };
  const closed = () => resolve(false);
  socket.on("readable", look).once("close", closed);
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    socket.off("readable", look).off("close", closed);
    if (first.length > 0) socket.unshift(first);
  }
}

/** Tells whoever it is where they are, in HTTP/1, and closes. */
export function turnAway(socket: Socket): void {
  const head = [
    "HTTP/1.1 400 Bad Request",
    "content-type: text/plain; charset=utf-8",
    `content-length: ${SENTENCE.length}`,
    "connection: close",
  ];
  socket.end(`${head.join("\r\n")}\r\n\r\n${SENTENCE}`, () => socket.destroySoon());
}
