/** The embedded servers themselves: every release starts, decodes logically, survives a crash, leaves nothing. */
import assert from "node:assert/strict";
import { running } from "./support/processes.ts";
import { POSTGRES_MAJORS, startPostgres } from "./support/postgres.ts";

for (const major of POSTGRES_MAJORS) {
  Deno.test(`PostgreSQL ${major} starts, decodes with pgoutput, recovers from a crash and leaves nothing`, async () => {
    const server = await startPostgres({ major });
    await using _ = server;
    const [version] = await server.sql(
      "postgres",
      "SELECT current_setting('server_version_num')::int / 10000 AS v",
    );
    assert.equal(version.v, major);

    await server.createDatabase("app");
    await server.sql("app", "CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t");
    await server.sql("app", "SELECT pg_create_logical_replication_slot('s', 'pgoutput')");
    await server.sql("app", "INSERT INTO t VALUES (1)");
    const peek =
      "SELECT data FROM pg_logical_slot_peek_binary_changes('s', NULL, NULL, 'proto_version', '1', 'publication_names', 'p')";
    const kinds = async () =>
      (await server.sql("app", peek)).map((row) => String.fromCharCode(row.data[0])).join("");
    assert.match(await kinds(), /^BRIC$/);

    const firstPid = server.pid!;
    await server.kill();
    assert.equal(server.pid, undefined);
    await server.start();
    assert.match(await server.log(), /was not properly shut down/);
    assert.match(await kinds(), /^BRIC$/);

    const { pid, host } = server;
    await server[Symbol.asyncDispose]();
    assert.deepEqual(await running([firstPid, pid!]), []);
    await assert.rejects(Deno.stat(host), Deno.errors.NotFound);
  });
}
