import assert from "node:assert/strict";
import { formatData, formatTable, heading } from "./output.ts";

const ROWS = [heading("NAME", "STATE"), ["fra", { text: "streaming", colour: "green" as const }], [
  "a-long-name",
  "",
]];

Deno.test("columns are as wide as their widest cell, and lines end without spaces", () => {
  assert.equal(formatTable(ROWS, false), "NAME         STATE\nfra          streaming\na-long-name");
});

Deno.test("colour does not change the columns", () => {
  // deno-lint-ignore no-control-regex
  const plain = formatTable(ROWS, true).replaceAll(/\x1b\[\d+m/g, "");
  assert.equal(plain, formatTable(ROWS, false));
  assert(formatTable(ROWS, true).includes("\x1b[32mstreaming\x1b[0m"));
});

Deno.test("control characters never reach the terminal", () => {
  assert.equal(formatTable([["a\x1b[31mb\nc"]], true), "a [31mb c");
});

Deno.test("data is printed as JSON or YAML", () => {
  const data = { name: "fra", lsn: "0/1A", digits: "12", none: null };
  assert.deepEqual(JSON.parse(formatData(data, "json")), data);
  assert.equal(formatData(data, "yaml"), 'name: fra\nlsn: 0/1A\ndigits: "12"\nnone: null');
});
