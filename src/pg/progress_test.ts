import assert from "node:assert/strict";
import { startPostgres } from "../../tests/support/postgres.ts";
import { eventually } from "../../tests/support/poll.ts";
import { ensureOrigin } from "./progress.ts";
import { queryWith } from "./query.ts";

Deno.test("an origin that another session creates at the same time is there", async () => {
  await using server = await startPostgres({ major: 18 });
  const [one, two] = [await server.connect("postgres"), await server.connect("postgres")];
  await one.query("BEGIN; SELECT pg_replication_origin_create('mmlite_b')");
  const ensured = ensureOrigin(queryWith(two), "b");
  await eventually("the second session to wait for the first", async () => {
    const [row] = await server.sql("postgres", "SELECT count(*)::int AS n FROM pg_locks WHERE NOT granted");
    return row.n === 1;
  });
  await one.query("COMMIT");
  await ensured;
  await ensureOrigin(queryWith(two), "b");
  const names = await server.sql("postgres", "SELECT roname FROM pg_replication_origin");
  assert.deepEqual(names, [{ roname: "mmlite_b" }]);
  await one.end();
  await two.end();
});
