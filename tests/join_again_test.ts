/** Joins that were cut short: nothing stays behind for ever, and the next attempt begins with new slots. */
import assert from "node:assert/strict";
import { makeDatabase, slotsOf, startJoinBed, startJoining, streaming } from "./support/join_bed.ts";
import { eventually } from "./support/poll.ts";
import { startPostgres } from "./support/postgres.ts";

Deno.test("a join that is stopped while a member makes the slot leaves none there", async () => {
  await using first = await startPostgres({ major: 18 });
  await using second = await startPostgres({ major: 16 });
  await using bed = await startJoinBed({ server: first, name: "ams" });
  const fra = { server: second, database: "fra" };
  await makeDatabase(fra);
  // A slot waits for every transaction that is running.
  const running = await first.connect("ams");
  await running.query("BEGIN; INSERT INTO t VALUES (1, 'x')");
  const token = await bed.invite();
  await using joined = await startJoining(fra, () => ["join", token], { awaitReady: false });
  await eventually("the slot to be waited for", async () => (await slotsOf(first)).includes("mmlite_fra"));
  assert.equal(await joined.stop(), 75);
  assert.match(await joined.log(), /^Node "ams" may keep WAL for this one: join again, or run /m);
  await running.query("ROLLBACK");
  await running.end();
  await eventually("no slot to be left", async () => (await slotsOf(first)).length === 0);
  assert.deepEqual((await bed.member.api("GET", "/v1/peers")).json.items, []);
});

Deno.test("a join that is stopped while it asks another member leaves no slot there either", async () => {
  await using first = await startPostgres({ major: 18 });
  await using second = await startPostgres({ major: 16 });
  await using third = await startPostgres({ major: 17 });
  await using bed = await startJoinBed({ server: first, name: "ams" });
  const [fra, nyc] = [{ server: second, database: "fra" }, { server: third, database: "nyc" }];
  await Promise.all([makeDatabase(fra), makeDatabase(nyc)]);
  const tokenForFra = await bed.invite();
  await using _fra = await startJoining(fra, () => ["join", tokenForFra]);
  await streaming(bed.member, 1);
  const running = await second.connect("fra");
  await running.query("BEGIN; INSERT INTO t VALUES (1, 'x')");
  const tokenForNyc = await bed.invite();
  await using joined = await startJoining(nyc, () => ["join", tokenForNyc], { awaitReady: false });
  await eventually("the slot to be waited for", async () => (await slotsOf(second)).includes("mmlite_nyc"));
  assert.equal(await joined.stop(), 75);
  assert.match(await joined.log(), /^Node "fra" may keep WAL for this one: join again, or run /m);
  await running.query("ROLLBACK");
  await running.end();
  await eventually("no slot to be left", async () => (await slotsOf(second)).length === 1);
  assert.deepEqual([await slotsOf(first), await slotsOf(third)], [["mmlite_fra"], []]);
});

Deno.test("what was made equal between two attempts to join is sent by neither side", async () => {
  await using first = await startPostgres({ major: 18 });
  await using second = await startPostgres({ major: 16 });
  await using bed = await startJoinBed({ server: first, name: "ams" });
  const [ams, fra] = [{ server: first, database: "ams" }, { server: second, database: "fra" }];
  await makeDatabase(fra);
  for (const { server, database } of [ams, fra]) await server.sql(database, "CREATE TABLE log (what text)");
  // Rows to compare, so that it can be killed meanwhile.
  for (const { server, database } of [ams, fra]) {
    await server.sql(database, "INSERT INTO u SELECT generate_series(1, 200000)");
  }
  const token = await bed.invite();
  await using joined = await startJoining(fra, () => ["join", token], { awaitReady: false });
  await eventually("it to compare", async () => (await joined.log()).includes("Comparing"), {
    intervalMs: 1,
  });
  await joined.kill();
  assert.deepEqual([await slotsOf(first), await slotsOf(second)], [["mmlite_fra"], ["mmlite_ams"]]);
  for (const { server, database } of [ams, fra]) {
    await server.sql(database, "INSERT INTO log SELECT 'line ' || g FROM generate_series(1, 100) g");
  }

  await joined.start();
  for (const node of [bed.member, joined]) await streaming(node, 1);
  await first.sql("ams", "INSERT INTO t VALUES (1, 'mark')");
  await second.sql("fra", "INSERT INTO t VALUES (2, 'mark')");
  for (const { server, database } of [ams, fra]) {
    await eventually(`both marks on ${database}`, async () => {
      return (await server.sql(database, "SELECT FROM t")).length === 2;
    });
    const [{ rows }] = await server.sql(database, "SELECT count(*)::int AS rows FROM log");
    assert.equal(Number(rows), 100, database);
  }
});
