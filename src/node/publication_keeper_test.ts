import assert from "node:assert/strict";
import { startPostgres } from "../../tests/support/postgres.ts";
import type { Config } from "../config.ts";
import type { MmliteError } from "../errors.ts";
import { readPublications } from "../pg/publication.ts";
import { ensureSchema } from "../pg/schema.ts";
import { createSlot } from "../pg/slots.ts";
import { formatTableName } from "../table_name.ts";
import { reachDatabase } from "./database.ts";
import { initNode } from "./init.ts";
import { PublicationKeeper } from "./publication_keeper.ts";

type Major = Parameters<typeof startPostgres>[0]["major"];

const PATTERNS = { include: ["public.*"], exclude: [] };

/** A keeper of everything in schema `public`, and a superuser's session beside it. */
async function openKeeper(major: Major, { schema, user }: { schema: string; user?: string }) {
  await using stack = new AsyncDisposableStack();
  const server = stack.use(await startPostgres({ major, settings: { track_commit_timestamp: "on" } }));
  await server.createDatabase("app");
  const client = stack.adopt(await server.connect("app"), (one) => one.end());
  await client.query(schema);
  const { target, control, facts } = await reachDatabase(
    server.url("app", user === undefined ? {} : { user }),
  );
  stack.defer(() => control.close());
  const asked: string[] = [];
  const query = control.query("test");
  await ensureSchema(query);
  await query(
    "INSERT INTO mmlite.node VALUES (true, 'c', 'ams', '4a2e51b2-5f0b-4ad9-9a7c-5d3f5f3f3f3f')",
  );
  const counted: typeof control = {
    ...control,
    query: (doing) => (text, params) => {
      asked.push(text);
      return control.query(doing)(text, params);
    },
  };
  const database = { target, control: counted, facts } as ConstructorParameters<
    typeof PublicationKeeper
  >[0]["database"];
  const keeper = new PublicationKeeper({ database, patterns: PATTERNS });
  await keeper.sync();
  const owned = stack.move();
  return {
    ...{ server, client, keeper, asked },
    config: { postgres: { url: server.url("app") }, tables: PATTERNS, peers: [] } as unknown as Config,
    published: async () =>
      (await readPublications(query)).flatMap(({ name, tables }) =>
        tables.map((table) => `${name} ${formatTableName(table)}`)
      ).sort(),
    diverged: async () =>
      (await query("SELECT table_name, reason FROM mmlite.diverged ORDER BY 1"))
        .map(({ table_name, reason }) => `${table_name}: ${reason}`),
    oidOf: async (table: string) =>
      Number((await query("SELECT $1::regclass::oid::text AS oid", [table]))[0].oid),
    /** Makes a slot; how many changes are decoded from it then. */
    decoding: async () => {
      await createSlot(query, { target, name: "seen" });
      return async () => {
        const { rows } = await client.query(
          `SELECT chr(get_byte(data, 0)) AS kind FROM pg_logical_slot_get_binary_changes('seen', NULL, NULL,
             'proto_version', '1', 'publication_names', 'mmlite,mmlite_inserts')`,
        );
        return rows.map(({ kind }) => kind).filter((kind) => "IUDT".includes(kind)).join("");
      };
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

for (const major of [13, 18] as const) {
  Deno.test(`a published table that becomes a partition is published all the time, on PostgreSQL ${major}`, async () => {
    await using bed = await openKeeper(major, {
      schema: `CREATE TABLE public.part (id int PRIMARY KEY); INSERT INTO public.part VALUES (1), (2), (3);
        CREATE TABLE public.plain (id int PRIMARY KEY)`,
    });
    const { client, keeper } = bed;
    const decoded = await bed.decoding();
    await client.query(
      `CREATE TABLE public.root (id int PRIMARY KEY) PARTITION BY RANGE (id);
       CREATE TABLE public.empty PARTITION OF public.root FOR VALUES FROM (100) TO (200);
       ALTER TABLE public.root ATTACH PARTITION public.part FOR VALUES FROM (0) TO (100);
       DELETE FROM public.part WHERE id = 1`,
    );
    const init = await initNode(bed.config, { dryRun: true });
    assert.deepEqual(init.slice(-2).map((sql) => sql.replace(/ ONLY/, "")), [
      'ALTER PUBLICATION mmlite DROP TABLE "public"."part"',
      'ALTER PUBLICATION mmlite ADD TABLE "public"."root"',
    ]);
    await keeper.sync();
    assert.deepEqual(await bed.published(), ["mmlite public.plain", "mmlite public.root"]);
    await client.query("DELETE FROM public.part WHERE id = 2");
    await keeper.sync();
    assert.equal(await decoded(), "DD");
    assert.deepEqual(await bed.diverged(), []);
    await keeper.awaitKnown(await bed.oidOf("public.root"));
    assert.deepEqual(keeper.problems(), []);
  });
}

Deno.test("rows of partitions that are new beside a published one are said to be missing", async () => {
  await using bed = await openKeeper(18, { schema: "CREATE TABLE public.part (id int PRIMARY KEY)" });
  await bed.client.query(
    `CREATE TABLE public.root (id int PRIMARY KEY) PARTITION BY RANGE (id);
     CREATE TABLE public.mid PARTITION OF public.root FOR VALUES FROM (100) TO (200) PARTITION BY RANGE (id);
     CREATE TABLE public.more PARTITION OF public.mid FOR VALUES FROM (100) TO (150);
     ALTER TABLE public.root ATTACH PARTITION public.part FOR VALUES FROM (0) TO (100);
     INSERT INTO public.root VALUES (1), (101)`,
  );
  await bed.keeper.sync();
  assert.deepEqual(await bed.published(), ["mmlite public.root"]);
  assert.deepEqual(await bed.diverged(), [
    "root: a partition had rows when node ams began to publish it: they were not sent (`mmlite tables resync`)",
  ]);
});

Deno.test("a table that waits is waited for while another one takes an operator", async () => {
  await using bed = await openKeeper(18, {
    user: "node",
    schema: `CREATE ROLE node LOGIN REPLICATION; GRANT CREATE ON DATABASE app TO node;
      GRANT CREATE ON SCHEMA public TO node; GRANT SET ON PARAMETER session_replication_role, deadlock_timeout TO node`,
  });
  const { client, keeper } = bed;
  await client.query(
    `SET ROLE node; CREATE TABLE public.mine (id int PRIMARY KEY); RESET ROLE;
     CREATE TABLE public.theirs (id int PRIMARY KEY)`,
  );
  await client.query("BEGIN; INSERT INTO public.mine VALUES (1)");
  const oid = await bed.oidOf("public.mine");
  await assert.rejects(keeper.awaitKnown(oid), (error: MmliteError) => error.kind === "transient");
  assert.equal(keeper.failure?.kind, "permission");
  assert.deepEqual(await bed.published(), []);
  await client.query("COMMIT");
  await keeper.awaitKnown(oid);
  assert.deepEqual(await bed.published(), ["mmlite public.mine"]);
});

Deno.test("a table that waits is tried again without reading all others, and peers are told of it once", async () => {
  await using bed = await openKeeper(18, { schema: "CREATE TABLE public.old (id int PRIMARY KEY)" });
  const { client, keeper, asked } = bed;
  await client.query("CREATE TABLE public.fresh (id int PRIMARY KEY)");
  await client.query("BEGIN; LOCK TABLE public.fresh IN ROW EXCLUSIVE MODE");
  await keeper.sync();
  const grown = [keeper.takeGrown()];
  const oid = await bed.oidOf("public.fresh");
  asked.length = 0;
  await keeper.sync();
  await assert.rejects(keeper.awaitKnown(oid), (error: MmliteError) => error.kind === "transient");
  const reads = () => asked.filter((sql) => /FROM pg_publication p|FROM pg_class c|known_tables/.test(sql));
  assert.deepEqual(reads(), []);
  await keeper.sync({ anew: true });
  assert.notDeepEqual(reads(), []);
  grown.push(keeper.takeGrown());
  assert.deepEqual(grown, [true, false]);
  await client.query("COMMIT");
  await keeper.sync();
  assert.deepEqual(await bed.published(), ["mmlite public.fresh", "mmlite public.old"]);
  await keeper.awaitKnown(oid);
  assert.deepEqual(keeper.problems(), []);
  await client.query("CREATE TABLE public.more (id int PRIMARY KEY)");
  await keeper.sync();
  assert.deepEqual([keeper.takeGrown(), keeper.takeGrown()], [true, false]);
});
