/**
 * The routes of a node that wants to become a member: `GET /mmlite/v1/ca` and `POST /mmlite/v1/join`. Served over TLS
 * only; without a certificate only while an invitation is outstanding.
 */
import { Buffer } from "node:buffer";
import type { IncomingHttpHeaders, ServerHttp2Stream } from "node:http2";
import { ERROR_POLICY, type ErrorKind, MmliteError, toMmliteError } from "../errors.ts";
import { log } from "../log.ts";
import type { PeerName } from "../wire/channel.ts";

/** Where a node reads the cluster's CA certificate, PEM. */
export const CA_PATH = "/mmlite/v1/ca";
/** Where a node asks for membership; JSON both ways. */
export const JOIN_PATH = "/mmlite/v1/join";
/** Longest body of a request or an answer, bytes. */
export const MAX_JOIN_BYTES = 0x1_0000;

/** What answers nodes that want to join. */
export interface JoinRoutes {
  /** An invitation is outstanding; otherwise nobody without a certificate gets any answer. */
  isOpen(): boolean;
  /** The CA's certificate, PEM. */
  ca(): string;
  /**
   * Answers a request of whom the dialler's certificate names, null without one; what it throws goes to the joiner as
   * kind, message and hint.
   */
  join(body: unknown, peer: PeerName | null): Promise<unknown>;
}

/** Errors whose text is about what was asked, or for whoever has a token. All others may name roles and databases. */
const TOLD_STRANGERS: readonly ErrorKind[] = [
  "config",
  "refused",
  "conflict",
  "invalid_input",
  "not_found",
  "unauthenticated",
];

const logger = log("http");

/** Answers one request of a stranger, or of a node that has its certificate already. Never throws. */
export async function serveJoin(
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  { routes, peer }: { readonly routes: JoinRoutes; readonly peer: PeerName | null },
): Promise<void> {
  try {
    const route = `${headers[":method"]} ${headers[":path"]}`;
    if (peer === null && !routes.isOpen()) {
      throw new MmliteError("refused", "Cannot join: no invitation is outstanding");
    }
    if (route === `GET ${CA_PATH}`) return answer(stream, 200, "application/x-pem-file", routes.ca());
    if (route !== `POST ${JOIN_PATH}`) throw new MmliteError("not_found", "Cannot answer this: no such path");
    const result = await routes.join(parseBody(await readBody(stream)), peer);
    answer(stream, 200, "application/json", JSON.stringify(result));
  } catch (thrown) {
    const error = toMmliteError(thrown);
    logger.debug("A request to join failed: {error}", { error: error.message });
    const body = toldOf(error, peer);
    answer(stream, ERROR_POLICY[error.kind].httpStatus, "application/problem+json", JSON.stringify(body));
  }
}

/** What the dialler hears of an error: of this node's inside nothing, and a stranger only what is about its request. */
function toldOf({ kind, message, hint }: MmliteError, peer: PeerName | null) {
  const isTold = peer === null ? TOLD_STRANGERS.includes(kind) : kind !== "internal";
  return isTold
    ? { kind, message, hint }
    : { kind, message: "Cannot answer this", hint: ERROR_POLICY[kind].hint };
}

async function readBody(stream: ServerHttp2Stream): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of stream.iterator({ destroyOnReturn: false })) {
    length += chunk.length;
    if (length > MAX_JOIN_BYTES) {
      throw new MmliteError(
        "invalid_input",
        `Cannot join: the request is longer than ${MAX_JOIN_BYTES} bytes`,
      );
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function parseBody(body: Buffer): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch {
    throw new MmliteError("invalid_input", "Cannot join: the request is not JSON");
  }
}

function answer(stream: ServerHttp2Stream, status: number, contentType: string, body: string): void {
  if (stream.destroyed) return;
  stream.respond({ ":status": status, "content-type": contentType });
  stream.end(body);
}
