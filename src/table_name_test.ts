import assert from "node:assert/strict";
import { formatTableName, parseTableName } from "./table_name.ts";

Deno.test("a table's name is read as it is written", () => {
  for (const [schema, name] of [["public", "t"], ["Odd.schema", 'a "b"'], ["a b", "*"], ["ä", "%"]]) {
    assert.deepEqual(parseTableName(formatTableName({ schema, name })), { schema, name });
  }
  for (const text of ["", "users", "a.b.c", ".users", "public.", '"a.b', '"".t']) {
    assert.equal(parseTableName(text), null, text);
  }
});
