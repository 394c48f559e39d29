import assert from "node:assert/strict";
import { startPostgres } from "../../tests/support/postgres.ts";
import { MmliteError } from "../errors.ts";
import { readPublications } from "../pg/publication.ts";
import { ensureSchema } from "../pg/schema.ts";
import { formatTableName } from "../table_name.ts";
import { reachDatabase } from "./database.ts";
import { PatternChanges } from "./pattern_changes.ts";
import { PublicationKeeper } from "./publication_keeper.ts";
import { TablePatterns } from "./table_patterns.ts";

async function openChanges(url: string, { fails = () => false }: { fails?: (sql: string) => boolean } = {}) {
  const { target, control: own, facts } = await reachDatabase(url);
  const control: typeof own = {
    ...own,
    query: (doing) => async (text, params) => {
      if (fails(text)) throw new MmliteError("unreachable", `Cannot ${doing}: the connection was lost`);
      return await own.query(doing)(text, params);
    },
  };
  const query = own.query("test");
  await ensureSchema(query);
  const patterns = new TablePatterns({ include: ["public.*"], exclude: [] });
  await patterns.load(query);
  const database = { target, control, facts } as ConstructorParameters<
    typeof PublicationKeeper
  >[0]["database"];
  const publications = new PublicationKeeper({ database, patterns });
  await publications.sync();
  return {
    ...{ control, query, publications, patterns },
    changes: new PatternChanges({ database, patterns, publications }),
    published: async () =>
      (await readPublications(query)).flatMap(({ tables }) => tables.map(formatTableName)).sort(),
  };
}

Deno.test("a pattern whose tables may not be published is taken back, and others go on", async () => {
  await using server = await startPostgres({ major: 18 });
  await server.createDatabase("app");
  await using client = await server.connect("app").then((one) =>
    Object.assign(one, { [Symbol.asyncDispose]: () => one.end() })
  );
  await client.query(
    `CREATE ROLE node LOGIN REPLICATION; GRANT CREATE ON DATABASE app TO node;
     CREATE TABLE public.mine (id int PRIMARY KEY); ALTER TABLE public.mine OWNER TO node;
     CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO node; CREATE TABLE app.theirs (id int PRIMARY KEY);
     CREATE SCHEMA own AUTHORIZATION node; CREATE TABLE own.t (id int PRIMARY KEY); ALTER TABLE own.t OWNER TO node`,
  );
  const node = await openChanges(server.url("app", { user: "node" }));
  try {
    const { changes, patterns, published } = node;
    await assert.rejects(
      changes.put("app.*", "include", { dryRun: false }),
      (error: MmliteError) => error.kind === "permission" && /theirs/.test(error.message),
    );
    assert.deepEqual([patterns.include, node.publications.failure], [["public.*"], null]);
    assert.deepEqual(await published(), ["public.mine"]);
    const { created, change } = await changes.put("own.*", "include", { dryRun: false });
    assert.deepEqual([created, change.published.map(formatTableName)], [true, ["own.t"]]);
    assert.deepEqual(await published(), ["own.t", "public.mine"]);
    const stuck = await openChanges(server.url("app", { user: "node" }), {
      fails: (sql) => sql.startsWith("DELETE FROM mmlite.table_pattern"),
    });
    await assert.rejects(
      stuck.changes.put("app.*", "include", { dryRun: false }),
      (error: MmliteError) =>
        error.kind === "permission" && /theirs/.test(error.message) &&
        /; and pattern app\.\* could not be taken back: Cannot add pattern .*: the connection was lost$/
          .test(error.message),
    );
    assert.deepEqual(stuck.patterns.include, ["public.*", "own.*", "app.*"]);
    await stuck.control.close();
  } finally {
    await node.control.close();
  }
});

Deno.test("a pattern that is kept is said to be so where something else stood in the way", async () => {
  await using server = await startPostgres({ major: 18 });
  await server.createDatabase("app");
  const client = await server.connect("app");
  await client.query(
    `CREATE ROLE node LOGIN REPLICATION; GRANT CREATE ON DATABASE app TO node;
     GRANT SET ON PARAMETER session_replication_role, deadlock_timeout TO node;
     CREATE SCHEMA own AUTHORIZATION node; CREATE TABLE own.t (id int PRIMARY KEY); ALTER TABLE own.t OWNER TO node`,
  );
  const node = await openChanges(server.url("app", { user: "node" }));
  try {
    await client.query("CREATE TABLE public.theirs (id int PRIMARY KEY)");
    await assert.rejects(
      node.changes.put("own.*", "include", { dryRun: false }),
      (error: MmliteError) =>
        error.kind === "permission" &&
        /^Pattern own\.\* is added, but the publications do not fit all patterns yet: Cannot publish table public\.theirs: /
          .test(error.message),
    );
    assert.deepEqual([node.patterns.include, await node.published()], [["public.*", "own.*"], ["own.t"]]);
  } finally {
    await node.control.close();
    await client.end();
  }
});

Deno.test("what is new is not published while it is locked, and waited for by what comes from peers", async () => {
  await using server = await startPostgres({ major: 13 });
  await server.createDatabase("app");
  const client = await server.connect("app");
  await client.query("CREATE TABLE public.old (id int PRIMARY KEY)");
  const node = await openChanges(server.url("app"));
  try {
    await client.query(
      "CREATE TABLE public.fresh (id int PRIMARY KEY); CREATE TABLE public.other (id int PRIMARY KEY)",
    );
    const { rows: [{ oid }] } = await client.query("SELECT 'public.fresh'::regclass::oid::int AS oid");
    await client.query("BEGIN; INSERT INTO public.fresh VALUES (1)");
    await assert.rejects(
      node.publications.awaitKnown(oid),
      (error: MmliteError) => error.kind === "transient",
    );
    assert.deepEqual(await node.published(), ["public.old", "public.other"]);
    assert.deepEqual(node.publications.list().map(({ name }) => name), ["old", "other"]);
    assert.match(node.publications.problems()[0].message, /^Cannot publish table public\.fresh: /);
    assert.equal(node.publications.failure, null);
    await client.query("COMMIT");
    await node.publications.awaitKnown(oid);
    assert.deepEqual(await node.published(), ["public.fresh", "public.old", "public.other"]);
    assert.deepEqual(node.publications.problems(), []);
  } finally {
    await node.control.close();
    await client.end();
  }
});
