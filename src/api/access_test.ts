import assert from "node:assert/strict";
import type { MmliteError } from "../errors.ts";
import { createTestControl } from "../../tests/support/test_control.ts";
import { type Call, withApi } from "../../tests/support/test_api.ts";
import { createApi } from "./app.ts";

const TOKEN = "9f2c-token";

async function statusWith(call: Call, headers: Record<string, string>): Promise<number> {
  const answer = await call("GET", "/v1/peers", { headers });
  if (answer.status !== 200) assert.equal(answer.headers["content-type"], "application/problem+json");
  return answer.status;
}

Deno.test("a Host header that is no name of this node is refused", async () => {
  await withApi(async (call) => {
    const ours = ["localhost", "LOCALHOST:7433", "localhost.", "127.0.0.1", "127.0.0.1:1", "[::1]:7433"];
    for (const host of [...ours, "db.example", "DB.example:80"]) {
      assert.equal(await statusWith(call, { host }), 200, host);
    }
    const foreign = ["evil.example", "evil.example:7433", "localhost.evil.example", "127.0.0.1.evil.example"];
    for (const host of [...foreign, "10.0.0.1", "[fe80::1]", "0.0.0.0", "db.example.evil"]) {
      assert.equal(await statusWith(call, { host }), 403, host);
    }
    for (const host of ["local host", "a@localhost", "localhost/x", "[::1"]) {
      assert.ok([400, 403].includes(await statusWith(call, { host })), host);
    }
  }, { advertisedHosts: ["DB.example"] });
});

Deno.test("behind every address, any address is ours but no foreign name", async () => {
  await withApi(async (call) => {
    const authorization = `Bearer ${TOKEN}`;
    assert.equal(await statusWith(call, { authorization, host: "10.0.0.1:7433" }), 200);
    assert.equal(await statusWith(call, { authorization, host: "[fe80::1]:7433" }), 200);
    assert.equal(await statusWith(call, { authorization, host: "evil.example" }), 403);
  }, { address: { host: "0.0.0.0", port: 7433 }, token: TOKEN });
});

Deno.test("a page of another origin is refused, one of our own is not", async () => {
  await withApi(async (call) => {
    const host = "localhost:7433";
    assert.equal(await statusWith(call, { host, origin: "http://localhost:7433" }), 200);
    for (
      const origin of ["http://localhost:3000", "https://evil.example", "null", "", "http://127.0.0.1:7433"]
    ) {
      assert.equal(await statusWith(call, { host, origin }), 403, origin);
    }
    const answer = await call("POST", "/v1/peers/fra/pause", { headers: { origin: "https://evil.example" } });
    assert.equal(answer.status, 403);
    assert.equal(answer.headers["access-control-allow-origin"], undefined);
  });
});

Deno.test("with a token, requests without it are refused", async () => {
  await withApi(async (call, control) => {
    assert.equal(await statusWith(call, { authorization: `Bearer ${TOKEN}` }), 200);
    assert.equal(await statusWith(call, { authorization: `bearer ${TOKEN}` }), 200);
    const wrong = [`Bearer ${TOKEN}x`, `Bearer ${TOKEN.slice(1)}`, "Bearer ", TOKEN, `Basic ${TOKEN}`];
    for (const authorization of wrong) {
      assert.equal(await statusWith(call, { authorization }), 401, authorization);
    }
    const none = await call("DELETE", "/v1/peers/fra?force=true");
    assert.equal(none.status, 401);
    assert.equal(none.headers["www-authenticate"], 'Bearer realm="mmlite"');
    assert.equal(none.json.kind, "unauthenticated");
    assert.match(none.json.hint, /token/);
    assert.equal(control.peers.has("fra"), true);
    const refused = await call("GET", "/metrics", { headers: { authorization: "Bearer no" } });
    assert.equal(refused.headers["www-authenticate"], 'Bearer realm="mmlite", error="invalid_token"');
    assert.equal(refused.text.includes(TOKEN), false);
  }, { token: TOKEN });
});

Deno.test("probes need no token as long as they ask for no details", async () => {
  await withApi(async (call) => {
    assert.equal((await call("GET", "/livez")).status, 200);
    assert.equal((await call("GET", "/readyz")).status, 200);
    for (
      const path of ["/readyz?verbose", "/metrics", "/version", "/openapi.json", "/v1/status", "/nothing"]
    ) {
      assert.equal((await call("GET", path)).status, 401, path);
    }
  }, { token: TOKEN });
});

Deno.test("an address that other machines reach is refused without a token", () => {
  const options = { control: createTestControl(), version: "1" };
  for (const host of ["0.0.0.0", "::", "10.0.0.1", "db.example"]) {
    const address = { host, port: 7433 };
    assert.throws(() => createApi({ ...options, address }), (error: MmliteError) => {
      assert.equal(error.kind, "config");
      assert.ok(error.message.includes(host) && error.hint.includes("token"));
      return true;
    });
    createApi({ ...options, address, token: TOKEN });
  }
  for (const host of ["127.0.0.1", "::1", "localhost"]) {
    createApi({ ...options, address: { host, port: 7433 } });
  }
});
