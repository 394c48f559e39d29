import assert from "node:assert/strict";
import { MmliteError } from "../errors.ts";
import { requireAddable } from "./addable.ts";

const SURROUNDINGS = {
  self: "fra",
  ownUrls: ["http://10.0.0.1:7432", "http://fra.example:7432"],
  peers: [
    { name: "ams-1", url: "http://10.0.0.2:7432" },
    { name: "lon", url: null },
  ],
  security: { tls: false, insecure: true },
};

function add(name: string, url: string | null): void {
  requireAddable({ name, url }, SURROUNDINGS);
}

function refuses(name: string, url: string | null, why: RegExp): void {
  assert.throws(() => add(name, url), (error) => {
    assert(error instanceof MmliteError, String(error));
    assert.equal(error.kind, "conflict");
    assert.match(error.message, why);
    return true;
  });
}

Deno.test("a new name at a new address can be added", () => {
  add("par", "http://10.0.0.3:7432");
  add("par", "http://10.0.0.2:7433");
  add("par", null);
});

Deno.test("a known peer can be added again, at its address or at another", () => {
  add("ams-1", "http://10.0.0.2:7432");
  add("ams-1", "http://10.0.0.9:7432");
  add("lon", "http://10.0.0.3:7432");
  add("ams-1", null);
  add("lon", null);
});

Deno.test("this node itself cannot be added, by name or by any of its addresses", () => {
  refuses("fra", "http://10.0.0.3:7432", /"fra": that is this node itself/);
  refuses("fra", null, /"fra": that is this node itself/);
  refuses("par", "http://10.0.0.1:7432", /this node's own address/);
  refuses("par", "http://FRA.example:7432/", /this node's own address/);
});

Deno.test("a name whose slot would be another peer's, or this node's, cannot be added", () => {
  refuses("ams_1", null, /its slot name is taken by "ams-1"/);
  refuses("ams_1", "http://10.0.0.3:7432", /its slot name is taken by "ams-1"/);
  assert.throws(
    () => requireAddable({ name: "a_b", url: "http://h:1" }, { ...SURROUNDINGS, self: "a-b", peers: [] }),
    /its slot name is taken by "a-b"/,
  );
});

Deno.test("another peer's address cannot be added", () => {
  refuses("par", "http://10.0.0.2:7432/", /is already peer "ams-1"/);
});
