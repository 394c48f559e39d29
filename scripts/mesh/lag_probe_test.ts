import assert from "node:assert/strict";
import { lagsOf } from "./lag_probe.ts";

Deno.test("rows seen together have each its own lag, and rows never seen have none", () => {
  const commits = [100, 110, 120, 130];
  assert.deepEqual(lagsOf(commits, [{ number: 1, at: 103 }, { number: 3, at: 125 }]), [3, 15, 5]);
  assert.deepEqual(lagsOf(commits, []), []);
});
