/** Joins that were cut short: nothing stays behind for ever, and the next attempt begins with new slots. */
import assert from "node:assert/strict";
import { makeDatabase, slotsOf, startJoinBed, startJoining } from "./support/join_bed.ts";
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
  assert.match(await joined.log(), /^Node "ams" still keeps WAL for this one: join again, or run /m);
  await running.query("ROLLBACK");
  await running.end();
  await eventually("no slot to be left", async () => (await slotsOf(first)).length === 0);
  assert.deepEqual((await bed.member.api("GET", "/v1/peers")).json.items, []);
});
