/**
 * The requests of a node that wants to become a member: the CA's certificate, then a certificate of its own.
 */
import { Buffer } from "node:buffer";
import type { ClientHttp2Session } from "node:http2";
import type { Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { isErrorKind, MmliteError } from "../errors.ts";
import { toPrintable } from "../printable.ts";
import type { TlsMaterial } from "../pki/tls_keys.ts";
import type { PeerName } from "../wire/channel.ts";
import { formatHostPort } from "./channel.ts";
import { cannotReach, dialAborted, dialError, NOT_A_PEER, turnedAwayError } from "./dial_errors.ts";
import { CA_PATH, JOIN_PATH, MAX_JOIN_BYTES } from "./join_routes.ts";
import { beginSession } from "./peer_session.ts";
import { connected, connectSecure } from "./peer_socket.ts";
import { addressOf, parsePeerUrl } from "./peer_url.ts";
import { isTurnedAway } from "./turn_away.ts";

/** A member has this long to answer, milliseconds: making a slot waits up to 30 s for transactions that run. */
const ANSWER_TIMEOUT_MS = 45_000;

interface JoinRequest {
  /** Whom to trust (compared with the token's fingerprint), and the certificate to show once there is one. */
  readonly material: Pick<TlsMaterial, "authorities"> & Partial<Pick<TlsMaterial, "certificate" | "key">>;
  /** Who has to answer. */
  readonly peer: PeerName;
  readonly body: unknown;
  readonly signal: AbortSignal;
}

/**
 * The PEM that a member gives as its CA's certificate. Nobody has proven anything yet: compare its fingerprint with the
 * token's, and nothing else that it says is read. Throws `unreachable` or `aborted`; `refused` where no invite is open.
 */
export async function readAuthority(url: URL, signal: AbortSignal): Promise<string> {
  const address = addressOf(parsePeerUrl(url.href));
  const connectUnproven = async (ended: AbortSignal) => {
    const socket = connectTls({
      ...address,
      rejectUnauthorized: false,
      minVersion: "TLSv1.3",
      ALPNProtocols: ["h2"],
    });
    await connected(socket, "secureConnect", ended);
    return socket;
  };
  const remote = formatHostPort(address.host, address.port);
  const { status, text } = await ask({ url, remote, connect: connectUnproven, signal }, {
    ":method": "GET",
    ":path": CA_PATH,
  });
  if (status !== 200) throw strangeAnswer(remote, status);
  return text;
}

/**
 * Asks a member for membership over a connection on which it has proven who it is; what it answers. Throws
 * `unreachable`, `aborted`, or the error that the member answers.
 */
export async function requestJoin(
  url: URL,
  { material, peer, body, signal }: JoinRequest,
): Promise<unknown> {
  const address = addressOf(parsePeerUrl(url.href));
  const remote = formatHostPort(address.host, address.port);
  const connectProven = async (ended: AbortSignal) => {
    return (await connectSecure(address, { material, peer, remote }, ended)).socket;
  };
  const { status, text } = await ask({ url, remote, connect: connectProven, signal }, {
    ":method": "POST",
    ":path": JOIN_PATH,
    "content-type": "application/json",
  }, JSON.stringify(body));
  if (status !== 200) throw answeredError(remote, status, text);
  return parseAnswer(remote, text);
}

interface Answer {
  readonly status: number;
  readonly text: string;
}

interface Asking {
  readonly url: URL;
  readonly remote: string;
  /** A connected socket; the signal is that of the caller or of the clock. */
  readonly connect: (ended: AbortSignal) => Promise<Socket>;
  readonly signal: AbortSignal;
}

async function ask(
  { url, remote, connect, signal }: Asking,
  headers: Record<string, string>,
  body?: string,
): Promise<Answer> {
  // Not AbortSignal.timeout: on Deno it would keep the process from ending as long as somebody listens to it.
  const clock = new AbortController();
  const timer = setTimeout(() => clock.abort(), ANSWER_TIMEOUT_MS);
  const ended = AbortSignal.any([signal, clock.signal]);
  let session: ClientHttp2Session | undefined;
  try {
    session = beginSession(await connect(ended), url);
    return await exchange(session, { remote, ended, headers, body });
  } catch (error) {
    if (signal.aborted) throw dialAborted(remote);
    if (clock.signal.aborted) throw cannotReach(remote, `no answer within ${ANSWER_TIMEOUT_MS} ms`);
    throw dialError(remote, error as Error);
  } finally {
    clearTimeout(timer);
    session?.destroy();
  }
}

async function exchange(
  session: ClientHttp2Session,
  { remote, ended, headers, body }: {
    remote: string;
    ended: AbortSignal;
    headers: Record<string, string>;
    body?: string;
  },
): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  session.on("error", reject);
  session.on("goaway", (_code, _last, data?: Uint8Array) => {
    const word = new TextDecoder().decode(data);
    if (word === "certificate_required") reject(notOpen(remote));
    else if (isTurnedAway(word)) reject(turnedAwayError(remote, word));
  });
  ended.addEventListener("abort", () => reject(ended.reason), { once: true });
  const stream = session.request(headers, { endStream: body === undefined });
  const chunks: Buffer[] = [];
  let status = 0;
  let length = 0;
  let isWhole = false;
  stream.on("response", (answer) => void (status = Number(answer[":status"])));
  stream.on("data", (chunk: Buffer) => {
    length += chunk.length;
    if (length <= MAX_JOIN_BYTES) chunks.push(chunk);
    else reject(cannotReach(remote, `its answer is longer than ${MAX_JOIN_BYTES} bytes`));
  });
  stream.on("error", reject);
  stream.on("end", () => void (isWhole = true));
  // Not at the end: on Deno that may come before the response.
  stream.on("close", () => {
    const text = Buffer.concat(chunks).toString();
    if (!isWhole || status === 0) {
      reject(cannotReach(remote, "it closed the connection", { hint: NOT_A_PEER }));
    } else resolve({ status, text });
  });
  if (body !== undefined) stream.end(body);
  return await promise;
}

/** Nodes without a certificate are let in while an invite is open, and only then. */
function notOpen(remote: string): MmliteError {
  return new MmliteError("refused", `Cannot join at ${remote}: no invite is open there`, {
    hint: "Make a new one with `mmlite invite`: the token was used, withdrawn, or has expired",
  });
}

function answeredError(remote: string, status: number, text: string): MmliteError {
  const problem = parseProblem(text);
  if (problem === undefined) return strangeAnswer(remote, status);
  const { kind, message, hint } = problem;
  return new MmliteError(isErrorKind(kind) ? kind : "refused", toPrintable(message), {
    hint: toPrintable(hint),
  });
}

function strangeAnswer(remote: string, status: number): MmliteError {
  return cannotReach(remote, `it answered status ${status}`, { hint: NOT_A_PEER });
}

function parseProblem(text: string): { kind: string; message: string; hint: string } | undefined {
  try {
    const { kind, message, hint } = JSON.parse(text);
    const isProblem = [kind, message, hint].every((value) => typeof value === "string");
    return isProblem ? { kind, message, hint } : undefined;
  } catch {
    return undefined;
  }
}

function parseAnswer(remote: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw cannotReach(remote, "its answer is not JSON", { hint: NOT_A_PEER });
  }
}
