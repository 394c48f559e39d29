/** Values go in binary form from node to node while all of them may, and as text from where one may not. */
import assert from "node:assert/strict";
import { arrived, type ClusterMember, startCluster } from "./support/cluster.ts";
import { eventually } from "./support/poll.ts";
import { type PostgresServer, startPostgres } from "./support/postgres.ts";

const SCHEMA = `CREATE TABLE public.t (id int PRIMARY KEY, n numeric, at timestamptz, v text);
  CREATE TABLE public.other (id bigint PRIMARY KEY, v jsonb)`;
const ROWS = 200;

/** How the slots of a server were started, in their order. */
async function starts(server: PostgresServer): Promise<string[]> {
  const commands = (await server.log()).matchAll(/START_REPLICATION SLOT .*/g);
  return [...commands].map(([command]) => command.includes(`binary 'true'`) ? "binary" : "text");
}

async function requireEqual(members: readonly ClusterMember[], table: string, rows: number): Promise<void> {
  const read = async ({ client }: ClusterMember) =>
    (await client.query(`SELECT t::text AS row FROM public.${table} AS t ORDER BY id`)).rows.map(({ row }) =>
      row
    );
  const [first, ...rest] = await Promise.all(members.map(read));
  assert.equal(first.length, rows);
  for (const other of rest) assert.deepEqual(other, first);
}

async function write({ client }: ClusterMember, from: number): Promise<void> {
  await client.query(
    `INSERT INTO public.t SELECT g, g / 7.0, timestamptz '2020-01-01Z' - (g % 6000) * interval '1 year', 'v' || g
       FROM generate_series($1::int, $1::int + ${ROWS - 1}) g`,
    [from],
  );
  await client.query(`UPDATE public.t SET n = n * 1.5, v = NULL WHERE id % 3 = 0 AND id >= $1`, [from]);
  await client.query(`DELETE FROM public.t WHERE id % 10 = 9 AND id >= $1`, [from]);
}

Deno.test("a link turns to text where a type comes that only goes so, and loses nothing", async () => {
  await using server = await startPostgres({ major: 18, settings: { log_replication_commands: "on" } });
  await using other = await startPostgres({ major: 14, settings: { log_replication_commands: "on" } });
  await using cluster = await startCluster("turning", [
    { server, name: "a", schema: SCHEMA },
    { server: other, name: "b", schema: SCHEMA },
  ]);
  const { members } = cluster;
  const [a, b] = members;
  await write(a, 1);
  await write(b, 1001);
  await arrived(a, b);
  await arrived(b, a);
  await requireEqual(members, "t", 2 * ROWS * 9 / 10);
  assert.equal((await starts(server)).at(-1), "binary");
  assert.equal((await starts(other)).at(-1), "binary");

  // Of a table that is published already, in the midst of other changes.
  await b.client.query("ALTER TABLE public.other ADD list float8[]");
  await a.client.query("BEGIN");
  await write(a, 2001);
  await a.client.query("ALTER TABLE public.other ADD list float8[]");
  await a.client.query(
    `INSERT INTO public.other SELECT g, jsonb_build_object('b', g, 'a', g / 3.0), ARRAY[g / 3.0::float8, NULL]
       FROM generate_series(1, ${ROWS}) g`,
  );
  await write(a, 3001);
  await a.client.query("COMMIT");
  await write(a, 4001);
  await arrived(a, b);
  await requireEqual(members, "t", 5 * ROWS * 9 / 10);
  await requireEqual(members, "other", ROWS);
  assert.equal((await starts(server)).at(-1), "text");

  // The other way no change of that table has come yet.
  await b.client.query("UPDATE public.other SET v = '[1, 2]' WHERE id <= 50");
  await write(b, 5001);
  await arrived(b, a);
  await requireEqual(members, "other", ROWS);
  await requireEqual(members, "t", 6 * ROWS * 9 / 10);
  assert.equal((await starts(other)).at(-1), "text");

  // Nothing says so but the link's last error.
  const { json } = await a.node.api("GET", "/v1/peers/b");
  assert.equal(json.state, "streaming");
  assert.match(json.last_error.message, /column "list" is of a type that only goes as text/);

  // Once the column is gone, the next session is in binary form again.
  for (const { client } of members) await client.query("ALTER TABLE public.other DROP list");
  await write(a, 6001);
  await arrived(a, b);
  await a.node.api("POST", "/v1/peers/b/pause");
  await a.node.api("POST", "/v1/peers/b/resume");
  await eventually("values in binary form", async () => (await starts(server)).at(-1) === "binary");
  await write(a, 7001);
  await a.client.query("DELETE FROM public.other WHERE id > 100");
  await arrived(a, b);
  await requireEqual(members, "t", 8 * ROWS * 9 / 10);
  await requireEqual(members, "other", 100);
});

Deno.test("a table with such a type that is created later is picked up, and loses nothing", async () => {
  await using server = await startPostgres({ major: 18 });
  await using other = await startPostgres({ major: 16 });
  await using cluster = await startCluster("created", [
    { server, name: "a", schema: SCHEMA },
    { server: other, name: "b", schema: SCHEMA },
  ]);
  const { members } = cluster;
  const [a, b] = members;
  for (const { client } of members) {
    await client.query("CREATE TABLE public.fresh (id int PRIMARY KEY, mood point, v text)");
  }
  await write(a, 1);
  await a.client.query(
    `INSERT INTO public.fresh SELECT g, point(g, -g / 3.0), 'v' FROM generate_series(1, ${ROWS}) g`,
  );
  await eventually("the new table to come", async () => {
    const { rows: [{ count }] } = await b.client.query("SELECT count(*)::int FROM public.fresh");
    return count === ROWS;
  });
  await write(a, 1001);
  await arrived(a, b);
  await requireEqual(members, "fresh", ROWS);
  await requireEqual(members, "t", 2 * ROWS * 9 / 10);
});
