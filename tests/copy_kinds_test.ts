/** Copying tables of every kind: partitioned, with odd types and names, without rows, without columns, with long values. */
import assert from "node:assert/strict";
import { startCluster } from "./support/cluster.ts";
import { eventually } from "./support/poll.ts";
import { type PostgresMajor, startPostgres } from "./support/postgres.ts";

const SCHEMA = `CREATE TYPE public.mood AS ENUM ('calm', 'cross');
  CREATE DOMAIN public.percent AS numeric CHECK (VALUE BETWEEN 0 AND 100);
  CREATE TABLE part (id int, day date, v text) PARTITION BY RANGE (day);
  CREATE TABLE part_1 PARTITION OF part (PRIMARY KEY (id, day)) FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
  CREATE TABLE part_2 PARTITION OF part (PRIMARY KEY (id, day)) FOR VALUES FROM ('2026-07-01') TO ('2027-01-01');
  CREATE TABLE types (c char(4) PRIMARY KEY, m mood, p percent, i interval, t timestamptz, n numeric(20, 5), f float8,
    b bytea, j jsonb, a text[], r int4range, u uuid, ip inet, bits bit(5), k regclass);
  CREATE TABLE parent (id int PRIMARY KEY, v text);
  CREATE TABLE child (w int, PRIMARY KEY (id)) INHERITS (parent);
  CREATE TABLE empty (id int PRIMARY KEY);
  CREATE TABLE bare ();
  CREATE TABLE long (id int PRIMARY KEY, v text);
  CREATE TABLE referring (id int PRIMARY KEY, of int REFERENCES long);
  CREATE TABLE always (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text);
  CREATE FUNCTION public.shout() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''fired''; END';
  CREATE TABLE fires (id int PRIMARY KEY)`;
const LONG_BYTES = 3_000_000;
const FILL = `INSERT INTO part SELECT g, date '2026-01-01' + g, 'v' || g FROM generate_series(1, 300) g;
  INSERT INTO types VALUES ('ab', 'cross', 12.5, '1 mon 2 days 03:04:05.678', '2026-11-28 12:00:00.123456+02', -1.5, 'NaN',
    '\\x00ff', '{"a": "\\u00e9\\n"}', ARRAY['a,b', NULL, '"'], '[1,5)', '11111111-2222-3333-4444-555555555555',
    '10.0.0.0/8', B'10101', 'public.types'), ('', NULL, NULL, NULL, NULL, NULL, '-0', NULL, NULL, '{}', 'empty', NULL, NULL,
    NULL, NULL);
  INSERT INTO parent VALUES (1, 'p'); INSERT INTO child VALUES (2, 'c', 3);
  INSERT INTO bare DEFAULT VALUES; INSERT INTO bare DEFAULT VALUES;
  INSERT INTO long VALUES (1, repeat('\\t\\\\é', ${LONG_BYTES})), (2, '');
  INSERT INTO referring VALUES (7, 1); INSERT INTO always (v) VALUES ('one'), ('two'); INSERT INTO fires VALUES (1)`;
const TABLES = [
  "part",
  "types",
  "ONLY parent",
  "child",
  "empty",
  "bare",
  "long",
  "referring",
  "always",
  "fires",
];

for (const [from, to] of [[18, 18], [18, 10], [10, 17]] satisfies [PostgresMajor, PostgresMajor][]) {
  Deno.test(`tables of every kind are copied from PostgreSQL ${from} to ${to}`, async () => {
    await using a = await startPostgres({ major: from });
    await using b = await startPostgres({ major: to });
    await using cluster = await startCluster("kinds", [
      { server: a, name: "ams", schema: SCHEMA },
      { server: b, name: "fra", schema: `${SCHEMA}; ALTER TABLE long ADD COLUMN more int DEFAULT 5` },
    ]);
    const [ams, fra] = cluster.members;
    await fra.client.query(
      "CREATE TRIGGER t BEFORE INSERT ON fires FOR EACH ROW EXECUTE PROCEDURE public.shout()",
    );
    // What is written before the copy arrives by replication and is emptied again.
    await ams.client.query(FILL);
    const { json: { id } } = await fra.node.api("POST", "/v1/jobs", { type: "copy", from: "ams" });
    await eventually("the copy to end", async () => {
      const { json: { state, error } } = await fra.node.api("GET", `/v1/jobs/${id}`);
      assert.equal(error, null);
      return state === "succeeded";
    }, { timeoutMs: 60_000 });
    for (const table of TABLES) {
      const text = table === "long" ? "id || v" : "t::text";
      const sql =
        `SELECT md5(string_agg(${text}, '|' ORDER BY ${text} COLLATE "C")) AS sum, count(*)::int FROM ${table} t`;
      const [expected, actual] = [await ams.client.query(sql), await fra.client.query(sql)];
      assert.deepEqual(actual.rows, expected.rows, table);
      assert.equal(expected.rows[0].count > 0, table !== "empty", table);
    }
    assert.deepEqual((await fra.client.query("SELECT DISTINCT more FROM long")).rows, [{ more: 5 }]);
    await fra.client.query("INSERT INTO part VALUES (9, '2026-09-09', 'after')");
    await eventually("it to come back", async () => {
      const { rowCount } = await ams.client.query("SELECT FROM part WHERE v = 'after'");
      return rowCount === 1;
    });
  });
}
