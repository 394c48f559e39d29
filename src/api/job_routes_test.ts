import assert from "node:assert/strict";
import { withApi } from "../../tests/support/test_api.ts";

Deno.test("a job is begun, listed without its result, shown and removed", async () => {
  await withApi(async (call, control) => {
    const body = JSON.stringify({ type: "verify", tables: ["public.*"], peers: ["fra"], share: 0.5 });
    const made = await call("POST", "/v1/jobs", { body });
    assert.deepEqual([made.status, made.headers.location], [202, "/v1/jobs/1"]);
    assert.deepEqual(made.json.input, {
      ...{ type: "verify", tables: ["public.*"], peers: ["fra"], share: 0.5, limit: 10_000 },
      settle_seconds: 60,
    });
    const { json: { items } } = await call("GET", "/v1/jobs");
    assert.deepEqual(items.map(({ id, state }: { id: string; state: string }) => [id, state]), [[
      "1",
      "queued",
    ]]);
    assert.equal((await call("GET", "/v1/jobs/1")).json.result, null);
    assert.equal((await call("DELETE", "/v1/jobs/1")).status, 204);
    assert.equal(control.jobs.length, 0);
    assert.equal((await call("GET", "/v1/jobs/1")).json.kind, "not_found");
  });
});

Deno.test("repairs are jobs, of some tables or of one", async () => {
  await withApi(async (call) => {
    const more = { share: 1, limit: 10_000, settle_seconds: 60 };
    for (
      const input of [
        { type: "repair", source: "fra", newest: false, tables: ["public.*"], dry_run: true },
        { type: "repair", newest: true, peer: "fra", dry_run: false },
        { type: "resync", table: "public.t", from: "fra", dry_run: false },
      ]
    ) {
      const { status, json } = await call("POST", "/v1/jobs", { body: JSON.stringify(input) });
      assert.equal(status, 202);
      assert.deepEqual(json.input, { ...input, ...more });
    }
  });
});

Deno.test("a job that means nothing is refused with a pointer", async () => {
  await withApi(async (call, control) => {
    const wrong: [object, string, RegExp?][] = [
      [{}, "/type"],
      [{ type: "dance" }, "/type"],
      [{ type: "verify", share: 0 }, "/share"],
      [{ type: "verify", tables: [] }, "/tables"],
      [{ type: "verify", tables: ["public.a\0"] }, "/tables/0"],
      [{ type: "verify", tables: ["public.*", "public.\ud800"] }, "/tables/1"],
      [{ type: "verify", peers: ["A"] }, "/peers/0"],
      [{ type: "verify", table: ["a.b"] }, "/table", /Did you mean "tables"/],
      [{ type: "repair" }, "/source"],
      [{ type: "repair", source: "A" }, "/source"],
      [{ type: "repair", source: "fra", newest: true }, "/source"],
      [{ type: "repair", source: "fra", peer: "fra" }, "/peer"],
      [{ type: "copy", from: "fra", mode: "most" }, "/mode"],
      [{ type: "repair", source: "fra", dry_run: "no" }, "/dry_run"],
      [{ type: "resync", from: "fra" }, "/table"],
      [{ type: "resync", table: "a.b" }, "/from"],
    ];
    for (const [body, pointer, hint] of wrong) {
      const { status, json } = await call("POST", "/v1/jobs", { body: JSON.stringify(body) });
      assert.deepEqual([status, json.errors[0].pointer], [422, pointer]);
      if (hint) assert.match(json.hint, hint);
    }
    assert.equal(control.jobs.length, 0);
  });
});
