import assert from "node:assert/strict";
import { toPrintable } from "./printable.ts";

Deno.test("what a terminal would obey becomes a space, and all else stays", () => {
  assert.equal(toPrintable("a\x1b[2Jb\nc\x9b1md\u202ee\x7f"), "a [2Jb c 1md e ");
  assert.equal(toPrintable('Cannot find peer "größe-9 – 東京 🙂"'), 'Cannot find peer "größe-9 – 東京 🙂"');
});
