import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { type PostgresServer, startPostgres } from "../../tests/support/postgres.ts";
import { closeClient } from "./client.ts";
import { queryWith } from "./query.ts";
import { openHashClient } from "./row_hash.ts";
import { ensureSchema } from "./schema.ts";
import { readScannedTable } from "./scanned_table.ts";
import { type ScanOptions, TableScan } from "./table_scan.ts";
import { readTables } from "./tables.ts";
import { parsePostgresUrl } from "./target.ts";

const SIGNAL = new AbortController().signal;

/** A scan of a table of a server's database `postgres`. */
async function openScan(
  server: PostgresServer,
  name: string,
  options: Partial<ScanOptions> & { readonly database?: string } = {},
) {
  const client = await openHashClient(await parsePostgresUrl(server.url(options.database), {}), {
    applicationName: "mmlite test",
    signal: SIGNAL,
  });
  const query = queryWith(client);
  await ensureSchema(query);
  await query(
    "INSERT INTO mmlite.node VALUES (true, 'c', 'ams', '4a2e51b2-5f0b-4ad9-9a7c-5d3f5f3f3f3f') ON CONFLICT DO NOTHING",
  );
  const table = (await readTables(query)).find((one) => one.name === name)!;
  const [{ version }] = await query("SHOW server_version_num").then((rows) =>
    rows.map((row) => ({ version: Number(Object.values(row)[0]) }))
  );
  const scanned = await readScannedTable(query, table, version);
  const keyed = options.keyed ?? scanned.key.length > 0;
  const scan = new TableScan(query, scanned, {
    ...{ buckets: 256, share: 1, signal: SIGNAL, ...options, keyed, serverVersion: version },
  });
  return { scan, scanned, [Symbol.asyncDispose]: () => closeClient(client) };
}

function hex(text: string): string {
  return Buffer.from(text).toString("hex");
}

Deno.test("the same rows have the same sums on any release, wherever and however they lie", async () => {
  await using newer = await startPostgres({ major: 18 });
  await using older = await startPostgres({ major: 10 });
  // More pages than one statement reads.
  const rows = `SELECT g, 'n' || g, g / 3.0::float8, repeat(g::text, 400) FROM generate_series(1, 30000) g`;
  await newer.sql(
    "postgres",
    `CREATE TABLE t (id int PRIMARY KEY, name text, f float8, big text); ALTER TABLE t ALTER big SET STORAGE PLAIN;
     INSERT INTO t ${rows} ORDER BY g DESC; ANALYZE t`,
  );
  await older.sql(
    "postgres",
    `CREATE TABLE t (big text, f float8, name text, id int) PARTITION BY RANGE (id);
     CREATE TABLE low PARTITION OF t FOR VALUES FROM (MINVALUE) TO (9000);
     CREATE TABLE high PARTITION OF t FOR VALUES FROM (9000) TO (MAXVALUE);
     CREATE UNIQUE INDEX ON low (id); CREATE UNIQUE INDEX ON high (id);
     INSERT INTO t (id, name, f, big) ${rows}`,
  );
  const found = [];
  for (const server of [newer, older]) {
    for (const keyed of server === newer ? [true, false] : [false]) {
      await using one = await openScan(server, "t", { keyed });
      let read = 0;
      if (server === newer) assert.ok(one.scanned.estimatedRows > 20_000);
      const { rows, sums } = await one.scan.sums((more) => read += more);
      assert.deepEqual([rows, read], [30_000, 30_000]);
      found.push(sums);
    }
  }
  assert.deepEqual(found[1], found[2]);
  assert.notDeepEqual(found[0], found[1]);
});

Deno.test("rows of buckets are opened, and looked up by key", async () => {
  await using server = await startPostgres({ major: 18 });
  await server.sql(
    "postgres",
    `CREATE TYPE mood AS ENUM ('good', 'bad');
     CREATE TABLE t (v int, b float8, "A" text, m mood, d date, PRIMARY KEY (b, "A", m, d), g int GENERATED ALWAYS AS (v + 1) STORED);
     INSERT INTO t VALUES (1, 0.1::float8 + 0.2::float8, 'é "x"', 'good', '2020-02-01'), (2, 'NaN', '', 'bad', 'infinity'), (3, 1e-300, 'z', 'bad', '2020-02-01')`,
  );
  await using one = await openScan(server, "t");
  const { scan, scanned } = one;
  assert.deepEqual(scanned.key.map(({ name }) => name), ["A", "b", "d", "m"]);
  assert.deepEqual(scanned.columns.map(({ name }) => name), ["A", "b", "d", "m", "v"]);
  const opened = (await scan.open(Array.from({ length: 256 }, (_, i) => i)))!;
  assert.equal(opened.size, 3);
  const keys = scan.keysOf([...opened.keys(), 5n]);
  assert.equal(keys.pop(), null);
  assert.ok(keys.some((key) => key![0] === hex('é "x"') && key![1] === hex("0.30000000000000004")));
  const looked = await scan.look([...keys as string[][], [
    hex("gone"),
    hex("1"),
    hex("2020-01-01"),
    hex("bad"),
  ]]);
  assert.equal(looked.pop(), null);
  assert.deepEqual(
    looked.map((row) => [row!.state, row!.stamp]),
    [...opened.values()].map(({ state, stamp }) => [state, stamp]),
  );
  for (const row of looked) assert.match(row!.version!, /^\d{4}-.* ams$/);
  await server.sql("postgres", "UPDATE t SET v = 9 WHERE v = 3");
  const again = await scan.look(keys as string[][]);
  assert.equal(again.filter((row, i) => row!.state !== looked[i]!.state).length, 1);
  const bucket = Number([...opened.keys()][0] & 255n);
  assert.ok((await scan.open([bucket]))!.has([...opened.keys()][0]));
});

Deno.test("of a table without key equal rows are counted", async () => {
  await using server = await startPostgres({ major: 12 });
  await server.sql(
    "postgres",
    "CREATE TABLE \"a WHERE b\" (v text); INSERT INTO \"a WHERE b\" VALUES ('a'), ('a'), ('b'), (NULL)",
  );
  await using one = await openScan(server, "a WHERE b");
  const opened = (await one.scan.open(Array.from({ length: 256 }, (_, i) => i)))!;
  assert.deepEqual([...opened.values()].map(({ state }) => state).sort(), [1n, 1n, 2n]);
});

Deno.test("a key that could not be told from its neighbours is no key", async () => {
  await using server = await startPostgres({ major: 18 });
  await server.sql(
    "postgres",
    `CREATE DOMAIN real_domain AS float4; CREATE TABLE arrays (id float8[] PRIMARY KEY); CREATE TABLE domains (id real_domain PRIMARY KEY);
     CREATE TABLE whole (id int PRIMARY KEY, v int); ALTER TABLE whole REPLICA IDENTITY FULL`,
  );
  for (const [name, columns] of [["arrays", []], ["domains", []], ["whole", ["id"]]] as const) {
    await using one = await openScan(server, name);
    assert.deepEqual(one.scanned.key.map(({ name }) => name), columns);
  }
});

Deno.test("a share of the time is rested", async () => {
  await using server = await startPostgres({ major: 18 });
  await server.sql("postgres", "CREATE TABLE t AS SELECT g FROM generate_series(1, 200000) g");
  const took = async (share: number) => {
    await using one = await openScan(server, "t", { share });
    const begun = performance.now();
    await one.scan.sums(() => {});
    return performance.now() - begun;
  };
  await took(1);
  assert.ok(await took(0.1) > 3 * await took(1));
});

Deno.test("buckets whose keys are too long to be kept together are opened in fewer at a time", async () => {
  await using server = await startPostgres({ major: 12 });
  await server.sql(
    "postgres",
    `CREATE TABLE long (k text PRIMARY KEY); ALTER TABLE long ALTER k SET STORAGE PLAIN;
     INSERT INTO long SELECT repeat('x', 1000) || g FROM generate_series(1, 20000) g`,
  );
  await using one = await openScan(server, "long");
  assert.equal(await one.scan.open(Array.from({ length: 256 }, (_, i) => i)), null);
  const opened = await one.scan.open(Array.from({ length: 64 }, (_, i) => i));
  assert.ok(opened!.size > 4_000 && opened!.size < 6_000, `${opened!.size} rows`);
  assert.equal(one.scan.keysOf([...opened!.keys()]).filter((key) => key === null).length, 0);
});

Deno.test("rows of partitions are known by their root's name, whichever name they came under", async () => {
  await using server = await startPostgres({ major: 12, settings: { track_commit_timestamp: "on" } });
  await server.sql(
    "postgres",
    `CREATE TABLE t (b int, a int, v text, PRIMARY KEY (a, b)) PARTITION BY RANGE (a);
     CREATE TABLE low (v text, a int NOT NULL, b int NOT NULL);
     ALTER TABLE t ATTACH PARTITION low FOR VALUES FROM (MINVALUE) TO (9)`,
  );
  await using whole = await openScan(server, "t");
  await using part = await openScan(server, "low");
  await server.sql(
    "postgres",
    `WITH new AS (INSERT INTO t VALUES (2, 1, 'x'), (3, 1, 'y') RETURNING *)
     INSERT INTO mmlite.apply_group SELECT txid_current(), 'fra', at, at + interval '1 s',
         int8send(mmlite.key_hash('public.t', '{2,1}')) || timestamptz_send(at)
       FROM (VALUES (timestamptz '2020-01-01 00:00:00Z')) origin (at)`,
  );
  // As it comes from a server below 13.
  await server.sql(
    "postgres",
    "SELECT mmlite.note_unsent('fra', 'public', 'low', '{b,a}', '{2,1}', mmlite.key_hash('public.t', '{2,1}'), '2020-01-01')",
  );
  for (const { scan, scanned } of [whole, part]) {
    const keyOf = (a: string, b: string) => scanned.key.map(({ name }) => hex(name === "a" ? a : b));
    const [awaiting, other] = await scan.look([keyOf("1", "2"), keyOf("1", "3")]);
    assert.equal(awaiting?.version, "2020-01-01 00:00:00 fra");
    assert.equal(awaiting?.awaited, true);
    assert.match(other!.version!, / fra$/);
    assert.equal(other?.awaited, false);
  }
});
