/** Nodes that go for good: what was not delivered is told, and the nodes that stay come to hold the same of it. */
import assert from "node:assert/strict";
import { arrived, startCluster } from "./support/cluster.ts";
import { startCutProxy } from "./support/cut_proxy.ts";
import { HAZARD_SCHEMA, LedgerWriter, linkOnce, requireSame, run, writeSome } from "./support/hazard_bed.ts";
import { eventually } from "./support/poll.ts";
import { startPostgres } from "./support/postgres.ts";

Deno.test("removing a peer by force tells what it did not get, and a dry run before", async () => {
  await using first = await startPostgres({ major: 18 });
  await using second = await startPostgres({ major: 10 });
  await using cluster = await startCluster("leaving", [
    { server: first, name: "ams", schema: HAZARD_SCHEMA },
    { server: second, name: "fra", schema: HAZARD_SCHEMA },
  ]);
  const [ams, fra] = cluster.members;
  await arrived(ams, fra);
  await arrived(fra, ams);
  await fra.node.stop();
  await first.sql("leaving", "INSERT INTO item VALUES (-1, 'x', 'x'), (-2, 'x', 'x')");
  await first.sql(
    "leaving",
    "UPDATE item SET v = 'y' WHERE id = -1; DELETE FROM item WHERE id = -2; TRUNCATE other",
  );
  const { status, json } = await ams.node.api("DELETE", "/v1/peers/fra?dry_run=true");
  assert.equal(status, 200);
  const { undelivered } = json;
  assert.deepEqual(
    [json.removed, undelivered.complete, undelivered.transactions, undelivered.changes, undelivered.problem],
    [false, true, 2, 5, null],
  );
  assert.deepEqual(undelivered.tables, [
    { table: "public.item", inserts: 2, updates: 1, deletes: 1, truncates: 0 },
    { table: "public.other", inserts: 0, updates: 0, deletes: 0, truncates: 1 },
  ]);
  assert.ok(Number(undelivered.wal_bytes) > 0);
  assert.ok(undelivered.first_committed_at < undelivered.last_committed_at, JSON.stringify(undelivered));
  assert.equal((await ams.node.api("GET", "/v1/peers/fra")).status, 200);
  assert.match(
    await run(ams, "peers", "remove", "fra", "--dry-run"),
    /not delivered to fra: 2 transactions of 5 changes/,
  );

  const removed = await run(ams, "peers", "remove", "fra", "--force");
  assert.match(removed, /Peer "fra" is removed/);
  assert.match(removed, /not delivered to fra: 2 transactions of 5 changes/);
  assert.match(await ams.node.log(), /was removed by force.*"transactions":2,"changes":5/);
  const slots = await first.sql("leaving", "SELECT FROM pg_replication_slots");
  assert.equal(slots.length, 0);
  assert.equal((await ams.node.api("GET", "/v1/peers/fra")).status, 404);

  // It comes back, with rows that it had sent to nobody.
  await fra.client.query("INSERT INTO item VALUES (-3, 'fra', 'lost')");
  await fra.node.start();
  const { last_error: refused } = await linkOnce(fra.node, "ams", "blocked");
  assert.match(refused!.hint, /to have it back, add it on both nodes/);
  await run(fra, "peers", "remove", "ams", "--force");
  await run(fra, "peers", "add", "ams", ams.node.peerUrl);
  await run(ams, "peers", "add", "fra", fra.node.peerUrl);
  await linkOnce(ams.node, "fra", "streaming");
  await linkOnce(fra.node, "ams", "streaming");
  const later = [await writeSome(ams, "ams later"), await writeSome(fra, "fra later")];
  await arrived(ams, fra);
  await arrived(fra, ams);
  await run(fra, "verify", "--repair", "--source", "ams");
  await requireSame([ams, fra], later);
  const lost = await first.sql("leaving", "SELECT FROM item WHERE id = -3");
  assert.equal(lost.length, 0);
});

Deno.test("of a node that dies the survivors tell who has more of it, and come to hold the same", async () => {
  await using newest = await startPostgres({ major: 18 });
  await using older = await startPostgres({ major: 13 });
  await using dying = await startPostgres({ major: 15 });
  await using cluster = await startCluster("leaving", [
    { server: newest, name: "ams", schema: HAZARD_SCHEMA },
    { server: older, name: "fra", schema: HAZARD_SCHEMA },
    { server: dying, name: "lost", schema: HAZARD_SCHEMA },
  ]);
  const [ams, fra, lost] = cluster.members;
  await using road = await startCutProxy(fra.node.peerUrl);
  await lost.node.api("PUT", "/v1/peers/fra", { url: road.url });
  await linkOnce(lost.node, "fra", "streaming");
  const before = [await writeSome(ams, "ams before"), await writeSome(lost, "lost before")];
  await requireSame([ams, fra, lost], before);

  road.open(false);
  road.cut();
  const last = await writeSome(lost, "lost last");
  // What it has deleted and changed of what all have is gone from one survivor, and there at the other.
  await lost.client.query("DELETE FROM item WHERE who = 'ams before' AND id % 2 = 0");
  await lost.client.query("UPDATE item SET v = 'last' WHERE who = 'lost before' AND id % 2 = 0");
  for (const id of [...before[0].rows.keys()]) if (id % 2 === 0) before[0].rows.delete(id);
  for (const id of [...before[1].rows.keys()]) if (id % 2 === 0) before[1].rows.set(id, "last");
  await arrived(lost, ams);
  await Promise.all([dying.kill(), lost.node.kill()]);

  const writers = [new LedgerWriter(ams), new LedgerWriter(fra)];
  await eventually("rows that the dead node lacks", () => writers.every(({ rows }) => rows.size > 20));
  const preview = (await ams.node.api("DELETE", "/v1/peers/lost?dry_run=true")).json;
  const [other] = preview.received.others;
  assert.deepEqual([other.peer, other.compared], ["fra", "lacks"]);
  assert.ok(other.committed_at < preview.received.committed_at, JSON.stringify(preview.received));
  assert.ok(preview.undelivered.transactions >= 20, JSON.stringify(preview.undelivered));

  const atAms = await run(ams, "peers", "remove", "lost", "--force");
  assert.ok(atAms.includes(`"fra" has applied "lost" up to ${other.applied_lsn}`), atAms);
  assert.match(atAms, /"fra" lacks what it committed after that/);
  // Asked after it was removed there.
  const atFra = await run(fra, "peers", "remove", "lost", "--force");
  assert.match(atFra, /ams: has more than is here/);
  assert.match(atFra, /run `mmlite verify --peer ams --repair --newest` on "fra"/);
  await run(fra, "verify", "--peer", "ams", "--repair", "--newest");
  for (const writer of writers) await writer.stop();
  await requireSame([ams, fra], [...before, last, ...writers]);
  await run(ams, "verify", "--peer", "fra");
  for (const { node } of [ams, fra]) {
    const { json: { problems } } = await node.api("GET", "/v1/status");
    assert.deepEqual(problems, [], node.name);
  }
});
