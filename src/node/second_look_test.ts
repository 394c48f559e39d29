import assert from "node:assert/strict";
import { eventually } from "../../tests/support/poll.ts";
import { startPostgres } from "../../tests/support/postgres.ts";
import { DEFAULT_POLICY } from "../conflict_policy.ts";
import { Applied } from "./applied.ts";
import { type Database, openDatabase } from "./database.ts";
import { openOwnDeletes } from "./own_deletes.ts";
import { SecondLook } from "./second_look.ts";

Deno.test("what was not to be seen is settled soon after it was noted, and that is not sent on", async () => {
  await using server = await startPostgres({ major: 18 });
  const stop = new AbortController();
  await server.createDatabase("app");
  await server.sql(
    "app",
    "CREATE TABLE t (id int PRIMARY KEY DEFERRABLE, v text); CREATE PUBLICATION p FOR TABLE t",
  );
  const database = await openDatabase(server.url("app"), stop.signal);
  await server.sql(
    "app",
    `INSERT INTO mmlite.node (cluster, name, incarnation) VALUES ('test', 'fra', '00000000-0000-0000-0000-000000000000');
     ALTER TABLE t REPLICA IDENTITY FULL`,
  );
  await server.sql("app", "SELECT pg_create_logical_replication_slot('s', 'pgoutput')");
  const counted: string[] = [];
  const deletes = openOwnDeletes({
    observer: { conflict: (type, resolution) => void counted.push(`${type} ${resolution}`) },
    ...{ database, self: "fra", applied: new Applied(), signal: stop.signal },
    policyOf: () => DEFAULT_POLICY,
  });
  const look = new SecondLook({ database, deletes });
  const running = look.run(stop.signal, () => true);
  const client = await server.connect("app");
  try {
    await client.query("SET session_replication_role = replica");
    await client.query("INSERT INTO t VALUES (1, 'older')");
    await client.query("INSERT INTO t VALUES (1, 'newer')");
    await client.query(
      `SELECT mmlite.note_second_look('public', 't', 'ONLY public.t AS t', 't.id = ($1)[1]::integer', '{id}', '{1}',
        mmlite.key_hash('public.t', '{1}'), 'ams', '2020-01-01', 'insert', 'applied', 'skipped')`,
    );
    look.noted();
    await eventually("nothing to be left", async () => {
      return (await client.query("SELECT FROM mmlite.second_look")).rowCount === 0;
    });
    assert.deepEqual((await client.query("SELECT v FROM t")).rows, [{ v: "newer" }]);
    assert.deepEqual((await client.query("SELECT type, resolution FROM mmlite.conflict")).rows, [
      { type: "insert_exists", resolution: "applied" },
    ]);
    await eventually("it to be counted", () => Promise.resolve(counted.length > 0));
    assert.deepEqual(counted, ["insert_exists applied"]);
    const { rows } = await client.query(
      `SELECT chr(get_byte(data, 0)) AS kind FROM pg_logical_slot_get_binary_changes('s', NULL, NULL,
        'proto_version', '1', 'publication_names', 'p', 'origin', 'none')`,
    );
    assert.deepEqual(rows.map(({ kind }) => kind).filter((kind) => "ID".includes(kind)), ["I", "I"]);
  } finally {
    stop.abort();
    await running;
    await client.end();
    await deletes.close();
    await database.close();
  }
});

Deno.test("what is noted during a look is looked at soon after it", async () => {
  const stop = new AbortController();
  let looks = 0;
  const query = () => {
    // It was committed just too late for this one.
    if (++looks === 1) look.noted();
    return Promise.resolve([{ any: "false" }]);
  };
  const look: SecondLook = new SecondLook({
    database: { control: { query: () => query } } as unknown as Pick<Database, "control">,
    deletes: { lookAgain: () => Promise.resolve(0) },
  });
  const running = look.run(stop.signal, () => true);
  try {
    await eventually("a second look", () => Promise.resolve(looks === 2), { timeoutMs: 2_000 });
  } finally {
    stop.abort();
    await running;
  }
});
