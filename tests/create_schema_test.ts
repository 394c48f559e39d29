/** Tables that are created on a new node as another one has them, before their rows are copied. */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { CopyReport } from "../src/api/job_schemas.ts";
import { runJoin, slotsOf, startJoinBed, startJoining, streaming } from "./support/join_bed.ts";
import { connectAll, startMmlite } from "./support/mmlite.ts";
import { eventually } from "./support/poll.ts";
import { type PostgresServer, startPostgres } from "./support/postgres.ts";

const SCHEMA = `CREATE TYPE colour AS ENUM ('red', 'green');
  CREATE TABLE item (id serial PRIMARY KEY, colour colour DEFAULT 'red', name text UNIQUE CHECK (name <> ''));
  CREATE SCHEMA numbers; CREATE SEQUENCE numbers.line;
  CREATE TABLE line (item int NOT NULL REFERENCES item, n int DEFAULT nextval('numbers.line'), PRIMARY KEY (item, n));
  CREATE TABLE part (id int NOT NULL, v text) PARTITION BY RANGE (id);
  CREATE TABLE part_1 PARTITION OF part (PRIMARY KEY (id)) FOR VALUES FROM (1) TO (1000);
  INSERT INTO item SELECT g, 'green', 'item ' || g FROM generate_series(1, 500) g;
  INSERT INTO line SELECT g, 1 FROM generate_series(1, 500) g; INSERT INTO part SELECT g, 'v' FROM generate_series(1, 99) g`;

async function contents(server: PostgresServer, database: string): Promise<string> {
  const rows = await server.sql(
    database,
    `SELECT (SELECT md5(string_agg(i::text, ' ' ORDER BY id)) FROM item i) || (SELECT count(*) FROM line)
       || ' ' || (SELECT md5(string_agg(p::text, ' ' ORDER BY id)) FROM part p) AS all`,
  );
  return (rows as unknown as { all: string }[])[0].all;
}

async function equal(one: PostgresServer, other: PostgresServer): Promise<void> {
  await eventually(
    "both to hold the same rows",
    async () => await contents(one, "made") === await contents(other, "made"),
  );
}

Deno.test("the tables of a peer are created, and then its rows are copied", async () => {
  await using a = await startPostgres({ major: 10 });
  await using b = await startPostgres({ major: 18 });
  await a.createDatabase("made");
  await a.sql("made", SCHEMA);
  await b.createDatabase("made");
  await using ams = await startMmlite({ name: "ams", postgres: a.url("made") });
  await using joiner = await startMmlite({ name: "new", postgres: b.url("made") });
  await connectAll([ams, joiner]);
  const args = ["copy", "--from", "ams", "--create-schema"];
  await b.sql("made", "CREATE TABLE item (id int)");
  const differing = await joiner.cli(...args);
  assert.equal(differing.code, 1, differing.stderr);
  assert.match(
    differing.stderr,
    /column id: integer here, integer NOT NULL DEFAULT nextval\('public\.item_id_seq'::regclass\) there/,
  );
  await b.sql("made", "DROP TABLE item");
  // The copy cannot begin before this has ended, and the tables are created before.
  const open = await a.connect("made");
  await open.query("BEGIN; UPDATE item SET name = name WHERE id = 1");
  const copying = joiner.cli(...args, "-o", "json");
  await eventually(
    "the tables to be created",
    async () => (await b.sql("made", "SELECT FROM pg_class WHERE relname = 'part_1'")).length > 0,
  );
  await joiner.kill();
  await open.query("COMMIT");
  await open.end();
  await joiner.start();
  const { code, stdout, stderr } = await copying;
  assert.equal(code, 0, stderr);
  const { created, rows } = JSON.parse(stdout) as CopyReport;
  assert.deepEqual([rows, created.includes('table "public"."part_1"'), created.length], [1099, true, 16]);
  await equal(a, b);
  await a.sql("made", "UPDATE item SET colour = 'red' WHERE id = 3; INSERT INTO part VALUES (500, 'later')");
  await b.sql("made", "UPDATE item SET name = 'of b' WHERE id = 4");
  await equal(a, b);
  await eventually(
    "what was written there to come",
    async () => (await a.sql("made", "SELECT FROM item WHERE name = 'of b'")).length === 1,
  );
  // What is there is left.
  const again = await joiner.cli(...args, "--mode", "replace", "-o", "json");
  assert.equal(again.code, 0, again.stderr);
  assert.deepEqual((JSON.parse(again.stdout) as CopyReport).created, []);
  await equal(a, b);
});

Deno.test("a node joins without tables", async () => {
  await using a = await startPostgres({ major: 18 });
  await using b = await startPostgres({ major: 18 });
  await using bed = await startJoinBed({ server: a, name: "made" });
  await a.sql("made", `DROP TABLE t; ${SCHEMA}`);
  await b.createDatabase("made");
  const token = await bed.invite("--name", "new");
  const place = { server: b, database: "made" };
  const command = ["join", token, "--create-schema"];
  const state = join(bed.directory, "new");
  const refusals: readonly [string, RegExp, string][] = [
    [
      "CREATE TYPE colour AS ENUM ('red'); CREATE TABLE item (id bigint, colour colour)",
      /what is here already differs: type "public"\."colour": .* here, .* there; table "public"\."item", column id: bigint here, /,
      "DROP TABLE item; DROP TYPE colour",
    ],
    [
      `CREATE SCHEMA numbers; CREATE SEQUENCE numbers.line;
       CREATE TABLE line (item int NOT NULL, n int NOT NULL DEFAULT nextval('numbers.line'), more int)`,
      /^Created here: .*table "public"\."item"[^]*the rows differ from those of node "made" in public\.line \(here 0 rows, there 500 rows with other columns\)$/m,
      "ALTER TABLE line DROP more",
    ],
  ];
  for (const [made, says, mended] of refusals) {
    await b.sql("made", made);
    const { code, stdout, stderr } = await runJoin(place, command.slice(1), {
      state,
      args: ["--name", "new"],
    });
    assert.deepEqual([code, stdout], [1, ""], stderr);
    assert.match(stderr, says);
    // Nobody keeps anything for it.
    assert.deepEqual([await slotsOf(a), await slotsOf(b)], [[], []]);
    await b.sql("made", mended);
  }
  await using joined = await startJoining(place, () => command, {
    name: "new",
    extraArgs: ["--state", state],
  });
  await streaming(joined, 1);
  await equal(a, b);
  await eventually("the new node to go live", async () => {
    const { json: { items } } = await joined.api("GET", "/v1/jobs");
    return items.some(({ state }: { state: string }) => state === "succeeded");
  });
  await b.sql("made", "INSERT INTO item (id, name) VALUES (1000, 'of the new one')");
  await equal(a, b);
});
