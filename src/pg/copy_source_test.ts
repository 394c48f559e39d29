/** The snapshot that rows are copied from. */
import assert from "node:assert/strict";
import { startPostgres } from "../../tests/support/postgres.ts";
import { openClient } from "./client.ts";
import { CopySource } from "./copy_source.ts";
import { queryWith } from "./query.ts";
import { ensureSchema } from "./schema.ts";
import { parsePostgresUrl } from "./target.ts";

Deno.test("a row that awaits a value does not count as old", async () => {
  await using server = await startPostgres({ major: 18 });
  const target = await parsePostgresUrl(server.url("postgres"), {});
  const client = await openClient(target, { applicationName: "test" });
  await ensureSchema(queryWith(client));
  await client.end();
  const take = async () => {
    const { signal } = new AbortController();
    const source = await CopySource.open(target, { serverVersion: 180000, isVersioned: true, signal });
    try {
      return (await source.take("2026-07-01 12:00:00Z")).before;
    } finally {
      await source.close();
    }
  };
  assert.equal(Date.parse(await take()), Date.parse("2026-07-01T12:00:00Z"));
  await server.sql(
    "postgres",
    `INSERT INTO mmlite.unsent (origin, table_schema, table_name, key_columns, key, hash, at)
       VALUES ('fra', 'public', 't', '{id}', '{1}', 1, '2026-07-01 11:59:58Z')`,
  );
  assert.match(await take(), /:59:57\.999999/);
});
