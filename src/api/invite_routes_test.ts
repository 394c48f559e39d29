import assert from "node:assert/strict";
import { withApi } from "../../tests/support/test_api.ts";

Deno.test("an invite is made, listed without its token, and withdrawn", async () => {
  await withApi(async (call, control) => {
    const body = JSON.stringify({ name: "fra", ttl_seconds: 90, urls: ["https://ams.example:7432"] });
    const made = await call("POST", "/v1/invites", { body });
    assert.deepEqual([made.status, made.json.name, made.json.urls], [201, "fra", [
      "https://ams.example:7432",
    ]]);
    assert.equal(made.headers.location, `/v1/invites/${made.json.id}`);
    assert.equal(made.headers["cache-control"], "no-store");
    const { json: { items } } = await call("GET", "/v1/invites");
    assert.deepEqual([items.length, items[0].state, items[0].used_by], [1, "open", null]);
    assert.ok(!JSON.stringify(items).includes(made.json.token));
    assert.equal((await call("DELETE", `/v1/invites/${made.json.id}`)).status, 204);
    assert.equal(control.invites.length, 0);
    assert.equal((await call("DELETE", `/v1/invites/${made.json.id}`)).json.kind, "not_found");
    assert.equal((await call("POST", "/v1/invites", { body: "{}" })).json.name, null);
  });
});

Deno.test("an invite that means nothing is refused with a pointer", async () => {
  await withApi(async (call, control) => {
    const wrong: [object, string, RegExp?][] = [
      [{ name: "Fra" }, "/name"],
      [{ ttl_seconds: 0 }, "/ttl_seconds"],
      [{ ttl_seconds: 1e9 }, "/ttl_seconds"],
      [{ urls: ["http://ams.example:7432"] }, "/urls/0"],
      [{ urls: ["https://ams.example:7432/x"] }, "/urls/0"],
      [{ url: "https://ams.example:7432" }, "/url", /Did you mean "urls"/],
    ];
    for (const [body, pointer, hint] of wrong) {
      const { status, json } = await call("POST", "/v1/invites", { body: JSON.stringify(body) });
      assert.deepEqual([status, json.errors[0].pointer], [422, pointer]);
      if (hint) assert.match(json.hint, hint);
    }
    assert.equal((await call("DELETE", "/v1/invites/nothing")).status, 422);
    assert.equal(control.invites.length, 0);
  });
});
