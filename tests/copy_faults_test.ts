/** Copies that meet kills, broken connections, peers that come late, and values that were not sent. */
import assert from "node:assert/strict";
import { ZERO_LSN } from "../src/lsn.ts";
import { PUBLICATIONS } from "../src/pg/publication.ts";
import { parsePostgresUrl } from "../src/pg/target.ts";
import { openSource } from "../src/source/source.ts";
import { arrived, type ClusterMember } from "./support/cluster.ts";
import { copy, ended, requireEqual, startEmpty, startFilled } from "./support/copy_bed.ts";
import { connectAll } from "./support/mmlite.ts";
import { NEVER } from "./support/peer_ports.ts";
import { eventually } from "./support/poll.ts";
import { startPostgres } from "./support/postgres.ts";

/** Another session at a node's database. */
async function sessionOf({ server, database }: ClusterMember) {
  const client = await server.connect(database);
  return {
    query: (sql: string) => client.query(sql),
    [Symbol.asyncDispose]: () => client.end(),
  };
}

Deno.test("a copy whose node is killed as it ends is on record as ended, or goes on", async () => {
  await using a = await startPostgres({ major: 17 });
  await using cluster = await startFilled(a);
  const [ams] = cluster.members;
  await using joiner = await startEmpty(14, "new14");
  await connectAll([ams, joiner].map(({ node }) => node));
  // The copy waits for this, so that it can be met before its end.
  await using running = await sessionOf(ams);
  await running.query("BEGIN; INSERT INTO gone VALUES (1)");
  const { json: { id } } = await joiner.node.api("POST", "/v1/jobs", { type: "copy", from: "ams" });
  const { client } = joiner;
  const one = async (sql: string) => (await client.query(sql)).rowCount === 1;
  await eventually("the copy to begin", () => one("SELECT FROM mmlite.copy"));

  await using holder = await sessionOf(joiner);
  await holder.query("BEGIN; SELECT FROM mmlite.job WHERE state = 'running' FOR UPDATE");
  await running.query("ROLLBACK");
  const waiting = "FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE mmlite.job%'";
  await eventually("the end of the copy to be put on record", () => one(`SELECT ${waiting}`));
  await joiner.node.kill();
  // A session would do what it waits for before it notices that its client is gone.
  await client.query(`SELECT pg_terminate_backend(pid) ${waiting}`);
  await eventually("its sessions to be gone", async () => !await one(`SELECT ${waiting}`));
  await holder.query("ROLLBACK");
  // Whoever may write does.
  const written = await client.query("INSERT INTO item (id, name, n) VALUES (-1, 'of the new one', 0)").then(
    () => true,
    () => false,
  );
  await joiner.node.start();
  const { state, error } = await ended(joiner.node, id);
  assert.equal(state, "succeeded", JSON.stringify(error));
  assert.equal((await client.query("SELECT FROM item WHERE id = -1")).rowCount, written ? 1 : 0);
  await requireEqual([ams, joiner]);
});

Deno.test("a copy goes on whose connection breaks while it keeps applications from writing", async () => {
  await using a = await startPostgres({ major: 15 });
  await using cluster = await startFilled(a);
  const [ams] = cluster.members;
  await using joiner = await startEmpty(13, "new13");
  await connectAll([ams, joiner].map(({ node }) => node));
  await using holder = await sessionOf(joiner);
  await holder.query("BEGIN; LOCK TABLE item IN SHARE MODE");
  const { json: { id } } = await joiner.node.api("POST", "/v1/jobs", { type: "copy", from: "ams" });
  const waiting = "FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'CREATE TRIGGER%'";
  const isWaiting = async () => (await joiner.client.query(`SELECT ${waiting}`)).rowCount === 1;
  await eventually("the copy to wait for the table", isWaiting);
  await joiner.client.query(`SELECT pg_terminate_backend(pid) ${waiting}`);
  await holder.query("ROLLBACK");
  const { state, error } = await ended(joiner.node, id);
  assert.equal(state, "succeeded", JSON.stringify(error));
  await requireEqual([ams, joiner]);
});

Deno.test("a row that awaited a value when the snapshot was taken awaits it where it is copied to", async () => {
  await using a = await startPostgres({ major: 18 });
  await using b = await startPostgres({ major: 12 });
  await using cluster = await startFilled(a, b);
  const [ams, fra] = cluster.members;
  await using joiner = await startEmpty(16, "new16");
  await connectAll([ams, fra, joiner].map(({ node }) => node));
  await fra.client.query(`UPDATE "Odd Name" SET big = repeat('fra', 1000) WHERE b = 5`);
  await arrived(fra, ams);
  await fra.node.stop();

  // As if fra had sent another version without this value.
  const hash = `mmlite.key_hash('public.Odd Name', ARRAY['k', '5'])`;
  {
    await using applying = await sessionOf(ams);
    const become = "SELECT pg_replication_origin_session_setup('mmlite_fra')";
    await eventually("the origin to be free", () => applying.query(become));
    await applying.query(
      `BEGIN; CREATE TEMPORARY TABLE version AS SELECT v.at FROM "Odd Name" t, mmlite.row_version(t.xmin, ${hash}) v WHERE b = 5;
     INSERT INTO mmlite.unsent (origin, table_schema, table_name, key_columns, key, hash, at)
       SELECT 'fra', 'public', 'Odd Name', ARRAY['Key', 'b'], ARRAY['k', '5'], ${hash}, at FROM version;
     UPDATE "Odd Name" SET big = repeat('old', 1000) WHERE b = 5;
     SELECT pg_replication_origin_xact_setup(pg_current_wal_insert_lsn(), at) FROM version; COMMIT`,
    );
  }

  // What is deleted is read from the slot between the snapshot and the notes.
  await ams.node.api("POST", "/v1/peers/new16/pause");
  const options = {
    ...{
      target: await parsePostgresUrl(a.url("copied"), {}),
      slot: "mmlite_new16",
      publications: PUBLICATIONS,
    },
    ...{ startLsn: ZERO_LSN, flushLsn: ZERO_LSN, serverVersion: 180000, signal: NEVER },
  };
  const held = await eventually("the slot to be free", () => openSource(options));
  const { json: { id } } = await joiner.node.api("POST", "/v1/jobs", { type: "copy", from: "ams" });
  const count = async (what: string) => (await ams.client.query(`SELECT FROM ${what}`)).rowCount;
  const snapshot =
    "pg_stat_activity WHERE state = 'idle in transaction' AND query LIKE '%pg_export_snapshot()%'";
  await eventually("the snapshot", async () => await count(snapshot) === 1);
  assert.equal(await count("mmlite.unsent"), 1);
  await fra.node.start();
  await eventually("the value to come to ams", async () => await count("mmlite.unsent") === 0);
  await held.close();
  await ams.node.api("POST", "/v1/peers/new16/resume");
  const { state, error } = await ended(joiner.node, id);
  assert.equal(state, "succeeded", JSON.stringify(error));
  await eventually("no value to be awaited", async () => {
    return (await joiner.client.query("SELECT FROM mmlite.unsent")).rowCount === 0;
  });
  await requireEqual([ams, fra, joiner]);
});

Deno.test("a copy waits for peers that come late, and for what they committed before", async (t) => {
  await using a = await startPostgres({ major: 18 });
  await using b = await startPostgres({ major: 12 });
  await using cluster = await startFilled(a, b);
  const [ams, fra] = cluster.members;
  const begin = async ({ node }: ClusterMember) =>
    (await node.api("POST", "/v1/jobs", { type: "copy", from: "ams" })).json.id;
  const problems = async ({ node }: ClusterMember) =>
    JSON.stringify((await node.api("GET", "/v1/status")).json.problems);

  await t.step("one that was away when the copy began", async () => {
    await using joiner = await startEmpty(15, "new15");
    await fra.node.stop();
    await connectAll([ams, joiner].map(({ node }) => node));
    await joiner.node.api("PUT", "/v1/peers/fra", { url: fra.node.peerUrl });
    const id = await begin(joiner);
    await eventually("it to wait", async () => /where its changes begin/.test(await problems(joiner)));
    await fra.node.start();
    const { state, error } = await ended(joiner.node, id);
    assert.equal(state, "succeeded", JSON.stringify(error));
    await requireEqual([ams, fra, joiner]);
    for (const { node } of [ams, fra]) await node.api("DELETE", "/v1/peers/new15?force=true");
  });

  await t.step("one that is added while rows are copied", async () => {
    await using joiner = await startEmpty(11, "new11");
    await connectAll([ams, joiner].map(({ node }) => node));
    await using running = await sessionOf(ams);
    await running.query("BEGIN; INSERT INTO gone VALUES (1)");
    const id = await begin(joiner);
    await eventually("it to begin", async () => /being copied/.test(await problems(joiner)));
    await fra.node.api("POST", "/v1/peers/ams/pause");
    await fra.client.query("INSERT INTO item (id, name, n) VALUES (-1, 'late', 0)");
    await connectAll([fra, joiner].map(({ node }) => node));
    await running.query("ROLLBACK");
    await eventually("it to wait, or to end", async () => {
      const { json: { state } } = await joiner.node.api("GET", `/v1/jobs/${id}`);
      return state === "succeeded" || /node ."fra." committed before/.test(await problems(joiner));
    });
    await fra.node.api("POST", "/v1/peers/ams/resume");
    const { state, error } = await ended(joiner.node, id);
    assert.equal(state, "succeeded", JSON.stringify(error));
    await requireEqual([ams, fra, joiner]);
  });
});

Deno.test("a value that is not sent is not taken from a row that came with the copy and that its sender had not seen", async () => {
  await using a = await startPostgres({ major: 18 });
  await using b = await startPostgres({ major: 13 });
  await using cluster = await startFilled(a, b);
  const [ams, fra] = cluster.members;
  await ams.client.query("INSERT INTO doc VALUES (1, 1, repeat('first', 1000))");
  await arrived(ams, fra);
  await ams.node.api("POST", "/v1/peers/fra/pause");
  await ams.client.query("UPDATE doc SET body = repeat('other', 1000)");
  await using joiner = await startEmpty(11, "new11");
  await connectAll([ams, fra, joiner].map(({ node }) => node));
  const { state, error } = await copy(joiner, "ams");
  assert.equal(state, "succeeded", JSON.stringify(error));
  // Newer, and with the first body, which PostgreSQL does not send.
  await fra.client.query("UPDATE doc SET n = 2");
  await arrived(fra, joiner);
  await ams.node.api("POST", "/v1/peers/fra/resume");
  await eventually("no value to be awaited", async () => {
    const left = await Promise.all(
      [ams, fra, joiner].map(({ client }) => client.query("SELECT FROM mmlite.unsent")),
    );
    return left.every(({ rowCount }) => rowCount === 0);
  });
  await requireEqual([ams, fra, joiner]);
});
