import assert from "node:assert/strict";
import { startPostgres } from "../../tests/support/postgres.ts";
import { openControl } from "./control.ts";
import { parsePostgresUrl } from "./target.ts";

for (const major of [10, 18] as const) {
  Deno.test(`control connections to PostgreSQL ${major} wait for no lock for long, and commit to disk`, async () => {
    await using server = await startPostgres({ major });
    await server.sql("postgres", "ALTER DATABASE postgres SET synchronous_commit = off; CREATE TABLE t ()");
    const target = await parsePostgresUrl(server.url("postgres", { tcp: true }), {});
    const control = openControl(target, "mmlite test");
    const [row] = await control.run("look", "SHOW synchronous_commit");
    assert.equal(row.synchronous_commit, "local");

    const holder = await server.connect("postgres");
    await holder.query("BEGIN; LOCK t");
    await assert.rejects(control.run("read t", "SELECT FROM public.t"), { kind: "transient" });
    await holder.end();
    await control.close();
  });

  Deno.test(`what is read over control connections to PostgreSQL ${major} is the text that replication sends`, async () => {
    await using server = await startPostgres({ major });
    await server.sql(
      "postgres",
      `ALTER DATABASE postgres SET bytea_output = escape; ALTER DATABASE postgres SET intervalstyle = iso_8601;
       ALTER DATABASE postgres SET extra_float_digits = 0; ALTER DATABASE postgres SET datestyle = 'German, DMY';
       ALTER DATABASE postgres SET timezone = 'Asia/Tokyo'; ALTER DATABASE postgres SET lc_monetary = 'C'`,
    );
    const control = openControl(await parsePostgresUrl(server.url(), {}), "mmlite test");
    const [row] = await control.run(
      "look",
      `SELECT concat(1 / 3.0::float8) AS f, concat('\\x00ff'::bytea) AS b, concat('-1 day'::interval) AS i,
        concat('2020-02-03 04:05:06Z'::timestamptz) AS t`,
    );
    assert.equal(Number(row.f), 1 / 3);
    assert.deepEqual([row.b, row.i, row.t], ["\\x00ff", "-1 days", "2020-02-03 04:05:06+00"]);
    await control.close();
  });
}
