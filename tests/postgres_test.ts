/** The embedded servers themselves: every release starts, decodes logically, survives a crash, leaves nothing. */
import assert from "node:assert/strict";
import { running } from "./support/processes.ts";
// @ts-types="@types/pg"
import pg from "pg";
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

Deno.test("a server keeps its port over stop and start, and takes settings then", async () => {
  await using server = await startPostgres({ major: 16, settings: { work_mem: "5MB" } });
  const { port, pid } = server;
  const show = async (name: string) => (await server.sql("postgres", `SHOW ${name}`))[0][name];
  assert.equal(await show("work_mem"), "5MB");
  assert.equal(await show("wal_level"), "logical");
  await server.restart({ wal_level: "replica" });
  assert.equal(await show("wal_level"), "replica");
  assert.equal(server.port, port);
  assert.notEqual(server.pid, pid);
  await server.stop("immediate");
  await assert.rejects(server.sql("postgres", "SELECT 1"));
  await server.start();
  assert.equal(await show("work_mem"), "5MB");
});

Deno.test("a password is asked for where the test wants it, never of the superuser on the socket", async () => {
  await using server = await startPostgres({ major: 14, authMethod: "scram-sha-256" });
  await server.sql(
    "postgres",
    "SET password_encryption = 'scram-sha-256'; CREATE ROLE app LOGIN PASSWORD 'a/b c'",
  );
  const connect = async (password: string, tcp: boolean) => {
    const client = new pg.Client({
      connectionString: server.url("postgres", { tcp, user: "app", password }),
    });
    await client.connect();
    await client.end();
  };
  for (const tcp of [true, false]) {
    await connect("a/b c", tcp);
    await assert.rejects(connect("wrong", tcp), /password authentication failed/);
  }
});

Deno.test("a clone of a stopped server holds its rows under the same system identifier", async () => {
  await using server = await startPostgres({ major: 18, encoding: "LATIN1" });
  await server.sql("postgres", "CREATE TABLE t AS SELECT 'caf\u00e9' AS word");
  await server.stop();
  await using clone = await startPostgres({ major: 18, cloneOf: server.dataDir });
  await server.start();
  const identifier = "SELECT system_identifier AS id, (SELECT word FROM t) AS word FROM pg_control_system()";
  assert.deepEqual(await clone.sql("postgres", identifier), await server.sql("postgres", identifier));
  assert.notEqual(clone.port, server.port);
});

Deno.test("a server that cannot start is reported with its log", async () => {
  const settings = { shared_buffers: "none" };
  await assert.rejects(startPostgres({ major: 18, settings }), /it exited; its log:[^]*shared_buffers/);
});
