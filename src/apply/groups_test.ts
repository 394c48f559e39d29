import assert from "node:assert/strict";
import { ApplyPair, errorOf, pushAll, Seen, stepsOn, TABLE } from "../../tests/support/apply_pair.ts";
import { seededIntegers } from "../../tests/support/append_load.ts";
import { type PostgresMajor, startPostgres } from "../../tests/support/postgres.ts";
import { type Lsn, toLsn } from "../lsn.ts";
import { decodeCommit, MESSAGE_TYPE } from "../pgoutput/peek.ts";
import type { Applier } from "./applier.ts";
import { Trust } from "./trust.ts";

const MET_TABLES = ["u", "w", "x"];

/** Rows that differ in what they hold or in the time of their version. */
async function differences(pair: ApplyPair, table: string, key: readonly string[]): Promise<string[]> {
  // As the output functions print them: a cast would take the blanks off a char(n).
  const columns = key.map((name) => `format('%s', ${name})`).join(", ");
  const version = (timestamp: string) =>
    `SELECT t::text AS row, to_char(${timestamp} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') AS version
       FROM ${table} t ORDER BY 1`;
  await pair.target.query("SET timezone = 'UTC'");
  const there = await pair.source.query(version("pg_xact_commit_timestamp(xmin)"));
  const here = await pair.target.query(
    version(`mmlite.version_timestamp(xmin, mmlite.key_hash('public.${table}', ARRAY[${columns}]))`),
  );
  const text = (rows: { row: string; version: string }[]) =>
    rows.map(({ row, version }) => `${row} ${version}`);
  const [expected, found] = [text(there.rows), text(here.rows)];
  return [
    ...expected.filter((one) => !found.includes(one)).map((one) => `- ${one}`),
    ...found.filter((one) => !expected.includes(one)).map((one) => `+ ${one}`),
  ];
}

Deno.test("groups of transactions", async (t) => {
  await using server = await startPostgres({ major: 18 });
  const step = stepsOn(t, server);

  await step("what comes together is committed together, and every row keeps its version", {
    name: "exact",
  }, async (pair) => {
    const messages = await pair.record(
      ...Array.from({ length: 50 }, (_, i) => `INSERT INTO t VALUES (${i}, 'ins')`),
      ...Array.from({ length: 20 }, (_, i) => `UPDATE t SET v = 'upd' WHERE id IN (${i}, ${2 * i})`),
      "DELETE FROM t WHERE id = 3",
      "UPDATE t SET id = 100 WHERE id = 5",
      "INSERT INTO t VALUES (3, 'again')",
      "UPDATE t SET v = 'last' WHERE id = 7",
    );
    const seen = await pair.apply(messages);
    assert.equal(seen.transactions, 74);
    assert.equal(seen.commits, 1);
    assert.deepEqual(seen.conflicts, []);
    assert.deepEqual(seen.kinds, { insert: 51, update: 41, delete: 1, truncate: 0 });
    assert.deepEqual(await differences(pair, "t", ["id"]), []);
    assert.deepEqual(await pair.rows("SELECT count(DISTINCT xmin::text) FROM t"), ["(1)"]);
    const [group] = await pair.rows(
      "SELECT origin, last_timestamp > first_timestamp FROM mmlite.apply_group",
    );
    assert.equal(group, "(ams,t)");
  });

  await step("a transaction alone has its time from its commit, and leaves no record", {
    name: "alone",
  }, async (pair) => {
    await pair.replicate("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 100) g");
    assert.deepEqual(await pair.rows("SELECT count(*) FROM mmlite.apply_group"), ["(0)"]);
    assert.deepEqual(await differences(pair, "t", ["id"]), []);
  });

  await step("keys of several columns and any characters are known by their hash", {
    name: "keys",
    schema: `CREATE TABLE t (a text, b numeric(10, 2), c timestamptz, d uuid, e bytea, f char(5), v int,
      PRIMARY KEY (b, a, c, d, e, f))`,
  }, async (pair) => {
    const insert = (i: number) =>
      `INSERT INTO t VALUES (E'häß\\t\\\\ ${i}\\n', ${i} / 4.0, timestamptz '2001-02-03 04:05:06.${i}+07',
        '00000000-0000-0000-0000-00000000000${i}', decode('0${i}ff', 'hex'), 'f${i}', ${i})`;
    const seen = await pair.replicate(
      ...Array.from({ length: 9 }, (_, i) => insert(i)),
      "UPDATE t SET v = v + 1 WHERE v > 3",
      "UPDATE t SET v = v + 1 WHERE v > 5",
    );
    assert.equal(seen.commits, 1);
    // In the order of the columns, not of the key.
    assert.deepEqual(await differences(pair, "t", ["a", "b", "c", "d", "e", "f"]), []);
  });

  await step("a row that is there or not there against all expectation is met row by row", {
    name: "conflict",
    targetSchema: "INSERT INTO t VALUES (7, 'in the way')",
  }, async (pair) => {
    const first = await pair.record(
      ...Array.from({ length: 30 }, (_, i) => `INSERT INTO t VALUES (${i}, 'ins')`),
    );
    const seen = await pair.apply(first);
    assert.deepEqual(seen.conflicts, ["insert_exists"]);
    assert.equal(seen.transactions, 30);
    assert.deepEqual(await differences(pair, "t", ["id"]), []);
    await pair.target.query("DELETE FROM t WHERE id IN (3, 4)");
    const second = await pair.record(
      ...Array.from({ length: 10 }, (_, i) => `UPDATE t SET v = 'upd' WHERE id = ${i}`),
    );
    assert.deepEqual((await pair.apply(second)).conflicts, ["update_missing", "update_missing"]);
    await pair.target.query("DELETE FROM t WHERE id = 8");
    const third = await pair.record(...[5, 6, 7, 8, 9].map((id) => `DELETE FROM t WHERE id = ${id}`));
    assert.deepEqual((await pair.apply(third)).conflicts, ["delete_missing"]);
    assert.deepEqual(await differences(pair, "t", ["id"]), []);
  });

  await step("after a conflict transactions are applied one by one for a while, then together again", {
    name: "caution",
    targetSchema: "INSERT INTO t VALUES (0, 'in the way')",
  }, async (pair) => {
    const messages = await pair.record(
      ...Array.from({ length: 300 }, (_, i) => `INSERT INTO t VALUES (${i}, 'ins')`),
    );
    const seen = new Seen();
    const applier = await pair.openApplier(seen);
    for (let at = 0; at < messages.length; at += 100) await pushAll(applier, messages.slice(at, at + 100));
    await applier.close();
    assert.deepEqual(seen.conflicts, ["insert_exists"]);
    assert.equal(seen.transactions, 300);
    // Some 33 that failed together, 64 of caution, and the rest in a group for each piece.
    assert.ok(seen.commits > 90 && seen.commits < 120, `${seen.commits} commits`);
    assert.deepEqual(await differences(pair, "t", ["id"]), []);
  });

  await step("tables that are met while sets fail, and after it, are read all the same", {
    name: "met",
    schema: `${TABLE}; ${
      MET_TABLES.map((name) => `CREATE TABLE ${name} (id int PRIMARY KEY, v text)`).join(";")
    }`,
    targetSchema: `${
      ["t", ...MET_TABLES].map((name) => `INSERT INTO ${name} VALUES (3, 'in the way')`).join(";")
    }`,
  }, async (pair) => {
    const insert = (name: string) =>
      Array.from({ length: 5 }, (_, i) => `INSERT INTO ${name} VALUES (${i}, 'ins')`);
    const messages = await pair.record(...["t", ...MET_TABLES].flatMap(insert));
    const seen = await pair.apply(messages);
    assert.equal(seen.conflicts.length, 1 + MET_TABLES.length);
    for (const name of ["t", ...MET_TABLES]) assert.deepEqual(await differences(pair, name, ["id"]), []);
  });

  await step(
    "that all up to a time has come is told once it is committed",
    { name: "mark" },
    async (pair) => {
      const messages = await pair.record("INSERT INTO t VALUES (1, 'x')");
      const seen = new Seen();
      const applier = await pair.openApplier(seen);
      applier.caughtUp(5n);
      assert.equal(seen.caughtUpTo, 5n);
      for (const message of messages) await applier.push(message);
      applier.caughtUp(7n);
      assert.equal(seen.caughtUpTo, 5n);
      await applier.idle();
      assert.equal(seen.caughtUpTo, 7n);
      await applier.close();
    },
  );

  await step("times up to which all has come are told while more keeps coming", {
    name: "marks",
  }, async (pair) => {
    const known = await pair.record("INSERT INTO t VALUES (1, 'x')");
    const [second, third] = [
      await pair.record("INSERT INTO t VALUES (2, 'x')"),
      await pair.record("INSERT INTO t VALUES (3, 'x')"),
    ].map((messages) => messages.filter((bytes) => bytes[0] !== MESSAGE_TYPE.relation));
    const seen = new Seen();
    const applier = await pair.openApplier(seen);
    await pushAll(applier, known);
    for (const message of second) assert.equal(applier.push(message), undefined);
    applier.caughtUp(5n);
    applier.caughtUp(6n);
    for (const message of third) assert.equal(applier.push(message), undefined);
    applier.caughtUp(7n);
    // The latest of the same position; that of a later one waits for its turn, and comes again.
    await applier.idle();
    assert.equal(seen.caughtUpTo, 6n);
    applier.caughtUp(8n);
    assert.equal(seen.caughtUpTo, 8n);
    await applier.close();
  });

  await step("how far the origin is applied is told where nothing more of it is to come", {
    name: "passed",
  }, async (pair) => {
    const first = await pair.record("INSERT INTO t VALUES (1, 'x')");
    const [second, third] = [
      await pair.record("INSERT INTO t VALUES (2, 'x')"),
      await pair.record("INSERT INTO t VALUES (3, 'x')"),
    ].map((messages) => messages.filter((bytes) => bytes[0] !== MESSAGE_TYPE.relation));
    const endOf = (messages: readonly Uint8Array[], more = 0n) =>
      toLsn(decodeCommit(messages.at(-1)!).endLsn + more);
    const told: Lsn[] = [];
    const applied = {
      committing: () => {},
      committed: (endLsn: Lsn) => void told.push(endLsn),
      visible: () => {},
    };
    const applier = await pair.openApplier(new Seen(), { applied });
    applier.passed(endOf(first, -1n));
    assert.deepEqual(told, [endOf(first, -1n)]);
    await pushAll(applier, first);
    assert.equal(told.at(-1), endOf(first));
    for (const message of second) assert.equal(applier.push(message), undefined);
    applier.passed(endOf(second, 1n));
    for (const message of third) assert.equal(applier.push(message), undefined);
    applier.passed(endOf(third, 1n));
    applier.passed(endOf(third, 2n));
    assert.equal(told.length, 2);
    await applier.idle();
    assert.equal(told.at(-1), endOf(third, 2n));
    // What the end of a later transaction says is not told after it.
    assert.deepEqual(told, [...told].sort((a, b) => (a < b ? -1 : 1)));
    applier.passed(endOf(third, 9n));
    assert.equal(told.at(-1), endOf(third, 9n));
    await applier.close();
  });

  await step("a large transaction that conflicts comes again, and is applied row by row", {
    name: "large",
    targetSchema: "INSERT INTO t VALUES (9999, 'in the way')",
  }, async (pair) => {
    const messages = await pair.record("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 40000) g");
    const trust = new Trust();
    const applier = await pair.openApplier(new Seen(), { trust });
    const error = await errorOf(pushAll(applier, messages));
    await applier.close();
    assert.equal(error.kind, "transient");
    assert.match(error.hint, /applied row by row/);
    assert.deepEqual(await pair.rows("SELECT count(*) FROM t"), ["(1)"]);
    const seen = new Seen();
    const again = await pair.openApplier(seen, { trust });
    await pushAll(again, messages);
    await again.close();
    assert.deepEqual(seen.conflicts, ["insert_exists"]);
    assert.deepEqual(await differences(pair, "t", ["id"]), []);
  });

  await step(
    "a key that has lost its index is met before rows are copied",
    { name: "index" },
    async (pair) => {
      const first = await pair.record("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 100) g");
      const second = await pair.record("INSERT INTO t SELECT g, 'y' FROM generate_series(101, 200) g");
      const applier = await pair.openApplier(new Seen());
      await pushAll(applier, first);
      await pair.target.query("ALTER TABLE t DROP CONSTRAINT t_pkey");
      // The recording announces the relation again, which would be reason enough to look.
      const error = await errorOf(pushAll(applier, second.filter((bytes) => bytes[0] !== "R".charCodeAt(0))));
      await applier.close();
      assert.equal(error.kind, "schema_mismatch");
      assert.deepEqual(await pair.rows("SELECT count(*) FROM t"), ["(100)"]);
    },
  );

  await step("a trigger that runs for replicas sees every change", {
    name: "trigger",
    targetSchema: `CREATE TABLE note (id int, v text);
      CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO public.note VALUES (new.id, new.v); RETURN new; END $$;
      CREATE TRIGGER note BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE PROCEDURE note();
      ALTER TABLE t ENABLE REPLICA TRIGGER note`,
  }, async (pair) => {
    const seen = await pair.replicate(
      ...Array.from({ length: 20 }, (_, i) => `INSERT INTO t VALUES (${i}, 'ins')`),
      ...Array.from({ length: 5 }, (_, i) => `UPDATE t SET v = '${i}' WHERE id = 1`),
    );
    assert.equal(seen.commits, 25);
    assert.deepEqual(await pair.rows("SELECT count(*), count(*) FILTER (WHERE id = 1) FROM note"), [
      "(25,6)",
    ]);
  });

  await t.step("without commit timestamps no versions are noted", async () => {
    await using other = await startPostgres({ major: 18, settings: { track_commit_timestamp: "off" } });
    await using untimed = await ApplyPair.open({ source: server, target: other, name: "off", schema: TABLE });
    const seen = await untimed.replicate(
      ...Array.from({ length: 10 }, (_, i) => `INSERT INTO t VALUES (${i}, 'ins')`),
    );
    assert.equal(seen.commits, 1);
    assert.deepEqual(await untimed.rows("SELECT count(*) FROM mmlite.apply_group"), ["(0)"]);
  });
});

/** Tables of every kind that apply treats differently, with the columns by which their rows are known. */
const RANDOM_SCHEMA = `CREATE TABLE a (id int PRIMARY KEY, v text, n int);
  CREATE TABLE b (x text, y int, v numeric, long text, PRIMARY KEY (x, y));
  CREATE TABLE c (id int PRIMARY KEY, v text); ALTER TABLE c REPLICA IDENTITY FULL;
  CREATE TABLE d (v text);
  CREATE TABLE e (id int PRIMARY KEY, u int UNIQUE);
  CREATE TABLE f (a int, v text); ALTER TABLE f REPLICA IDENTITY FULL`;
/** Does not compress, so that it is stored out of line, and not sent where it is unchanged. */
const LONG = "(SELECT string_agg(md5(g::text || random()), '') FROM generate_series(1, 100) g)";

/** One random statement over few keys, so that they are hit again and again. */
function randomStatement(random: (least: number, most: number) => number): string {
  const id = random(1, 12);
  const value = `'v${random(0, 999)}'`;
  switch (random(0, 16)) {
    case 0:
    case 1:
      return `INSERT INTO a VALUES (${id}, ${value}, ${random(0, 9)}) ON CONFLICT DO NOTHING`;
    case 2:
    case 3:
      return `UPDATE a SET v = ${value} WHERE id = ${id}`;
    case 4:
      return `DELETE FROM a WHERE id = ${id}`;
    case 5:
      return `UPDATE a SET id = ${id + 100} WHERE id = ${id} AND NOT EXISTS (SELECT FROM a WHERE id = ${
        id + 100
      })`;
    case 6:
      return `INSERT INTO b VALUES ('k${id}', ${id % 3}, ${id} / 3.0, ${LONG}) ON CONFLICT DO NOTHING`;
    case 7:
      return `UPDATE b SET v = ${random(0, 99)} WHERE x = 'k${id}'`;
    case 8:
      return `UPDATE b SET long = ${LONG} WHERE x = 'k${id}'`;
    case 9:
      return `DELETE FROM b WHERE x = 'k${id}'`;
    case 10:
      return `INSERT INTO c SELECT g, ${value} FROM generate_series(${id}, ${
        id + 9
      }) g ON CONFLICT DO NOTHING`;
    case 11:
      return `UPDATE c SET v = ${value} WHERE id % 3 = ${id % 3}`;
    case 12:
      return `DELETE FROM c WHERE id % 4 = ${id % 4}`;
    case 13:
      return `INSERT INTO d SELECT ${value} FROM generate_series(1, ${id})`;
    case 14:
      // The other unique key moves from row to row.
      return `DELETE FROM e WHERE u = ${id}; INSERT INTO e VALUES (${
        random(1, 12)
      }, ${id}) ON CONFLICT DO NOTHING`;
    case 15:
      return `INSERT INTO f VALUES (${id}, ${value}); UPDATE f SET v = ${value} WHERE a = ${id + 1}`;
    default:
      return random(0, 9) === 0 ? "TRUNCATE c" : `UPDATE a SET n = n + 1`;
  }
}

/** Pushes messages with pauses at random moments, so that groups are of every size. */
async function pushRandomly(
  applier: Applier,
  messages: readonly Uint8Array[],
  random: (least: number, most: number) => number,
): Promise<void> {
  for (const message of messages) {
    await applier.push(message);
    if (random(0, 9) === 0) applier.flush();
    if (random(0, 40) === 0) await applier.idle();
  }
  await applier.idle();
}

for (const major of [10, 13, 18] satisfies PostgresMajor[]) {
  Deno.test(`random transactions in groups of any size give the same rows and versions on PostgreSQL ${major}`, async () => {
    await using source = await startPostgres({ major: 18 });
    await using target = await startPostgres({ major });
    const seed = Number(Deno.env.get("SEED") ?? 7 + major);
    const random = seededIntegers(seed);
    await using pair = await ApplyPair.open({ source, target, name: "random", schema: RANDOM_SCHEMA });
    const seen = new Seen();
    for (let round = 0; round < 12; round++) {
      const statements = Array.from(
        { length: 120 },
        () =>
          random(0, 2) > 0
            ? randomStatement(random)
            : `BEGIN; ${
              Array.from({ length: random(1, 6) }, () => randomStatement(random)).join("; ")
            }; COMMIT`,
      );
      const messages = await pair.record(...statements);
      const applier = await pair.openApplier(seen);
      await pushRandomly(applier, messages, random);
      await applier.close();
      for (const [table, key] of [["a", "id"], ["b", "x,y"], ["c", "id"], ["e", "id"]]) {
        const found = await differences(pair, table, key.split(","));
        assert.deepEqual(found, [], `table ${table} after round ${round} of seed ${seed}`);
      }
      for (const table of ["d", "f"]) {
        const [there, here] = await pair.both(
          `SELECT x::text, count(*) FROM ${table} x GROUP BY 1 ORDER BY 1`,
        );
        assert.deepEqual(here, there, `table ${table} after round ${round} of seed ${seed}`);
      }
    }
    assert.ok(seen.commits < seen.transactions * 0.8, `${seen.commits} commits of ${seen.transactions}`);
    assert.deepEqual(seen.conflicts, []);
  });
}
