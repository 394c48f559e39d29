/** A node whose rows have come is written to by applications only once it has what others committed meanwhile. */
import assert from "node:assert/strict";
import { arrived, type ClusterMember } from "./support/cluster.ts";
import { ended, requireEqual, startEmpty, startFilled } from "./support/copy_bed.ts";
import { connectAll } from "./support/mmlite.ts";
import { eventually } from "./support/poll.ts";
import { startPostgres } from "./support/postgres.ts";

Deno.test("a node that copies goes live when it has caught up, also across a kill", async () => {
  await using a = await startPostgres({ major: 18 });
  await using b = await startPostgres({ major: 13 });
  await using cluster = await startFilled(a, b);
  const [ams, fra] = cluster.members;
  await using joiner = await startEmpty(16, "new");
  await connectAll([ams, fra, joiner].map(({ node }) => node));
  const problems = async () => JSON.stringify((await joiner.node.api("GET", "/v1/status")).json.problems);
  const isHeldUp = () =>
    eventually("the node to wait for fra", async () => {
      const now = await problems();
      if (/Applications cannot write on this node yet.*committed on .*fra.* meanwhile/.test(now)) return true;
      throw new Error(now);
    });
  // All have exchanged where their streams begin.
  for (const member of [ams, fra]) await arrived(member, joiner);

  await fra.node.api("POST", "/v1/peers/new/pause");
  await fra.client.query("INSERT INTO gone VALUES (501)");
  await arrived(fra, ams);
  const { json: { id } } = await joiner.node.api("POST", "/v1/jobs", { type: "copy", from: "ams" });
  await isHeldUp();

  await ams.client.query("INSERT INTO gone VALUES (502)");
  await arrived(ams, joiner);
  const write = () => joiner.client.query("INSERT INTO gone VALUES (503)");
  await assert.rejects(write(), { code: "55000" });
  await joiner.node.kill();
  await joiner.node.start();
  await isHeldUp();
  await assert.rejects(write(), { code: "55000" });
  const { rows: [{ count }] } = await joiner.client.query("SELECT count(*)::int FROM item");
  assert.equal(count, 30_000, "the rows that have come stay");

  await fra.node.api("POST", "/v1/peers/new/resume");
  const { state, error, result } = await ended(joiner.node, id);
  assert.equal(state, "succeeded", JSON.stringify(error));
  assert.ok((result as { rows: number }).rows > 30_000);
  await write();
  await requireEqual([ams, fra, joiner]);
  assert.doesNotMatch(await problems(), /cannot write/);
});

Deno.test("a row that its donor deleted before it came, which is noted after the snapshot, goes on the joiner too", async () => {
  await using a = await startPostgres({ major: 18 });
  await using b = await startPostgres({ major: 13 });
  await using cluster = await startFilled(a, b);
  const [ams, fra] = cluster.members;
  await using joiner = await startEmpty(14, "new");
  await connectAll([ams, fra, joiner].map(({ node }) => node));
  for (const member of [ams, fra]) await arrived(member, joiner);
  // What ams deletes is read by nobody, and what fra writes comes later than it.
  for (const peer of ["fra", "new"]) await ams.node.api("POST", `/v1/peers/${peer}/pause`);
  await fra.node.api("POST", "/v1/peers/ams/pause");
  await fra.client.query("UPDATE item SET name = 'older' WHERE id = 1");
  await fra.client.query("INSERT INTO gone VALUES (601)");
  await ams.client.query("DELETE FROM item WHERE id = 1");
  await ams.client.query("TRUNCATE gone");
  await fra.node.api("POST", "/v1/peers/ams/resume");
  const isThere = async ({ client }: ClusterMember) =>
    (await client.query("SELECT id FROM item WHERE id = 1 UNION ALL SELECT id FROM gone WHERE id = 601"))
      .rowCount;
  await eventually(
    "the rows to come back to ams, which has not noted that it deleted them",
    async () => await isThere(ams) === 2,
  );
  const { json: { id } } = await joiner.node.api("POST", "/v1/jobs", { type: "copy", from: "ams" });
  await eventually("ams to take the rows away", async () => await isThere(ams) === 0);
  for (const peer of ["fra", "new"]) await ams.node.api("POST", `/v1/peers/${peer}/resume`);
  const { state, error } = await ended(joiner.node, id);
  assert.equal(state, "succeeded", JSON.stringify(error));
  await eventually("the rows to go at new", async () => await isThere(joiner) === 0);
  await requireEqual([ams, fra, joiner]);
});
