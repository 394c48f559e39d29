/** Copying large tables on several channels into several sessions at once: the same rows, versions and ends as with one. */
import assert from "node:assert/strict";
import { arrived, type Cluster, type ClusterMember, startCluster } from "./support/cluster.ts";
import { ended } from "./support/copy_bed.ts";
import { eventually } from "./support/poll.ts";
import { type PostgresMajor, type PostgresServer, startPostgres } from "./support/postgres.ts";

const SCHEMA =
  `CREATE TABLE big (id int PRIMARY KEY, n int NOT NULL, body text NOT NULL) WITH (fillfactor = 10);
  CREATE TABLE other (id int PRIMARY KEY, n int NOT NULL, body text NOT NULL)`;
/** Two on each page, so that there are more than two ranges of them. */
const ROWS = 45_000;
const BODY_BYTES = 320;
/** As old rows are: committed long ago, which an origin can say. */
const FILLED = `SELECT pg_replication_origin_session_setup('filler');
  INSERT INTO big SELECT g, 0, repeat(md5(g::text), ${BODY_BYTES / 32}) FROM generate_series(1, ${ROWS}) g;
  INSERT INTO other SELECT id, n, body FROM big WHERE id <= 10000;
  SELECT pg_replication_origin_xact_setup('0/1', '2020-01-01 00:00:00Z')`;

/** Node "ams", whose tables are filled, and "new", whose are empty. */
async function start(from: PostgresServer, to: PostgresServer): Promise<Cluster> {
  await from.sql("postgres", "SELECT pg_replication_origin_create('filler')");
  const cluster = await startCluster("parallel", [
    { server: from, name: "ams", schema: `${SCHEMA}; ${FILLED}` },
    { server: to, name: "new", schema: SCHEMA },
  ]);
  const [ams, joined] = cluster.members;
  const { client } = ams;
  await client.query("SELECT pg_replication_origin_session_reset()");
  // With versions of their own, on all pages and by more transactions than one.
  for (const n of [1, 2]) await client.query(`UPDATE big SET n = ${n} WHERE id % 499 = ${n}`);
  await arrived(ams, joined);
  return cluster;
}

async function begin({ node }: ClusterMember, more: object = {}): Promise<string> {
  const { status, json } = await node.api("POST", "/v1/jobs", { type: "copy", from: "ams", ...more });
  assert.equal(status, 202, JSON.stringify(json));
  return json.id;
}

async function contents({ client }: ClusterMember): Promise<unknown> {
  const { rows } = await client.query(
    `SELECT t, count(*)::int, md5(string_agg(row, '|' ORDER BY row COLLATE "C")) FROM (
       SELECT 'big' AS t, b::text AS row FROM big b UNION ALL SELECT 'other', o::text FROM other o) all_rows
      GROUP BY t ORDER BY t`,
  );
  return rows;
}

async function versions({ client }: ClusterMember): Promise<unknown[]> {
  const { rows } = await client.query(
    `SELECT format('%s %s %s', b.id, v.at AT TIME ZONE 'UTC', v.node) AS version
       FROM big b, mmlite.row_version(b.xmin, mmlite.key_hash('public.big', ARRAY[b.id::text])) v
      WHERE b.n > 0 ORDER BY b.id`,
  );
  return rows;
}

async function count({ client }: ClusterMember, from: string): Promise<number> {
  return (await client.query(`SELECT FROM ${from}`)).rowCount!;
}

async function requireEqual(ams: ClusterMember, joined: ClusterMember): Promise<void> {
  await arrived(ams, joined);
  await arrived(joined, ams);
  assert.deepEqual(await contents(joined), await contents(ams));
  assert.deepEqual(await versions(joined), await versions(ams));
}

const PAIRS = [[18, 10], [14, 13], [13, 14], [10, 18]] satisfies [PostgresMajor, PostgresMajor][];
for (const [from, to] of PAIRS) {
  Deno.test(`several sessions copy the same rows and versions from PostgreSQL ${from} to ${to}`, async () => {
    await using a = await startPostgres({ major: from });
    await using b = await startPostgres({ major: to });
    await using cluster = await start(a, b);
    const [ams, joined] = cluster.members;
    const { state, error, result } = await ended(joined.node, await begin(joined));
    assert.equal(state, "succeeded", JSON.stringify(error));
    const rowsOf = (name: string) =>
      result.tables.find(({ table }: { table: string }) => table === name).rows;
    assert.deepEqual([rowsOf("public.big"), rowsOf("public.other")], [ROWS, 10_000]);
    assert.equal(
      await count(joined, "pg_replication_origin WHERE roname IN ('mmlite:new:copy', 'mmlite:new:repair')"),
      2,
    );
    // A range is a transaction; below 14 a table is one, and another one for newer rows.
    const { rows: [{ transactions }] } = await joined.client.query(
      "SELECT count(DISTINCT xmin::text)::int AS transactions FROM big WHERE n = 0",
    );
    assert(from < 14 ? transactions === 1 : transactions > 1, `${transactions} transactions`);
    await requireEqual(ams, joined);

    const conflicts = await count(joined, "mmlite.conflict");
    // What comes next follows the copied rows: none is a conflict, and none goes back.
    await ams.client.query("UPDATE big SET n = 5 WHERE id % 1000 = 3");
    await arrived(ams, joined);
    await joined.client.query("UPDATE big SET n = 6 WHERE id % 1000 = 4");
    await requireEqual(ams, joined);
    assert.equal(await count(joined, "mmlite.conflict"), conflicts);
    assert.equal(await count(ams, "mmlite.conflict"), 0);
  });
}

Deno.test("a copy by several sessions that is killed begins anew, and keeps to its rate", async () => {
  await using a = await startPostgres({ major: 17 });
  await using b = await startPostgres({ major: 16 });
  await using cluster = await start(a, b);
  const [ams, joined] = cluster.members;
  const bad = await joined.node.api("POST", "/v1/jobs", { type: "copy", from: "ams", max_rate: "fast" });
  assert.equal(bad.status, 422);
  assert.match(JSON.stringify(bad.json), /a number and its unit, such as 512MB/);

  const rate = 2 * 2 ** 20;
  const id = await begin(joined, { max_rate: "2MiB" });
  const writing = `pg_stat_activity WHERE query LIKE 'COPY%' AND application_name LIKE 'mmlite apply new (%'`;
  await eventually("further sessions to write", async () => await count(joined, writing) > 0, {
    timeoutMs: 60_000,
  });
  await joined.node.kill();
  await assert.rejects(
    joined.client.query("INSERT INTO big VALUES (-1, 0, '')"),
    /its rows are being copied/,
  );
  const began = performance.now();
  await joined.node.start();
  const { state, error } = await ended(joined.node, id);
  assert.equal(state, "succeeded", JSON.stringify(error));
  const bytes = (ROWS + 10_000) * BODY_BYTES;
  const took = performance.now() - began;
  // All but what the channels take at once.
  assert(took > (bytes - 3 * 2 ** 18) / rate * 1000, `${took} ms`);
  await requireEqual(ams, joined);
});
