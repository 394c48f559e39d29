/**
 * One HTTP request with every header as the test says, `Host` and `Origin` included, to a port or a unix socket.
 */
import { once } from "node:events";
import { type IncomingHttpHeaders, type IncomingMessage, request } from "node:http";

/** Where a request goes and what it says. */
export interface TestRequest {
  readonly to: { readonly port: number } | { readonly socketPath: string };
  readonly method?: string;
  readonly path: string;
  readonly headers?: Record<string, string>;
  readonly body?: string;
}

/** What came back; `json` is undefined if the body is none. */
export interface TestResponse {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  // deno-lint-ignore no-explicit-any
  readonly json: any;
}

/** Sends a request on a connection of its own and reads the whole answer. */
export async function httpRequest(
  { to, path, method = "GET", headers, body }: TestRequest,
): Promise<TestResponse> {
  const target = "port" in to ? { host: "127.0.0.1", port: to.port } : { socketPath: to.socketPath };
  const sent = request({ ...target, path, method, headers: { ...headers, connection: "close" } });
  sent.end(body);
  const [answer] = await once(sent, "response") as [IncomingMessage];
  // A server that has refused a request need not read the rest of it.
  sent.on("error", () => {});
  let text = "";
  for await (const chunk of answer.setEncoding("utf8")) text += chunk;
  const isJson = text !== "" && /json/.test(answer.headers["content-type"] ?? "");
  return {
    status: answer.statusCode ?? 0,
    headers: answer.headers,
    text,
    json: isJson ? JSON.parse(text) : undefined,
  };
}
