import assert from "node:assert/strict";
import { request } from "node:http";
import { withApi } from "../../tests/support/test_api.ts";
import { eventually } from "../../tests/support/poll.ts";
import { MmliteError } from "../errors.ts";
import type { BehindNode } from "./schemas.ts";
import { createApi } from "./app.ts";
import { serveApi } from "./server.ts";
import { createTestControl } from "../../tests/support/test_control.ts";

const BEHIND: BehindNode = {
  node: "fra",
  wanted_lsn: "0/2",
  applied_lsn: "0/1",
  behind_bytes: "1",
  inbound_state: "disconnected",
  last_error: null,
};

Deno.test("a token is given, of all or of this node alone", async () => {
  await withApi(async (call, control) => {
    const { status, json, headers } = await call("GET", "/v1/token");
    assert.equal(status, 200);
    assert.deepEqual(json, {
      token: "mmpos1_x",
      positions: [{ node: "ams", lsn: "16/B374D848" }],
    });
    assert.equal(headers["cache-control"], "no-store");
    for (const query of ["?own", "?own=true", "?own=false"]) await call("GET", `/v1/token${query}`);
    assert.deepEqual(control.asked, [false, true, true, false].map((own) => ({ own })));
    assert.equal((await call("GET", "/v1/token?own=maybe")).status, 422);
    assert.equal((await call("POST", "/v1/token")).status, 405);
  });
});

Deno.test("a wait answers once all is there, and takes five seconds unless told", async () => {
  await withApi(async (call, control) => {
    const { status, json } = await call("GET", "/v1/wait?token=mmpos1_x");
    assert.deepEqual([status, json], [200, { reached: true, waited_seconds: 0.012 }]);
    for (const timeout of ["0s", "500ms", "30s", "10m"]) {
      await call("GET", `/v1/wait?token=mmpos1_x&timeout=${timeout}`);
    }
    const asked = [5_000, 0, 500, 30_000, 600_000];
    assert.deepEqual(control.asked, asked.map((timeoutMs) => ({ token: "mmpos1_x", timeoutMs })));
  });
});

Deno.test("a wait that cannot be is refused with the fault", async () => {
  await withApi(async (call, control) => {
    const wrong: [query: string, detail: RegExp][] = [
      ["", /\/token: /],
      ["token=x&timeout=5", /\/timeout: expected a number and its unit, such as 500ms, 5s or 2m/],
      ["token=x&timeout=-1s", /\/timeout: /],
      ["token=x&timeout=1h", /\/timeout: /],
      ["token=x&timeout=11m", /\/timeout: expected ten minutes at most/],
      ["token=x&timout=5s", /\/timout: unknown key/],
    ];
    for (const [query, detail] of wrong) {
      const answer = await call("GET", `/v1/wait?${query}`);
      assert.equal(answer.status, 422, query);
      assert.match(answer.json.detail, detail);
    }
    assert.deepEqual(control.asked, []);
    control.wait = () => Promise.reject(new MmliteError("invalid_input", "Cannot read the token: it is cut"));
    const bad = await call("GET", "/v1/wait?token=x");
    assert.deepEqual([bad.status, bad.json.kind], [400, "invalid_input"]);
    control.wait = () => Promise.reject(new MmliteError("conflict", "Cannot wait for the token: of another"));
    const never = await call("GET", "/v1/wait?token=x");
    assert.deepEqual([never.status, never.json.kind], [409, "conflict"]);
  });
});

Deno.test("a wait that takes too long tells what is missing", async () => {
  await withApi(async (call, control) => {
    const error = new MmliteError("timeout", "Cannot wait longer than 5 s: …", { hint: "Allow more time" });
    control.wait = () => Promise.resolve({ reached: false, error, behind: [BEHIND] });
    const { status, json, headers } = await call("GET", "/v1/wait?token=x");
    assert.equal(status, 504);
    assert.equal(headers["content-type"], "application/problem+json");
    assert.deepEqual(json, {
      type: "urn:mmlite:problem:timeout",
      kind: "timeout",
      title: "Not in time",
      status: 504,
      detail: "Cannot wait longer than 5 s: …",
      hint: "Allow more time",
      behind: [BEHIND],
    });
  });
});

Deno.test("a client that goes away while it waits is not waited for", async () => {
  const control = createTestControl();
  const aborted = Promise.withResolvers<void>();
  control.wait = async (signal) => {
    signal.addEventListener("abort", () => aborted.resolve());
    await aborted.promise;
    throw new MmliteError("aborted", "Cannot wait for the token: nobody waits any more");
  };
  const address = { host: "127.0.0.1", port: 0 };
  const server = await serveApi({ api: createApi({ control, version: "1.2.3", address }), address });
  try {
    const waiting = request({ ...server.address!, path: "/v1/wait?token=x" });
    waiting.on("error", () => {});
    waiting.end();
    await eventually("it to wait", () => control.asked.length === 1, { intervalMs: 5 });
    waiting.destroy();
    await aborted.promise;
  } finally {
    await server.close();
  }
});
