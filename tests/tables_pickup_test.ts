/**
 * Tables that are created while nodes run and write to them at once: no row is lost around the moment at which each node
 * begins to publish them, on any release.
 */
import assert from "node:assert/strict";
import { type ClusterMember, startCluster } from "./support/cluster.ts";
import { eventually } from "./support/poll.ts";
import { startPostgres } from "./support/postgres.ts";

/** How long clients write, milliseconds: past the moment at which every node publishes the tables. */
const WRITING_MS = 9_000;
/** Between two transactions of a client, milliseconds. */
const PAUSE_MS = 15;
/** Clients of each node. */
const CLIENTS = 2;
/** Rows that each node has under the same keys. */
const SHARED = 20;

const TABLES = (major: number) => `
  CREATE SCHEMA "odd.Sch";
  CREATE TABLE "odd.Sch"."a ""b" (id text PRIMARY KEY, v text);
  CREATE TABLE public.keyed (id text PRIMARY KEY, big text, n int NOT NULL DEFAULT 0);
  ALTER TABLE public.keyed ALTER big SET STORAGE EXTERNAL;
  CREATE TABLE public.keyless (v text);
  CREATE TABLE public.ids (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
  CREATE TABLE public.parted (id text, day int${major >= 11 ? ", PRIMARY KEY (id, day)" : ""})
    PARTITION BY RANGE (day);
  CREATE TABLE public.parted_1 PARTITION OF public.parted FOR VALUES FROM (0) TO (1);
  CREATE TABLE public.parted_2 PARTITION OF public.parted FOR VALUES FROM (1) TO (9);
  ${major >= 11 ? "" : "ALTER TABLE public.parted_1 ADD PRIMARY KEY (id, day);"}
  ${major >= 11 ? "" : "ALTER TABLE public.parted_2 ADD PRIMARY KEY (id, day);"}
  CREATE TABLE public.refers (id text PRIMARY KEY, keyed text REFERENCES public.keyed);
  CREATE TABLE public.shared (id int PRIMARY KEY, v text);
  CREATE TABLE public.taken (id text PRIMARY KEY, v text);`;

/** Rows with their versions, the same on every node. */
const versioned = (table: string) =>
  `(SELECT json_agg(json_build_array(id, v, (mmlite.row_version(t.xmin, mmlite.key_hash('public.${table}', ARRAY[id::text])))::text)
     ORDER BY id) FROM public.${table} t)`;

const CONTENT = `SELECT json_build_object(
  'odd', (SELECT json_agg(t ORDER BY id) FROM "odd.Sch"."a ""b" t),
  'keyed', (SELECT json_agg(json_build_array(id, md5(big), n) ORDER BY id) FROM public.keyed),
  'keyless', (SELECT json_agg(v ORDER BY v) FROM public.keyless),
  'ids', (SELECT json_agg(id ORDER BY id) FROM public.ids),
  'parted', (SELECT json_agg(t ORDER BY id) FROM public.parted t),
  'refers', (SELECT json_agg(t ORDER BY id) FROM public.refers t),
  'shared', ${versioned("shared")},
  'taken', ${versioned("taken")}) AS content`;

/** Writes to every table until the deadline, as several clients; how many transactions were committed. */
async function write({ server, database, node }: ClusterMember, start: number, until: number) {
  const writers = Array.from({ length: CLIENTS }, async (_, client) => {
    const session = await server.connect(database);
    let count = 0;
    for (; performance.now() < until; count++) {
      const id = `${node.name}-${client}-${count}`;
      await session.query("BEGIN");
      await session.query(`INSERT INTO "odd.Sch"."a ""b" VALUES ($1, $1)`, [id]);
      await session.query("INSERT INTO public.keyed (id, big) VALUES ($1, repeat($1, 400))", [id]);
      await session.query("INSERT INTO public.keyless VALUES ($1)", [id]);
      await session.query("INSERT INTO public.ids (id) OVERRIDING SYSTEM VALUE VALUES ($1)", [
        start + client * 100_000 + count,
      ]);
      await session.query("INSERT INTO public.parted VALUES ($1, $2)", [id, count % 3]);
      await session.query("INSERT INTO public.refers VALUES ($1, $1)", [id]);
      if (count % 7 === 3) {
        await session.query("UPDATE public.keyed SET n = n + 1 WHERE id = $1", [
          `${node.name}-${client}-${count - 3}`,
        ]);
        await session.query("DELETE FROM public.parted WHERE id = $1", [
          `${node.name}-${client}-${count - 2}`,
        ]);
      }
      await session.query("INSERT INTO public.taken VALUES ($1, $1)", [id]);
      await session.query("COMMIT");
      // Rows of other nodes too, as soon as they are seen.
      const other = "(SELECT id FROM public.taken WHERE id NOT LIKE $1 ORDER BY random() LIMIT 1)";
      if (count % 3 === 0) {
        await session.query(`DELETE FROM public.taken WHERE id = ${other}`, [`${node.name}%`]);
      }
      if (count % 3 === 1) {
        await session.query(`UPDATE public.taken SET v = $2 WHERE id = ${other}`, [`${node.name}%`, id]);
      }
      await new Promise((wake) => setTimeout(wake, PAUSE_MS));
    }
    await session.end();
    return count;
  });
  return (await Promise.all(writers)).reduce((sum, count) => sum + count, 0);
}

Deno.test("a table that is created on all nodes while they run loses no row of the first seconds", async () => {
  const majors = [10, 13, 14, 18] as const;
  await using stack = new AsyncDisposableStack();
  const members = await Promise.all(majors.map(async (major, i) => {
    const server = stack.use(await startPostgres({ major, settings: { track_commit_timestamp: "on" } }));
    return { server, name: "abcd"[i], schema: "SELECT 1", extraArgs: ["--tables", '"odd.Sch".*'] };
  }));
  await using cluster = await startCluster("app", members);
  const nodes = cluster.members;
  const shared = Array.from({ length: SHARED }, (_, i) => i);
  await Promise.all(nodes.map(({ client }, i) => client.query(TABLES(majors[i]))));
  const until = performance.now() + WRITING_MS;
  const writing = nodes.map((member, i) => write(member, i * 1_000_000, until));
  for (const { client, node } of nodes) {
    await client.query("INSERT INTO public.shared SELECT unnest($1::int[]), $2", [shared, node.name]);
  }
  await nodes[2].node.kill();
  await nodes[2].node.start();
  const counts = await Promise.all(writing);
  const total = counts.reduce((sum, count) => sum + count, 0);
  const look = async () => {
    const found = await Promise.all(nodes.map(async ({ client }) => {
      const { rows: [{ content }] } = await client.query(CONTENT);
      return content;
    }));
    const sizes = found.map((one) => Object.entries(one).map(([name, rows]) => [name, (rows as [])?.length]));
    assert.equal(new Set(found.map((one) => JSON.stringify(one))).size, 1, JSON.stringify(sizes));
    return found;
  };
  const contents = await eventually("all nodes to hold the same rows", look, { timeoutMs: 60_000 });
  for (const name of ["odd", "keyed", "keyless", "ids", "refers"]) {
    assert.equal(contents[0][name].length, total, `rows of ${name}`);
  }
  assert.equal(contents[0].shared.length, SHARED);
  for (const [_id, _v, version] of contents[0].shared) assert.match(version, /^\("20.*",[abcd]\)$/);
  for (const { node } of nodes) {
    const { json } = await node.api("GET", "/v1/status");
    assert.deepEqual(
      json.problems.filter(({ message }: { message: string }) => !/keyless/.test(message)),
      [],
    );
  }
});
