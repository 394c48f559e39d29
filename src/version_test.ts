import assert from "node:assert/strict";
import { join } from "node:path";
import { VERSION } from "./version.ts";

Deno.test("the version is that of deno.json", async () => {
  const manifest = JSON.parse(await Deno.readTextFile(join(import.meta.dirname!, "../deno.json")));
  assert.equal(VERSION, manifest.version);
});
