import assert from "node:assert/strict";
import type { z } from "@hono/zod-openapi";
import { ERROR_POLICY, type ErrorKind, MmliteError } from "../errors.ts";
import { testPeer } from "../../tests/support/test_control.ts";
import { type Call, withApi } from "../../tests/support/test_api.ts";
import type { TestResponse } from "../../tests/support/http_request.ts";
import { MAX_BODY_BYTES } from "./body.ts";
import * as conflictSchemas from "./conflict_schemas.ts";
import * as inviteSchemas from "./invite_schemas.ts";
import * as jobSchemas from "./job_schemas.ts";
import * as patternSchemas from "./pattern_schemas.ts";
import * as quarantineSchemas from "./quarantine_schemas.ts";
import * as tokenSchemas from "./token_schemas.ts";
import * as removalSchemas from "./removal_schemas.ts";
import * as nodeSchemas from "./schemas.ts";

const URL_BODY = JSON.stringify({ url: "https://fra.example:7432" });

/** Checks that an answer is a whole problem document of the status and kind. */
function assertProblem(answer: TestResponse, status: number, kind: ErrorKind): nodeSchemas.Problem {
  assert.equal(answer.status, status, answer.text);
  assert.equal(answer.headers["content-type"], "application/problem+json");
  const problem = nodeSchemas.Problem.parse(answer.json);
  assert.deepEqual(problem, answer.json);
  assert.equal(problem.status, status);
  assert.equal(problem.kind, kind);
  assert.equal(problem.type, `urn:mmlite:problem:${kind}`);
  assert.match(problem.detail, /^Cannot [^\n]*[^.]$/);
  assert.notEqual(problem.hint, "");
  return problem;
}

const schemas = {
  ...nodeSchemas,
  ...inviteSchemas,
  ...conflictSchemas,
  ...jobSchemas,
  ...patternSchemas,
  ...quarantineSchemas,
  ...tokenSchemas,
  ...removalSchemas,
};

/** One request for every operation of the OpenAPI document, in an order in which each of them succeeds. */
const SAMPLES: readonly [operation: string, path: string, body?: string][] = [
  ["get /livez", "/livez"],
  ["get /readyz", "/readyz?verbose"],
  ["get /metrics", "/metrics"],
  ["get /version", "/version"],
  ["get /openapi.json", "/openapi.json"],
  ["get /v1/status", "/v1/status"],
  ["get /v1/tables", "/v1/tables"],
  ["get /v1/tables/{table}", "/v1/tables/public.users"],
  ["put /v1/tables/{table}", "/v1/tables/public.users", '{"policy":"error"}'],
  ["delete /v1/tables/{table}", "/v1/tables/public.users"],
  ["post /v1/tables/{table}/clear", "/v1/tables/public.users/clear"],
  ["put /v1/tables/patterns/{pattern}", "/v1/tables/patterns/app.*", '{"kind":"exclude"}'],
  ["get /v1/tables/patterns", "/v1/tables/patterns"],
  ["delete /v1/tables/patterns/{pattern}", "/v1/tables/patterns/app.*"],
  ["get /v1/conflicts", "/v1/conflicts?since=1h&limit=1"],
  ["get /v1/conflicts/{id}", "/v1/conflicts/1"],
  ["get /v1/events", "/v1/events"],
  ["get /v1/token", "/v1/token?own"],
  ["get /v1/wait", "/v1/wait?token=mmpos1_x&timeout=1s"],
  ["get /v1/peers", "/v1/peers"],
  ["get /v1/peers/{name}", "/v1/peers/fra"],
  ["put /v1/peers/{name}", "/v1/peers/fra", URL_BODY],
  ["put /v1/peers/{name}", "/v1/peers/edge-9", URL_BODY],
  ["post /v1/peers/{name}/pause", "/v1/peers/fra/pause"],
  ["post /v1/peers/{name}/resume", "/v1/peers/fra/resume"],
  ["post /v1/peers/{name}/renew", "/v1/peers/fra/renew"],
  ["post /v1/peers/{name}/retry", "/v1/peers/fra/retry"],
  ["post /v1/peers/{name}/skip", "/v1/peers/fra/skip", '{"lsn":"16/B374D900"}'],
  ["get /v1/quarantine", "/v1/quarantine?limit=10"],
  ["get /v1/quarantine/{id}", "/v1/quarantine/1"],
  ["post /v1/quarantine/{id}/retry", "/v1/quarantine/1/retry"],
  ["delete /v1/quarantine/{id}", "/v1/quarantine/2"],
  ["delete /v1/peers/{name}", "/v1/peers/fra"],
  ["delete /v1/peers/{name}", "/v1/peers/fra?force=true"],
  ["post /v1/jobs", "/v1/jobs", '{"type":"verify"}'],
  ["get /v1/jobs", "/v1/jobs"],
  ["get /v1/jobs/{id}", "/v1/jobs/1"],
  ["delete /v1/jobs/{id}", "/v1/jobs/1"],
  ["post /v1/invites", "/v1/invites", "{}"],
  ["get /v1/invites", "/v1/invites"],
  ["delete /v1/invites/{id}", `/v1/invites/${"0".repeat(16)}`],
];

Deno.test("the OpenAPI document lists every route, and every answer is what it declares", async () => {
  await withApi(async (call) => {
    const document = (await call("GET", "/openapi.json")).json;
    assert.equal(document.openapi, "3.1.0");
    assert.equal(document.info.version, "1.2.3");
    const listed = Object.entries(document.paths as Record<string, object>)
      .flatMap(([path, item]) => Object.keys(item).map((method) => `${method} ${path}`));
    assert.deepEqual(new Set(listed), new Set(SAMPLES.map(([operation]) => operation)));
    for (const [operation, path, body] of SAMPLES) {
      const [method, pattern] = operation.split(" ");
      assertDeclared(
        await call(method.toUpperCase(), path, { body }),
        document.paths[pattern][method],
        operation,
      );
    }
  });
});

/** Checks status, content type and schema of an answer against an operation of the document. */
// deno-lint-ignore no-explicit-any
function assertDeclared(answer: TestResponse, operation: any, name: string): void {
  const declared = operation.responses[String(answer.status)];
  assert.ok(declared !== undefined && answer.status < 300, `${name}: ${answer.status} ${answer.text}`);
  const content = Object.entries(declared.content ?? {}) as [string, { schema: { $ref?: string } }][];
  if (content.length === 0) return assert.equal(answer.text, "", name);
  const [[type, { schema }]] = content;
  assert.equal(answer.headers["content-type"]?.split(";")[0], type, name);
  if (schema.$ref === undefined) return;
  const known =
    schemas[schema.$ref.replace("#/components/schemas/", "") as keyof typeof schemas] as z.ZodType;
  // Keys that the schema does not know fall away when it parses.
  assert.deepEqual(known.parse(answer.json), answer.json, name);
}

Deno.test("every reference of the OpenAPI document resolves", async () => {
  await withApi(async (call) => {
    const { json: document, text } = await call("GET", "/openapi.json");
    const references = [...text.matchAll(/"\$ref":"#\/components\/schemas\/([^"]+)"/g)].map((match) =>
      match[1]
    );
    assert.ok(references.length > 20);
    for (const name of references) assert.ok(document.components.schemas[name], name);
    for (const [path, item] of Object.entries(document.paths as Record<string, Record<string, unknown>>)) {
      const named = [...path.matchAll(/\{(\w+)\}/g)].map((match) => match[1]);
      for (const operation of Object.values(item) as { parameters?: { in: string; name: string }[] }[]) {
        const declared = (operation.parameters ?? []).filter((one) => one.in === "path").map((one) =>
          one.name
        );
        assert.deepEqual(declared, named, path);
      }
    }
  });
});

Deno.test("PUT creates a peer once, replaces it after, and says so", async () => {
  await withApi(async (call, control) => {
    const body = JSON.stringify({ url: "http://edge.example:7432" });
    const created = await call("PUT", "/v1/peers/edge-9", { body });
    assert.equal(created.status, 201);
    assert.equal(created.headers.location, "/v1/peers/edge-9");
    const again = await call("PUT", "/v1/peers/edge-9", { body });
    assert.equal(again.status, 200);
    assert.equal(again.headers.location, undefined);
    assert.equal(again.headers.etag, created.headers.etag);
    assert.equal(control.peers.get("edge-9")?.url, "http://edge.example:7432");
  });
});

Deno.test("a peer without a URL is one that dials this node", async () => {
  await withApi(async (call, control) => {
    assert.equal((await call("PUT", "/v1/peers/edge-9", { body: "{}" })).json.url, null);
    assert.equal((await call("PUT", "/v1/peers/fra", { body: '{"url":null}' })).status, 200);
    assert.equal(control.peers.get("fra")?.url, null);
  });
});

Deno.test("a dry run answers as the change would and changes nothing", async () => {
  await withApi(async (call, control) => {
    const before = structuredClone([...control.peers]);
    assert.equal((await call("PUT", "/v1/peers/edge-9?dry_run=true", { body: URL_BODY })).status, 201);
    assert.equal(
      (await call("PUT", "/v1/peers/fra?dry_run", { body: '{"url":"http://other:1"}' })).status,
      200,
    );
    assert.equal((await call("POST", "/v1/peers/fra/pause?dry_run=true")).status, 202);
    assertProblem(await call("POST", "/v1/peers/none/pause?dry_run=true"), 404, "not_found");
    assert.deepEqual([...control.peers], before);
    assert.equal((await call("PUT", "/v1/peers/edge-9?dry_run=false", { body: URL_BODY })).status, 201);
    assert.equal(control.peers.has("edge-9"), true);
  });
});

Deno.test("conditions on a change are met or answered with 412", async () => {
  await withApi(async (call, control) => {
    const { etag } = (await call("GET", "/v1/peers/fra")).headers;
    control.peers.set("fra", { ...control.peers.get("fra")!, sent_lsn: "0/99", state: "backoff" });
    const put = (path: string, headers: Record<string, string>) =>
      call("PUT", path, { headers, body: URL_BODY });
    assert.equal((await put("/v1/peers/fra", { "if-match": `"other", ${etag}` })).status, 200);
    assert.equal((await put("/v1/peers/fra", { "if-match": "*" })).status, 200);
    assertProblem(await put("/v1/peers/fra", { "if-match": '"other"' }), 412, "precondition_failed");
    assertProblem(await put("/v1/peers/new", { "if-match": "*" }), 412, "precondition_failed");
    assertProblem(await put("/v1/peers/fra", { "if-none-match": "*" }), 412, "precondition_failed");
    assert.equal((await put("/v1/peers/new", { "if-none-match": "*" })).status, 201);
    const refused = await call("DELETE", "/v1/peers/fra", { headers: { "if-match": '"other"' } });
    assertProblem(refused, 412, "precondition_failed");
    assert.equal(control.peers.get("fra")?.removing, false);
  });
});

Deno.test("pause, resume, retry and delete reach the node", async () => {
  await withApi(async (call, control) => {
    assert.equal((await call("POST", "/v1/peers/fra/pause")).json.state, "paused");
    assert.equal((await call("POST", "/v1/peers/fra/resume")).json.state, "connecting");
    assert.equal((await call("POST", "/v1/peers/fra/retry")).status, 202);
    assert.deepEqual(control.retried, ["fra"]);
    const draining = await call("DELETE", "/v1/peers/fra");
    assert.equal(draining.status, 202);
    assert.equal(draining.json.removing, true);
    const preview = await call("DELETE", "/v1/peers/fra?dry_run=true");
    assert.equal(preview.status, 200);
    assert.equal(preview.json.removed, false);
    const forced = await call("DELETE", "/v1/peers/fra?force=true");
    assert.equal(forced.status, 200);
    assert.equal(forced.json.removed, true);
    assert.equal(forced.json.undelivered.changes, 2);
    assertProblem(await call("DELETE", "/v1/peers/fra"), 404, "not_found");
  });
});

Deno.test("a node that is not ready answers 503 and lists what failed when asked", async () => {
  await withApi(async (call, control) => {
    assert.equal((await call("GET", "/readyz")).text, "ready\n");
    const failed = { name: "slots", ok: false, message: "none is free" };
    control.state = { ready: false, checks: [{ name: "postgres", ok: true, message: "" }, failed] };
    const answer = await call("GET", "/readyz");
    assert.deepEqual([answer.status, answer.text], [503, "not ready\n"]);
    const verbose = await call("GET", "/readyz?verbose");
    assert.deepEqual([verbose.status, verbose.text], [
      503,
      "[+] postgres\n[-] slots: none is free\nnot ready\n",
    ]);
    assert.deepEqual((await call("GET", "/livez")).text, "ok\n");
  });
});

Deno.test("tables are found by schema and name, quoted or not", async () => {
  await withApi(async (call) => {
    assert.equal((await call("GET", "/v1/tables/public.users")).json.name, "users");
    const quoted = encodeURIComponent('"odd.schema"."a ""b"""');
    assert.equal((await call("GET", `/v1/tables/${quoted}`)).json.name, 'a "b"');
    assertProblem(await call("GET", "/v1/tables/public.none"), 404, "not_found");
    for (const name of ["users", "a.b.c", ".users", "public."]) {
      assertProblem(await call("GET", `/v1/tables/${name}`), 400, "invalid_input");
    }
  });
});

Deno.test("what is no peer is refused with a pointer to each fault", async () => {
  const faults: [body: unknown, pointers: string[], hint?: RegExp][] = [
    [{ url: 7 }, ["/url"]],
    [{ url: "fra.example:7432" }, ["/url"]],
    [{ url: "ftp://fra.example" }, ["/url"]],
    [{ url: "https://" }, ["/url"]],
    [{ url: "https://user:pass@fra.example" }, ["/url"]],
    [{ url: "https://fra.example/path?query" }, ["/url"]],
    [{ url: `https://${"a".repeat(3000)}` }, ["/url"]],
    [{ urll: "https://fra.example" }, ["/urll"], /^Did you mean "url" instead of "urll"\?$/],
    [{ url: "https://fra.example", "a/b~c": 1 }, ["/a~1b~0c"], /^Known here: url$/],
    [[], [""]],
    [null, [""]],
  ];
  await withApi(async (call, control) => {
    for (const [body, pointers, hint] of faults) {
      const problem = assertProblem(
        await call("PUT", "/v1/peers/edge-9", { body: JSON.stringify(body) }),
        422,
        "invalid_input",
      );
      assert.deepEqual([...new Set(problem.errors?.map((fault) => fault.pointer))].sort(), pointers);
      if (hint !== undefined) assert.match(problem.hint, hint);
      assert.equal(JSON.stringify(problem).includes("user:pass"), false);
    }
    assert.equal(control.peers.has("edge-9"), false);
  });
});

Deno.test("an unknown query parameter or a name that cannot be is refused", async () => {
  await withApi(async (call) => {
    const query = assertProblem(
      await call("PUT", "/v1/peers/fra?dryrun=true", { body: URL_BODY }),
      422,
      "invalid_input",
    );
    assert.equal(query.hint, 'Did you mean "dry_run" instead of "dryrun"?');
    assertProblem(await call("DELETE", "/v1/peers/fra?force=maybe"), 422, "invalid_input");
    assertProblem(await call("GET", "/v1/peers?limit=5"), 422, "invalid_input");
    for (const name of ["FRA", "a.b", "-a", "a".repeat(41), "%zz", "..%2f", "%00"]) {
      assertProblem(await call("PUT", `/v1/peers/${name}`, { body: URL_BODY }), 422, "invalid_input");
    }
  });
});

Deno.test("bodies that cannot be read are refused, each with its status", async () => {
  await withApi(async (call) => {
    const put = (body: string, headers?: Record<string, string>) =>
      call("PUT", "/v1/peers/fra", { body, headers });
    assertProblem(await put("{"), 400, "invalid_input");
    assertProblem(await put(URL_BODY, { "content-type": "text/plain" }), 415, "invalid_input");
    assertProblem(
      await put("url=x", { "content-type": "application/x-www-form-urlencoded" }),
      415,
      "invalid_input",
    );
    const long = JSON.stringify({ url: "x".repeat(MAX_BODY_BYTES) });
    assertProblem(await put(long), 413, "invalid_input");
    assertProblem(await put(long, { "transfer-encoding": "chunked" }), 413, "invalid_input");
    assertProblem(await call("PUT", "/v1/peers/fra"), 400, "invalid_input");
    const unsized = { "transfer-encoding": "chunked", "content-type": "application/json; charset=utf-8" };
    assert.equal((await put(URL_BODY, unsized)).status, 200);
  });
});

Deno.test("what is not there answers 404, what is there for other methods 405", async () => {
  await withApi(async (call) => {
    for (const path of ["/v2/status", "/v1/peers/", "/v1/peers/fra/", "/v1/peers/fra/skips", "/v1"]) {
      assertProblem(await call("GET", path), 404, "not_found");
    }
    const allowed = async (method: string, path: string) => {
      const answer = await call(method, path);
      assertProblem(answer, 405, "usage");
      return answer.headers.allow;
    };
    assert.equal(await allowed("DELETE", "/v1/status"), "GET, HEAD");
    assert.equal(await allowed("POST", "/v1/peers/fra"), "GET, HEAD, PUT, DELETE");
    assert.equal(await allowed("GET", "/v1/peers/fra/pause"), "POST");
    assert.equal(await allowed("OPTIONS", "/v1/peers"), "GET, HEAD");
    const head = await call("HEAD", "/v1/status");
    assert.deepEqual([head.status, head.text], [200, ""]);
  });
});

Deno.test("each kind of error has its status, message and hint", async () => {
  await withApi(async (call, control) => {
    for (const kind of Object.keys(ERROR_POLICY) as ErrorKind[]) {
      control.failure = new MmliteError(kind, `Cannot show "this"`, { hint: "Do that" });
      const problem = assertProblem(await call("GET", "/v1/status"), ERROR_POLICY[kind].httpStatus, kind);
      assert.equal(problem.detail, `Cannot show "this"`);
      assert.equal(problem.hint, "Do that");
      assert.equal(problem.title, ERROR_POLICY[kind].title);
    }
  });
});

Deno.test("an unexpected error says nothing of its own message", async () => {
  await withApi(async (call, control) => {
    for (const failure of [new Error("invalid input: secret row value"), "secret row value", null]) {
      control.failure = failure;
      const answer = await call("GET", "/v1/status");
      if (failure === null) assertProblem(answer, 500, "internal");
      else assert.equal(assertProblem(answer, 500, "internal").detail.includes("secret"), false);
    }
  });
});

Deno.test("every answer forbids caching and guessing of its type", async () => {
  await withApi(async (call: Call) => {
    for (const path of ["/livez", "/v1/peers/fra", "/nothing"]) {
      const { headers } = await call("GET", path);
      assert.equal(headers["cache-control"], "no-store", path);
      assert.equal(headers["x-content-type-options"], "nosniff", path);
    }
  });
});

Deno.test("the schema of a status refuses what breaks the conventions of the API", () => {
  const peer = testPeer("fra", "https://fra.example:7432");
  const broken = [{ sent_lsn: "0/zz" }, { lag_bytes: 12 }, { since: "2026-11-22 10:00" }, {
    state: "running",
  }];
  for (const change of broken) {
    assert.equal(schemas.PeerStatus.safeParse({ ...peer, ...change }).success, false);
  }
});
