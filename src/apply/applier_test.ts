import assert from "node:assert/strict";
import { ApplyPair } from "../../tests/support/apply_pair.ts";
import { startPostgres } from "../../tests/support/postgres.ts";

Deno.test("inserts, updates, deletes and truncates arrive as one transaction each", async () => {
  await using server = await startPostgres({ major: 18 });
  await using pair = await ApplyPair.open({
    source: server,
    target: server,
    name: "basic",
    schema: "CREATE TABLE t (id int PRIMARY KEY, v text)",
  });
  const seen = await pair.replicate(
    "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, NULL)",
    "UPDATE t SET v = v || 'x' WHERE id < 3",
    "DELETE FROM t WHERE id = 2",
  );
  const [source, target] = await pair.both("SELECT * FROM t ORDER BY id");
  assert.deepEqual(target, source);
  assert.deepEqual(target, ["(1,ax)", "(3,)"]);
  assert.deepEqual(seen.kinds, { insert: 3, update: 2, delete: 1, truncate: 0 });
  assert.equal(seen.transactions, 3);
  assert.deepEqual(seen.conflicts, []);
});
