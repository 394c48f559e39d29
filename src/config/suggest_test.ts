import assert from "node:assert/strict";
import { nearest } from "./suggest.ts";

const KEYS = ["name", "cluster", "address", "log"];

Deno.test("a slip of the finger finds the word meant", () => {
  for (
    const [word, expected] of [["nam", "name"], ["nmae", "name"], ["Cluster", "cluster"], [
      "adress",
      "address",
    ]]
  ) {
    assert.equal(nearest(word, KEYS), expected);
  }
});

Deno.test("a word like no other finds nothing", () => {
  for (const word of ["", "x", "postgres", "conflicts"]) assert.equal(nearest(word, KEYS), null);
  assert.equal(nearest("name", []), null);
});
