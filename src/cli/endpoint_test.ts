import assert from "node:assert/strict";
import { parsePlace } from "./endpoint.ts";
import { parseInterval } from "./status.ts";

Deno.test("--api takes an address, a URL or a socket", () => {
  const address = { address: { host: "127.0.0.1", port: 7433 } };
  for (const text of ["127.0.0.1:7433", "http://127.0.0.1:7433", "http://127.0.0.1:7433/", "0.0.0.0:7433"]) {
    assert.deepEqual(parsePlace(text), address);
  }
  assert.deepEqual(parsePlace("[::]:7433"), { address: { host: "::1", port: 7433 } });
  assert.deepEqual(parsePlace("unix:/run/mmlite.sock"), { socket: "/run/mmlite.sock" });
});

Deno.test("--api refuses what leads nowhere", () => {
  for (const text of ["", "fra", "unix:", "https://fra:7433", "http://fra:7433/v1", "127.0.0.1:0", "7433"]) {
    assert.throws(() => parsePlace(text), { kind: "usage" }, text);
  }
});

Deno.test("--watch takes an interval with its unit", () => {
  const intervals: [string, number][] = [["100ms", 100], ["2s", 2000], ["1.5s", 1500], ["1m", 60_000]];
  for (const [text, expected] of intervals) assert.equal(parseInterval(text), expected);
  for (const text of ["", "2", "s", "0s", "99ms", "-1s", "1h", "2s ", "1e3s"]) {
    assert.throws(() => parseInterval(text), { kind: "usage" }, text);
  }
});
