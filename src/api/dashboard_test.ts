import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { withApi } from "../../tests/support/test_api.ts";

Deno.test("the dashboard may run its own script alone, and asks nobody else", async () => {
  await withApi(async (call) => {
    const { status, headers, text } = await call("GET", "/");
    assert.equal(status, 200);
    assert.equal(headers["content-type"], "text/html; charset=UTF-8");
    const policy = String(headers["content-security-policy"]);
    assert.match(
      policy,
      /^default-src 'none'; script-src 'sha256-[\w+/]{43}='; style-src 'sha256-[\w+/]{43}=';/,
    );
    for (const tag of ["script", "style"]) {
      const [, inline] = new RegExp(`<${tag}>([^]*?)</${tag}>`).exec(text)!;
      const digest = createHash("sha256").update(inline).digest("base64");
      assert.ok(policy.includes(`${tag}-src 'sha256-${digest}'`), tag);
      assert.equal(text.split(`<${tag}`).length, 2, `one ${tag}`);
    }
    const addresses = text.match(/https?:\/\/[^\s"]+/g);
    assert.deepEqual(addresses, ["http://www.w3.org/2000/svg"], "a name space, and no address to load from");
  });
});

Deno.test("the dashboard's page is open, and what it shows is not", async () => {
  await withApi(async (call) => {
    assert.equal((await call("GET", "/")).status, 200);
    assert.equal((await call("GET", "/", { headers: { host: "evil.example" } })).status, 403);
    assert.equal((await call("GET", "/v1/status")).status, 401);
    assert.equal((await call("POST", "/")).status, 405);
  }, { token: "9f2c-token" });
});
