import assert from "node:assert/strict";
import { eventually } from "../../tests/support/poll.ts";
import { type PostgresServer, startPostgres } from "../../tests/support/postgres.ts";
import { CORPUS, corpusSchema } from "../../tests/support/type_corpus.ts";
import { closeClient, openClient } from "./client.ts";
import { digestTables, type TableDigest } from "./digest.ts";
import { queryWith } from "./query.ts";
import { readTables } from "./tables.ts";
import { parsePostgresUrl } from "./target.ts";

/** The digests of a database's tables by name; those that `counted` names are not hashed. */
async function digests(server: PostgresServer, database: string, counted: readonly string[] = []) {
  const target = await parsePostgresUrl(server.url(database), {});
  const client = await openClient(target, { applicationName: "mmlite test" });
  try {
    const tables = await readTables(queryWith(client));
    const found = await digestTables({
      target,
      tables,
      isHashed: ({ name }) => !counted.includes(name),
      signal: new AbortController().signal,
    });
    return Object.fromEntries(found.map((digest) => [digest.name, digest])) as Record<string, TableDigest>;
  } finally {
    await closeClient(client);
  }
}

Deno.test("every type has one digest on PostgreSQL 10 and 18", async () => {
  const columns = CORPUS.filter(({ since = 10 }) => since <= 10);
  const rows = Math.max(...columns.map(({ values }) => values.length));
  const create = columns.map(({ name, type }) =>
    `CREATE TABLE public.${name} (id int PRIMARY KEY, v ${type});`
  );
  await using older = await startPostgres({ major: 10 });
  await using newer = await startPostgres({ major: 18 });
  for (
    const [server, settings] of [[older, "datestyle = 'German'"], [newer, "timezone = 'Asia/Tokyo'"]] as const
  ) {
    await server.sql("postgres", `CREATE DATABASE types`);
    await server.sql("postgres", `ALTER DATABASE types SET ${settings}`);
    await server.sql("postgres", `ALTER DATABASE types SET extra_float_digits = -3`);
    await server.sql("types", `${corpusSchema(10)} ${create.join("\n")}`);
  }
  const pinned = `SET datestyle = 'ISO'; SET timezone = 'UTC'; SET extra_float_digits = 3;
    SET search_path = public; SET xmloption = 'content';`;
  for (const { name, type, values } of columns) {
    const given = Array.from(
      { length: rows },
      (_, id) => `(${id}, (${values[id % values.length]})::${type})`,
    );
    const file = `${older.dataDir}/${name}.copy`;
    await older.sql(
      "types",
      `${pinned} INSERT INTO ${name} VALUES ${given}; COPY ${name} TO '${file}' (ENCODING 'UTF8')`,
    );
    await newer.sql("types", `${pinned} COPY ${name} FROM '${file}' (ENCODING 'UTF8')`);
  }
  const [left, right] = [await digests(older, "types"), await digests(newer, "types")];
  const differing = columns.map(({ name }) => name).filter((name) => left[name].hash !== right[name].hash);
  assert.deepEqual(differing, []);
  assert.equal(new Set(columns.map(({ name }) => left[name].hash)).size, columns.length);
});

Deno.test("a digest depends on what rows hold, not on how they lie", async () => {
  await using server = await startPostgres({ major: 18 });
  await using latin1 = await startPostgres({ major: 11, encoding: "LATIN1" });
  await server.sql(
    "postgres",
    `CREATE TABLE plain (id int PRIMARY KEY, a text, "B" numeric, g int GENERATED ALWAYS AS (id + 1) STORED);
     CREATE TABLE moved ("B" numeric, x int, a text, id int) PARTITION BY LIST (id);
     CREATE TABLE first PARTITION OF moved FOR VALUES IN (1, 3); ALTER TABLE moved DROP x;
     CREATE TABLE second PARTITION OF moved DEFAULT;
     CREATE TABLE twice (LIKE plain); CREATE TABLE empty (id int); CREATE TABLE nothing ();
     CREATE TABLE child () INHERITS (plain); INSERT INTO child VALUES (9, 'not of its parent', 1);
     CREATE TABLE trailing_zero (LIKE plain); CREATE TABLE null_for_empty (LIKE plain);
     CREATE TABLE swapped (LIKE plain);
     INSERT INTO plain VALUES (1, 'é', 1.10), (2, '', NULL), (3, NULL, 0);
     INSERT INTO moved (id, a, "B") VALUES (3, NULL, 0), (2, '', NULL), (1, 'é', 1.10);
     INSERT INTO twice SELECT * FROM ONLY plain; INSERT INTO twice VALUES (1, 'é', 1.10), (1, 'é', 1.10);
     INSERT INTO trailing_zero VALUES (1, 'é', 1.1), (2, '', NULL), (3, NULL, 0);
     INSERT INTO null_for_empty VALUES (1, 'é', 1.10), (2, NULL, NULL), (3, NULL, 0);
     INSERT INTO swapped VALUES (1, '', 1.10), (2, 'é', NULL), (3, NULL, 0)`,
  );
  await latin1.sql(
    "postgres",
    `SET client_encoding = 'UTF8'; CREATE TABLE plain (a text, "B" numeric, id int);
     INSERT INTO plain VALUES ('é', 1.10, 1), ('', NULL, 2), (NULL, 0, 3)`,
  );
  const here = await digests(server, "postgres");
  assert.deepEqual(here.plain.columns, ["B", "a", "id"]);
  assert.deepEqual([here.plain.rows, here.twice.rows, here.empty.rows, here.nothing.rows], [
    "3",
    "5",
    "0",
    "0",
  ]);
  assert.equal(here.moved.hash, here.plain.hash);
  assert.equal((await digests(latin1, "postgres")).plain.hash, here.plain.hash);
  const others = ["twice", "trailing_zero", "null_for_empty", "swapped", "child", "empty", "nothing"];
  const hashes = [here.plain, ...others.map((name) => here[name])].map(({ hash }) => hash);
  assert.equal(new Set(hashes).size, hashes.length);
  const { plain, twice } = await digests(server, "postgres", ["plain"]);
  assert.deepEqual([plain.hash, plain.rows, twice.hash], [null, "3", here.twice.hash]);
});

Deno.test("a digest that is not wanted any more is broken off, in the server as well", async () => {
  await using server = await startPostgres({ major: 13 });
  await server.sql("postgres", "CREATE TABLE t AS SELECT g FROM generate_series(1, 100) g");
  const target = await parsePostgresUrl(server.url(), {});
  const client = await openClient(target, { applicationName: "mmlite test" });
  const tables = await readTables(queryWith(client));
  await client.query("BEGIN; LOCK TABLE public.t IN ACCESS EXCLUSIVE MODE");
  const stop = new AbortController();
  const digest = digestTables({ target, tables, isHashed: () => true, signal: stop.signal });
  const broken = assert.rejects(digest, { kind: "aborted" });
  const readers = async () =>
    await server.sql(
      "postgres",
      "SELECT wait_event_type FROM pg_stat_activity WHERE application_name = 'mmlite digest'",
    );
  await eventually("the digest to wait", async () => (await readers())[0]?.wait_event_type === "Lock");
  stop.abort();
  await broken;
  await eventually("nobody to read any more", async () => (await readers()).length === 0);
  await closeClient(client);
});

Deno.test("a table that was read is locked no more while the next one is waited for", async () => {
  await using server = await startPostgres({ major: 18 });
  await server.sql("postgres", "CREATE TABLE a (id int); CREATE TABLE b (id int)");
  const target = await parsePostgresUrl(server.url(), {});
  const client = await openClient(target, { applicationName: "mmlite test" });
  const tables = await readTables(queryWith(client));
  await client.query("BEGIN; LOCK TABLE public.b IN ACCESS EXCLUSIVE MODE");
  const digest = digestTables({
    target,
    tables: tables.sort((one, other) => (one.name < other.name ? -1 : 1)),
    isHashed: () => true,
    signal: new AbortController().signal,
  });
  const waiting = "SELECT FROM pg_locks WHERE relation = 'b'::regclass AND NOT granted";
  await eventually("b to be waited for", async () => (await server.sql("postgres", waiting)).length > 0);
  await server.sql("postgres", "SET lock_timeout = '5s'; ALTER TABLE a ADD COLUMN v text");
  await client.query("COMMIT");
  assert.deepEqual((await digest).map(({ rows }) => rows), ["0", "0"]);
  await closeClient(client);
});
