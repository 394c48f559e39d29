import assert from "node:assert/strict";
import { formatCurl, quote } from "./curl.ts";

Deno.test("words are quoted for a shell only where they must be", () => {
  assert.equal(quote("http://127.0.0.1:7433/v1/peers"), "http://127.0.0.1:7433/v1/peers");
  assert.equal(quote("it's $HOME"), `'it'\\''s $HOME'`);
  for (const word of ["", "a b", "a?b", "a&b", "*", "~", "[::1]"]) assert.equal(quote(word), `'${word}'`);
});

Deno.test("the line names method, socket, token file and body", () => {
  const put = { method: "PUT", path: "/v1/peers/fra", body: { url: "http://fra:7432" } } as const;
  assert.equal(
    formatCurl(put, { place: { address: { host: "::1", port: 7433 } }, tokenFile: "/etc/my token" }),
    `curl -sS -X PUT -H "Authorization: Bearer $(head -n 1 '/etc/my token')" -H 'Content-Type: application/json' ` +
      `-d '{"url":"http://fra:7432"}' 'http://[::1]:7433/v1/peers/fra'`,
  );
  const remove = { method: "DELETE", path: "/v1/peers/fra?force=true" } as const;
  assert.equal(
    formatCurl(remove, { place: { socket: "/run/mmlite.sock" }, tokenFile: null }),
    "curl -sS -X DELETE --unix-socket /run/mmlite.sock 'http://localhost/v1/peers/fra?force=true'",
  );
});
