/** The harness for whole nodes: real processes start, answer, die, come back and leave nothing. */
import assert from "node:assert/strict";
import { connectAll, startMmlite } from "./support/mmlite.ts";
import { eventually } from "./support/poll.ts";
import { startPostgres } from "./support/postgres.ts";
import { running } from "./support/processes.ts";

Deno.test("a node starts, answers its API and commands, survives SIGKILL and leaves nothing", async () => {
  await using server = await startPostgres({ major: 17 });
  await server.createDatabase("app");
  await server.sql("app", "CREATE TABLE t (id int PRIMARY KEY)");
  await using node = await startMmlite({ name: "a", postgres: server.url("app") });

  const status = await node.api("GET", "/v1/status");
  assert.equal(status.status, 200);
  assert.equal(status.json.node.name, "a");
  assert.equal((await node.api("GET", "/v1/peers/nobody")).status, 404);
  const tables = await node.cli("tables", "list", "-o", "json");
  assert.equal(tables.code, 0, tables.stderr);
  assert.match(tables.stdout, /"t"/);

  const first = node.pid!;
  await node.kill();
  assert.equal(node.pid, undefined);
  await assert.rejects(node.api("GET", "/livez"));
  await node.start();
  const second = node.pid!;
  assert.notEqual(second, first);
  assert.equal(await node.stop(), 0, await node.log());
  assert.deepEqual(await running([first, second]), []);

  const { stateDir } = node;
  await node[Symbol.asyncDispose]();
  await assert.rejects(Deno.stat(stateDir), Deno.errors.NotFound);
});

Deno.test("a node that cannot start is reported with what it printed", async () => {
  const postgres = "postgres:///app?host=/nowhere&user=postgres";
  await using node = await startMmlite({ name: "a", postgres, awaitReady: false, extraArgs: ["--nonsense"] });
  assert.equal(await node.exit(), 64);
  assert.match(await node.log(), /--nonsense/);
  await assert.rejects(node.ready(), /it exited; its output:[^]*--nonsense/);
});

Deno.test("two connected nodes of different releases exchange rows both ways", async () => {
  await using old = await startPostgres({ major: 11 });
  await using recent = await startPostgres({ major: 18 });
  for (const server of [old, recent]) {
    await server.createDatabase("app");
    await server.sql("app", "CREATE TABLE t (id int PRIMARY KEY, origin text)");
  }
  await using a = await startMmlite({ name: "a", postgres: old.url("app") });
  await using b = await startMmlite({ name: "b", postgres: recent.url("app", { tcp: true }) });
  await connectAll([a, b]);
  await old.sql("app", "INSERT INTO t VALUES (1, 'a')");
  await recent.sql("app", "INSERT INTO t VALUES (2, 'b')");
  const expected = [{ id: 1, origin: "a" }, { id: 2, origin: "b" }];
  for (const server of [old, recent]) {
    await eventually("both rows on both nodes", async () => {
      assert.deepEqual(await server.sql("app", "SELECT id, origin FROM t ORDER BY id"), expected);
      return true;
    });
  }
});
