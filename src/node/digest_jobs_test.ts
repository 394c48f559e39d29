import assert from "node:assert/strict";
import { eventually } from "../../tests/support/poll.ts";
import { startPostgres } from "../../tests/support/postgres.ts";
import { openDatabase } from "./database.ts";
import { DigestJobs } from "./digest_jobs.ts";

Deno.test("tables that nobody asks for any more are read no further", async () => {
  await using server = await startPostgres({ major: 18 });
  await server.sql("postgres", "CREATE TABLE t (id int)");
  const stop = new AbortController();
  const database = await openDatabase(server.url("postgres"), stop.signal);
  const patterns = { include: ["public.*"], exclude: [] };
  const jobs = new DigestJobs({ database, patterns, signal: stop.signal, idleLimitMs: 500 });
  const holder = await server.connect("postgres");
  await holder.query("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE");
  const request = {
    step: "digest" as const,
    run: crypto.randomUUID(),
    tables: [{ schema: "public", name: "t", hashed: true }],
  };
  assert.deepEqual(await jobs.answer("fra", request), { digests: null });
  const reading = "SELECT FROM pg_stat_activity WHERE application_name = 'mmlite digest'";
  await eventually("nobody to read", async () => (await server.sql("postgres", reading)).length === 0);
  await holder.query("COMMIT");
  await holder.end();
  const { digests } = await jobs.answer("fra", request);
  assert.deepEqual(digests?.map(({ name, rows }) => [name, rows]), [["t", "0"]]);
  stop.abort();
  await database.close();
});
