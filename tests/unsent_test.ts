/** Rows of which not all values were sent, on whole nodes: they come to be those of the node that wrote last. */
import assert from "node:assert/strict";
import { type Cluster, type ClusterMember, startCluster } from "./support/cluster.ts";
import { eventually } from "./support/poll.ts";
import { startPostgres } from "./support/postgres.ts";

/** `big` does not compress, so that it is stored out of line, and not sent where it is unchanged. */
const SCHEMA = `CREATE TABLE t (id int PRIMARY KEY, v text, big text);
  ALTER TABLE t ALTER big SET STORAGE EXTERNAL`;
const ROWS = `SELECT id, v, left(big, 1) || length(big) AS big, x.node, x.at::text AS at
  FROM t, mmlite.row_version(t.xmin, mmlite.key_hash('public.t', ARRAY[id::text])) x ORDER BY id`;

async function rows({ client }: ClusterMember): Promise<unknown[]> {
  return (await client.query(ROWS)).rows;
}

/** Pauses what a node sends to another one, or lets it go on. */
async function link(from: ClusterMember, to: ClusterMember, action: "pause" | "resume"): Promise<void> {
  const { status } = await from.node.api("POST", `/v1/peers/${to.node.name}/${action}`);
  assert.ok(status < 300, `${action}: ${status}`);
}

async function settled({ members }: Cluster, expected: (rows: unknown[]) => boolean): Promise<void> {
  await eventually("all nodes to hold the same", async () => {
    const [first, ...others] = await Promise.all(members.map(rows));
    const waiting = await Promise.all(members.map(({ client }) => client.query("SELECT FROM mmlite.unsent")));
    return expected(first) && others.every((one) => JSON.stringify(one) === JSON.stringify(first)) &&
      waiting.every(({ rowCount }) => rowCount === 0);
  });
}

const has = (v: string, big: string) => ([row]: unknown[]) =>
  (row as { v: string })?.v === v && (row as { big: string }).big === big;

Deno.test("an update without an unchanged value brings the value of the version that it was made from", async (t) => {
  await using server = await startPostgres({ major: 18 });
  await using another = await startPostgres({ major: 16 });
  await using old = await startPostgres({ major: 13 });
  await using cluster = await startCluster("unsent", [
    { server, name: "ua", schema: SCHEMA },
    { server: another, name: "ub", schema: SCHEMA },
    { server: old, name: "uc", schema: SCHEMA },
  ]);
  const [a, b, c] = cluster.members;
  const begin = async (id: number) => {
    await a.client.query("DELETE FROM t");
    await settled(cluster, (rows) => rows.length === 0);
    await a.client.query("INSERT INTO t VALUES ($1, 'first', repeat('f', 5000))", [id]);
    await settled(cluster, has("first", "f5000"));
  };

  await t.step("the update comes before the change of the value that it was made from", async () => {
    await begin(1);
    await link(b, c, "pause");
    await b.client.query("UPDATE t SET big = repeat('b', 6000)");
    await eventually("b's change at a", async () => has("first", "b6000")(await rows(a)));
    await a.client.query("UPDATE t SET v = 'a'");
    await eventually("a's change at c", async () => (await rows(c) as { v: string }[])[0].v === "a");
    await link(b, c, "resume");
    await settled(cluster, has("a", "b6000"));
  });

  await t.step("the update comes over the version of another node", async () => {
    await begin(2);
    await link(c, a, "pause");
    await c.client.query("UPDATE t SET big = repeat('c', 7000)");
    await a.client.query("UPDATE t SET v = 'a'");
    await link(c, a, "resume");
    await settled(cluster, has("a", "f5000"));
  });

  await t.step("the update comes before the row", async () => {
    await begin(3);
    await link(b, c, "pause");
    await b.client.query("INSERT INTO t VALUES (0, 'new', repeat('n', 8000))");
    await eventually("the row at a", async () => (await rows(a)).length === 2);
    await a.client.query("UPDATE t SET v = 'a' WHERE id = 0");
    // It is here before b can send it.
    await eventually("the row at c", async () => has("a", "n8000")(await rows(c)));
    await link(b, c, "resume");
    await settled(cluster, has("a", "n8000"));
  });

  await t.step(
    "status and metrics tell how many rows await values of a peer that cannot be asked",
    async () => {
      const awaited = async () => (await c.node.api("GET", "/v1/peers/ua")).json.inbound.awaited_rows;
      assert.equal(await awaited(), 0);
      await link(a, c, "pause");
      await c.client.query(`SELECT mmlite.note_unsent('ua', 'public', 't', '{id}', '{0}',
        mmlite.key_hash('public.t', '{0}'), clock_timestamp() - interval '1 day')`);
      await eventually("the row to be counted", async () => await awaited() === 1);
      assert.match((await c.node.cli("peers", "list")).stdout, /^from ua: 1 row awaits values of it$/m);
      assert.match((await c.node.api("GET", "/metrics")).json, /^mmlite_awaited_rows\{peer="ua"\} 1$/m);
      await link(a, c, "resume");
      await eventually("the row to be fetched", async () => await awaited() === 0);
    },
  );
});
