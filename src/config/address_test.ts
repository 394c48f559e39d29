import assert from "node:assert/strict";
import { hostname } from "node:os";
import {
  advertisedUrl,
  defaultAdvertiseUrl,
  formatAddress,
  isLoopbackHost,
  parseAddress,
} from "./address.ts";

Deno.test("addresses are parsed and formatted", () => {
  for (
    const text of [
      "127.0.0.1:7432",
      "[::1]:7432",
      "localhost:0",
      "db-1.example:65535",
      "[::ffff:127.0.0.1]:1",
    ]
  ) {
    const address = parseAddress(text);
    assert(address, text);
    assert.equal(formatAddress(address), text);
  }
  assert.deepEqual(parseAddress("[fe80::1]:80"), { host: "fe80::1", port: 80 });
});

Deno.test("what is no address is refused", () => {
  const wrong = [
    "",
    "7432",
    ":7432",
    "localhost",
    "localhost:",
    "::1:7432",
    "[::1]",
    "[::x]:1",
    "a:65536",
    "a:-1",
  ];
  for (const text of [...wrong, "http://a:1", "a b:1", "[1.2.3.4]:1", "a:1/", "a:1\n"]) {
    assert.equal(parseAddress(text), null, text);
  }
});

Deno.test("loopback hosts are told from others", () => {
  for (const host of ["localhost", "127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"]) {
    assert(isLoopbackHost(host), host);
  }
  for (const host of ["0.0.0.0", "::", "10.0.0.1", "127.example", "127.0.0.1.example", "fra"]) {
    assert(!isLoopbackHost(host), host);
  }
});

Deno.test("the advertised URL follows the address", () => {
  assert.equal(defaultAdvertiseUrl({ host: "10.1.2.3", port: 7432 }, "http"), "http://10.1.2.3:7432");
  assert.equal(defaultAdvertiseUrl({ host: "::1", port: 7432 }, "http"), "http://[::1]:7432");
  assert.equal(defaultAdvertiseUrl({ host: "0.0.0.0", port: 1 }, "http"), `http://${hostname()}:1`);
  assert.equal(defaultAdvertiseUrl({ host: "::", port: 1 }, "http"), `http://${hostname()}:1`);
});

Deno.test("what is advertised is what was given, nothing, or the default", () => {
  const bound = { host: "10.1.2.3", port: 7432 };
  const url = (advertise: string | null, tls: object | null = null) =>
    advertisedUrl({ advertise, tls }, bound);
  assert.equal(url("http://ams.example:1"), "http://ams.example:1");
  assert.equal(url("none"), null);
  assert.equal(url(null), "http://10.1.2.3:7432");
  assert.equal(url(null, {}), "https://10.1.2.3:7432");
});
