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
}
