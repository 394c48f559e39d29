import assert from "node:assert/strict";
import { withApi } from "../../tests/support/test_api.ts";

const PATH = "/v1/tables/patterns/app.*";
const body = (value: unknown) => ({ body: JSON.stringify(value) });

Deno.test("a pattern is put, listed beside the tables, and removed", async () => {
  await withApi(async (call) => {
    const put = await call("PUT", PATH, body({}));
    assert.deepEqual([put.status, put.json.pattern, put.json.kind, put.json.from], [
      201,
      "app.*",
      "include",
      "api",
    ]);
    assert.equal((await call("PUT", PATH)).status, 200);
    assert.equal((await call("PUT", PATH, body({ kind: "exclude" }))).json.kind, "exclude");
    const quoted = `/v1/tables/patterns/${encodeURIComponent('app."a.b/c ""*"')}`;
    assert.equal((await call("PUT", quoted, body({}))).json.pattern, 'app."a.b/c ""*"');
    const { json } = await call("GET", "/v1/tables/patterns");
    assert.equal(json.items.length, 2);
    assert.deepEqual((await call("GET", "/v1/tables")).json.patterns, json.items);
    assert.equal((await call("DELETE", PATH)).json.active, false);
    assert.equal((await call("DELETE", PATH)).status, 404);
  });
});

Deno.test("a dry run of a pattern changes nothing, and what is unknown is refused", async () => {
  await withApi(async (call) => {
    assert.equal((await call("PUT", `${PATH}?dry_run`, body({}))).status, 200);
    assert.deepEqual((await call("GET", "/v1/tables/patterns")).json.items, []);
    assert.equal((await call("PUT", PATH, body({ kind: "both" }))).status, 422);
    assert.equal((await call("PUT", PATH, body({ other: 1 }))).status, 422);
    assert.equal((await call("DELETE", `${PATH}?force`)).status, 422);
  });
});
