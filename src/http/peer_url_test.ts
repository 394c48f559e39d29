/** URLs of peers. */
import assert from "node:assert/strict";
import { rejectsWith } from "../../tests/support/peer_ports.ts";
import { addressOf, parsePeerUrl } from "./peer_url.ts";

Deno.test("a peer's URL is a scheme, a host and a port", async () => {
  assert.equal(parsePeerUrl("http://fra.example:7432").port, "7432");
  assert.deepEqual(addressOf(parsePeerUrl("https://[::1]:7432")), { host: "::1", port: 7432 });
  assert.deepEqual(addressOf(parsePeerUrl("https://fra.example")), { host: "fra.example", port: 443 });
  for (
    const text of [
      "fra:7432",
      "ftp://fra:1",
      "http://",
      "http://fra:1/x",
      "http://u:p@fra:1",
      "http://fra:99999",
    ]
  ) {
    const parsing = (async () => await parsePeerUrl(text))();
    await rejectsWith(parsing, "invalid_input", /^Cannot use ".*" as a peer's URL: /);
  }
});
