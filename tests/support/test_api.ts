/**
 * The control API of a {@link TestControl}, served on a free port for the length of one test.
 */
import { type ApiOptions, createApi } from "../../src/api/app.ts";
import { serveApi } from "../../src/api/server.ts";
import { httpRequest, type TestRequest, type TestResponse } from "./http_request.ts";
import { createTestControl, type TestControl, testPeer, testTable } from "./test_control.ts";

/** Sends a request to the API under test; JSON bodies get their content type. */
export type Call = (method: string, path: string, options?: Partial<TestRequest>) => Promise<TestResponse>;

/** Runs a test against a served API with peers `fra` and `nyc` and tables `public.users`, `public.orders`. */
export async function withApi(
  test: (call: Call, control: TestControl) => Promise<void>,
  options: Partial<ApiOptions> = {},
): Promise<void> {
  const control = createTestControl({
    peers: [testPeer("fra", "https://fra.example:7432"), testPeer("nyc", "https://nyc.example:7432")],
    tables: [testTable("public", "orders"), testTable("public", "users"), testTable("odd.schema", 'a "b"')],
  });
  const api = createApi({ control, version: "1.2.3", address: { host: "127.0.0.1", port: 0 }, ...options });
  const server = await serveApi({ api, address: { host: "127.0.0.1", port: 0 } });
  const to = { port: server.address!.port };
  try {
    await test((method, path, { headers, ...rest } = {}) => {
      const json: Record<string, string> = rest.body === undefined
        ? {}
        : { "content-type": "application/json" };
      return httpRequest({ to, method, path, headers: { ...json, ...headers }, ...rest });
    }, control);
  } finally {
    await server.close();
  }
}
