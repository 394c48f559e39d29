import assert from "node:assert/strict";
import { testConflict } from "../../tests/support/test_control.ts";
import { withApi } from "../../tests/support/test_api.ts";
import type { ConflictFilter } from "./control.ts";

Deno.test("conflicts are listed without their rows, page by page, and shown with both", async () => {
  await withApi(async (call, control) => {
    control.conflicts.splice(0, 2, ...["30", "20", "10"].map(testConflict));
    const first = (await call("GET", "/v1/conflicts?limit=2")).json;
    assert.deepEqual(first.items.map(({ id }: { id: string }) => id), ["30", "20"]);
    assert.equal(first.next_cursor, "20");
    assert.ok(!JSON.stringify(first).includes("there"), "no row");
    const second = (await call("GET", `/v1/conflicts?limit=2&cursor=${first.next_cursor}`)).json;
    assert.deepEqual([second.items[0].id, second.next_cursor], ["10", null]);
    const { json } = await call("GET", "/v1/conflicts/20");
    assert.deepEqual([json.local.row.name, json.remote.row.name, json.remote.lsn], [
      "here",
      "there",
      "16/B374D848",
    ]);
    assert.equal((await call("GET", "/v1/conflicts/21")).json.kind, "not_found");
  });
});

Deno.test("filters reach the node as they are meant", async () => {
  await withApi(async (call, control) => {
    const asked: ConflictFilter[] = [];
    control.listConflicts = (filter) => {
      asked.push(filter);
      return Promise.resolve({ items: [], next_cursor: null });
    };
    const begun = Date.now();
    await call("GET", '/v1/conflicts?since=90s&table=public."a.b"&type=update_missing&resolution=skipped');
    await call("GET", "/v1/conflicts?since=2026-11-22T10:00:00%2B02:00");
    const [{ since, ...first }, second] = asked;
    const ago = begun - Date.parse(since!);
    assert.ok(ago > 80_000 && ago <= 90_000, `${ago} ms ago`);
    assert.deepEqual(first, {
      table: { schema: "public", name: "a.b" },
      type: "update_missing",
      resolution: "skipped",
      limit: 100,
      before: undefined,
    });
    assert.equal(second.since, "2026-11-22T08:00:00.000Z");
  });
});

Deno.test("what cannot be a filter is refused with the fault", async () => {
  await withApi(async (call) => {
    const wrong: [query: string, status: number, detail: RegExp][] = [
      ["since=yesterday", 400, /since "yesterday": it is no time$/],
      ["since=2026-13-01T00:00:00Z", 400, /it is no time$/],
      ["since=2026", 400, /it is no time$/],
      ["table=users", 400, /expected SCHEMA\.TABLE/],
      ["type=update", 422, /\/type: /],
      ["resolution=kept", 422, /\/resolution: /],
      ["limit=0", 422, /\/limit: expected a number from 1 to 1000/],
      ["limit=1001", 422, /\/limit: /],
      ["limit=x", 422, /\/limit: /],
      ["cursor=x", 422, /\/cursor: expected an id/],
      ["tabel=public.t", 422, /\/tabel: unknown key/],
    ];
    for (const [query, status, detail] of wrong) {
      const answer = await call("GET", `/v1/conflicts?${query}`);
      assert.equal(answer.status, status, query);
      assert.match(answer.json.detail, detail);
    }
    assert.equal((await call("GET", "/v1/conflicts/abc")).status, 422);
    assert.equal((await call("GET", `/v1/conflicts/${"9".repeat(19)}`)).status, 422);
  });
});
