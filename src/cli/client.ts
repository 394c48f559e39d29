/**
 * The control API's client: one request, its answer, and its errors as ours.
 */
import { Buffer } from "node:buffer";
import { type IncomingMessage, request } from "node:http";
import { isErrorKind, MmliteError } from "../errors.ts";
import type { Problem } from "../api/schemas.ts";
import { readSecretFile } from "../config/secret.ts";
import type { Context, GlobalOptions } from "./context.ts";
import { formatCurl } from "./curl.ts";
import { describeEndpoint, type Endpoint, findEndpoint } from "./endpoint.ts";

/** One call of the control API. */
export interface ApiRequest {
  readonly method: "GET" | "PUT" | "POST" | "DELETE";
  /** With its query, already encoded. */
  readonly path: string;
  readonly body?: unknown;
  /** How long the answer itself may take beyond {@link ANSWER_DEADLINE_MS}, milliseconds. */
  readonly mayTakeMs?: number;
}

/** A successful answer. */
export interface ApiAnswer<Body> {
  readonly status: number;
  /** The JSON; undefined where the answer has none. */
  readonly body: Body;
}

/** Time for a whole answer, milliseconds: the server itself gives up on PostgreSQL earlier. */
const ANSWER_DEADLINE_MS = 30_000;
/** Longest answer taken, bytes: what is longer does not come from a control API. */
const MAX_ANSWER_LENGTH = 64 * 1024 * 1024;

/**
 * Makes a request of the control API and hands the answer on, or prints the curl line when that is asked for.
 * Throws what the API answered, `unreachable` when nothing did, `protocol` when something else did.
 */
export async function callApi<Body>(
  call: ApiRequest,
  { options, context, show }: {
    readonly options: GlobalOptions;
    readonly context: Context;
    readonly show: (answer: ApiAnswer<Body>) => number;
  },
): Promise<number> {
  const endpoint = await findEndpoint(options, context);
  if (options.asCurl) {
    context.print(formatCurl(call, endpoint));
    return 0;
  }
  return show(await requestApi<Body>(call, endpoint));
}

/** Makes one request; see {@link callApi}. */
export async function requestApi<Body>(call: ApiRequest, endpoint: Endpoint): Promise<ApiAnswer<Body>> {
  const headers: Record<string, string> = { accept: "application/json" };
  if (endpoint.tokenFile !== null) {
    headers.authorization = `Bearer ${await readSecretFile(endpoint.tokenFile)}`;
  }
  const body = call.body === undefined ? undefined : JSON.stringify(call.body);
  if (body !== undefined) headers["content-type"] = "application/json";
  let response: IncomingMessage;
  let text: string;
  try {
    response = await send(call, { endpoint, headers, body });
    text = await readText(response);
  } catch (error) {
    throw unreachable(error as NodeJS.ErrnoException, endpoint, deadlineMs(call));
  }
  return readAnswer<Body>(response.statusCode ?? 0, { text, endpoint });
}

function deadlineMs({ mayTakeMs = 0 }: ApiRequest): number {
  return ANSWER_DEADLINE_MS + mayTakeMs;
}

function send(
  { method, path, mayTakeMs }: ApiRequest,
  { endpoint: { place }, headers, body }: {
    readonly endpoint: Endpoint;
    readonly headers: Record<string, string>;
    readonly body: string | undefined;
  },
): Promise<IncomingMessage> {
  const target = "socket" in place ? { socketPath: place.socket, host: "localhost" } : place.address;
  return new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(deadlineMs({ method, path, mayTakeMs }));
    request({ ...target, method, path, headers, signal, agent: false }, resolve).on("error", reject).end(
      body,
    );
  });
}

async function readText(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of response) {
    chunks.push(chunk);
    length += chunk.length;
    if (length > MAX_ANSWER_LENGTH) throw new Error(`the answer is longer than ${MAX_ANSWER_LENGTH} bytes`);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function readAnswer<Body>(
  status: number,
  { text, endpoint }: { readonly text: string; readonly endpoint: Endpoint },
): ApiAnswer<Body> {
  const body = text === "" ? undefined : parseJson(text);
  if (status >= 200 && status < 300 && body !== null) return { status, body: body as Body };
  if (isProblem(body)) throw problemError(body);
  throw new MmliteError(
    "protocol",
    `Cannot understand ${describeEndpoint(endpoint)}: HTTP status ${status}`,
    {
      hint:
        "Check that --api is the address of mmlite's control API, not of its peer port or another program",
    },
  );
}

/** The value, or null for what is no JSON. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function isProblem(body: unknown): body is Problem {
  return typeof body === "object" && body !== null && "kind" in body && "detail" in body && "hint" in body;
}

/** The detail tells the first of several faults already. */
function problemError({ kind, detail, hint, errors = [] }: Problem): MmliteError {
  const fields = errors.slice(1).map(({ pointer, message }) => `; ${pointer}: ${message}`).join("");
  return new MmliteError(isErrorKind(kind) ? kind : "internal", `${detail}${fields}`, { hint });
}

function unreachable(
  cause: NodeJS.ErrnoException,
  endpoint: Endpoint,
  deadlineMs: number,
): MmliteError {
  const place = describeEndpoint(endpoint);
  if (cause.code === "EACCES") {
    return new MmliteError("forbidden", `Cannot open the control API at ${place}: permission denied`, {
      hint: "Run the command as the socket's owner or as a member of its group",
      cause,
    });
  }
  const why = cause.name === "TimeoutError" || cause.code === "ABORT_ERR"
    ? `no answer within ${deadlineMs / 1000} s`
    : cause.message;
  return new MmliteError("unreachable", `Cannot reach the control API at ${place}: ${why}`, {
    hint: "Is mmlite running here? Start it with `mmlite run`, or name its address with --api",
    cause,
  });
}
