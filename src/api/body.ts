/**
 * Bodies, bounded: read whole before a handler sees them, and refused past the limit.
 */
import type { MiddlewareHandler } from "hono";
import { refuse, requestLine } from "./problem.ts";

/** Largest body taken; a peer is a few hundred bytes. */
export const MAX_BODY_BYTES = 64 * 1024;

/** Answers 413 to a body longer than {@link MAX_BODY_BYTES}, whether or not its length was announced. */
export function limitBody(): MiddlewareHandler {
  return async (c, next) => {
    const { body } = c.req.raw;
    if (body === null || c.req.method === "GET" || c.req.method === "HEAD") return await next();
    const announced = Number(c.req.header("content-length") ?? 0);
    const bytes = announced > MAX_BODY_BYTES ? null : await readAtMost(body, MAX_BODY_BYTES);
    if (bytes === null) {
      return refuse(c, {
        kind: "invalid_input",
        status: 413,
        title: "Body too large",
        detail: `Cannot use the body of ${requestLine(c)}: it is longer than ${MAX_BODY_BYTES} bytes`,
        hint: "Send what the path takes, and nothing else",
      });
    }
    const { method, url, raw: { headers } } = c.req;
    c.req.raw = new Request(url, { method, headers, body: bytes.length === 0 ? null : bytes });
    await next();
  };
}

/** The bytes of a stream, or null as soon as there are more than `limit`. */
async function readAtMost(
  stream: ReadableStream<Uint8Array>,
  limit: number,
): Promise<Uint8Array<ArrayBuffer> | null> {
  const bytes = new Uint8Array(limit);
  let length = 0;
  for await (const chunk of stream) {
    if (length + chunk.length > limit) return null;
    bytes.set(chunk, length);
    length += chunk.length;
  }
  return bytes.subarray(0, length);
}
