import assert from "node:assert/strict";
import { withApi } from "../../tests/support/test_api.ts";

const PATH = "/v1/tables/public.users";
const body = (value: unknown) => ({ body: JSON.stringify(value) });

Deno.test("a table's policy is set, shown and taken back", async () => {
  await withApi(async (call) => {
    const before = await call("GET", PATH);
    assert.deepEqual([before.json.policy, before.json.policy_from, before.json.diverged], [
      "last_update_wins",
      "default",
      null,
    ]);
    const set = await call("PUT", PATH, body({ policy: "keep_local", types: { update_missing: "error" } }));
    assert.deepEqual([set.status, set.json.policy, set.json.types, set.json.policy_from], [
      200,
      "keep_local",
      { update_missing: "error" },
      "api",
    ]);
    assert.notEqual(set.headers.etag, before.headers.etag);
    assert.equal((await call("GET", PATH)).headers.etag, set.headers.etag);
    assert.equal((await call("DELETE", PATH)).headers.etag, before.headers.etag);
    assert.equal((await call("PUT", "/v1/tables/public.none", body({ policy: "error" }))).status, 404);
  });
});

Deno.test("a dry run of a policy changes nothing, and conditions are met or answered with 412", async () => {
  await withApi(async (call) => {
    const { etag } = (await call("GET", PATH)).headers;
    const dry = await call("PUT", `${PATH}?dry_run`, body({ policy: "error" }));
    assert.deepEqual([dry.status, dry.json.policy], [200, "error"]);
    assert.equal((await call("DELETE", `${PATH}?dry_run`)).status, 200);
    assert.equal((await call("GET", PATH)).headers.etag, etag);
    const put = (match: string) =>
      call("PUT", PATH, { ...body({ policy: "error" }), headers: { "if-match": match } });
    assert.equal((await put('"other"')).json.kind, "precondition_failed");
    assert.equal((await put(etag!)).status, 200);
    assert.equal((await put(etag!)).status, 412);
    assert.equal((await call("DELETE", PATH, { headers: { "if-match": etag! } })).status, 412);
  });
});

Deno.test("what is no policy is refused with a pointer to the fault", async () => {
  await withApi(async (call) => {
    const wrong: [unknown, string, RegExp?][] = [
      [{ policy: "newest" }, "/policy"],
      [{}, "/policy"],
      [{ polic: "error", policy: "error" }, "/polic", /Did you mean "policy"/],
      [{ policy: "error", types: { update_missing: "newest" } }, "/types/update_missing"],
      [{ policy: "error", types: { update_mising: "error" } }, "/types/update_mising"],
    ];
    for (const [value, pointer, hint] of wrong) {
      const { status, json } = await call("PUT", PATH, body(value));
      assert.deepEqual([status, json.errors[0].pointer], [422, pointer]);
      if (hint) assert.match(json.hint, hint);
    }
    assert.equal((await call("PUT", PATH)).status, 422);
  });
});

Deno.test("the mark of a diverged table is shown, and cleared", async () => {
  await withApi(async (call, control) => {
    const diverged = { since: "2026-11-22T10:00:00.000001Z", reason: "a unique key was violated" };
    control.tables[1] = { ...control.tables[1], diverged };
    assert.deepEqual((await call("GET", PATH)).json.diverged, diverged);
    assert.equal((await call("POST", `${PATH}/clear?dry_run`)).json.diverged, null);
    assert.deepEqual((await call("GET", PATH)).json.diverged, diverged);
    assert.deepEqual([(await call("POST", `${PATH}/clear`)).status, control.tables[1].diverged], [200, null]);
    assert.equal((await call("POST", "/v1/tables/public.none/clear")).status, 404);
  });
});
