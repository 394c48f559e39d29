import assert from "node:assert/strict";
import type { Lsn } from "../lsn.ts";
import { errorOf, pushAll, Seen, stepsOn, withPair } from "../../tests/support/apply_pair.ts";
import { eventually, within } from "../../tests/support/poll.ts";
import { startPostgres } from "../../tests/support/postgres.ts";
import { decodeMessage } from "../pgoutput/decode.ts";

/** The ends of the transactions in a recording. */
function endsOf(messages: readonly Uint8Array[]): Lsn[] {
  return messages.map((bytes) => decodeMessage(bytes)).flatMap((m) => m.kind === "commit" ? [m.endLsn] : []);
}

Deno.test("apply sessions", async (t) => {
  await using server = await startPostgres({ major: 18 });
  const step = stepsOn(t, server);

  await step("each transaction is applied, and the position follows", { name: "one" }, async (pair) => {
    const messages = await pair.record(
      "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, NULL)",
      "UPDATE t SET v = v || 'x' WHERE id < 3",
      "DELETE FROM t WHERE id = 2",
    );
    const seen = await pair.apply(messages);
    const [source, target] = await pair.both("SELECT * FROM t ORDER BY id");
    assert.deepEqual(target, source);
    assert.deepEqual(seen.kinds, { insert: 3, update: 2, delete: 1, truncate: 0 });
    assert.equal(seen.transactions, 3);
    assert.equal(await pair.position(), endsOf(messages).at(-1));
  });

  await step("rows keep the time of the origin's commit", { name: "time" }, async (pair) => {
    await pair.replicate("INSERT INTO t VALUES (1, 'a')");
    const [source, target] = await pair.both(
      "SELECT pg_xact_commit_timestamp(xmin) AT TIME ZONE 'UTC' FROM t",
    );
    assert.deepEqual(target, source);
  });

  await step("what comes again is skipped whole and counted", { name: "again" }, async (pair) => {
    const first = await pair.record("INSERT INTO t VALUES (1, 'a')", "INSERT INTO t VALUES (2, 'b')");
    const second = await pair.record("UPDATE t SET v = 'c' WHERE id = 2");
    await pair.apply(first);
    const seen = await pair.apply([...first, ...second]);
    assert.equal(seen.duplicates, 2);
    assert.equal(seen.transactions, 1);
    assert.deepEqual(seen.conflicts, []);
    assert.deepEqual(await pair.rows("SELECT * FROM t ORDER BY id"), ["(1,a)", "(2,c)"]);
  });

  await step("a newer epoch fences an older session", { name: "fence" }, async (pair) => {
    const messages = await pair.record("INSERT INTO t VALUES (1, 'a')");
    const seen = new Seen();
    const applier = await pair.openApplier(seen);
    await pair.target.query("UPDATE mmlite.progress SET epoch = epoch + 1");
    const error = await errorOf(pushAll(applier, messages));
    await applier.close();
    assert.equal(error.kind, "transient");
    assert.match(error.message, /another session has moved the position/);
    assert.equal(seen.transactions, 0);
    assert.deepEqual(await pair.rows("SELECT * FROM t"), []);
  });

  await step("an error commits what came before it and nothing after it", {
    name: "middle",
    targetSchema: "ALTER TABLE t ADD CONSTRAINT short CHECK (length(v) < 9)",
  }, async (pair) => {
    const messages = await pair.record(
      ...[1, 2, 3].map((id) => `INSERT INTO t VALUES (${id}, 'ok')`),
      "INSERT INTO t VALUES (4, 'ok'), (5, 'secretvalue')",
      ...Array.from({ length: 250 }, (_, i) => `INSERT INTO t VALUES (${i + 6}, 'ok')`),
    );
    const seen = new Seen();
    const applier = await pair.openApplier(seen);
    const error = await errorOf(pushAll(applier, messages));
    await applier.close();
    assert.equal(error.kind, "apply_failed");
    assert.match(error.message, /insert into "public\.t" in the transaction of "ams" at .*"short".*23514/);
    assert.doesNotMatch(error.message, /secretvalue/);
    assert.equal(seen.transactions, 3);
    await eventually(
      "the failed session to end",
      async () =>
        (await pair.rows("SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'mmlite apply%'"))
          .length === 0,
    );
    assert.deepEqual(await pair.rows("SELECT id FROM t ORDER BY id"), ["(1)", "(2)", "(3)"]);
    assert.equal(await pair.position(), endsOf(messages)[2]);
    // Once the cause is gone, the same messages go through.
    await pair.target.query("ALTER TABLE t DROP CONSTRAINT short");
    const rest = await pair.apply(messages);
    assert.equal(rest.duplicates, 3);
    assert.equal(rest.transactions, 251);
  });

  await step("an error at COMMIT stops what is behind it", {
    name: "atcommit",
    targetSchema: `CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF new.id = 2 THEN RAISE 'not now' USING ERRCODE = 'restrict_violation'; END IF; RETURN NULL; END $$;
      CREATE CONSTRAINT TRIGGER c AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE PROCEDURE no();
      ALTER TABLE t ENABLE ALWAYS TRIGGER c`,
  }, async (pair) => {
    const inserts = Array.from({ length: 300 }, (_, i) => `INSERT INTO t VALUES (${i + 1}, 'x')`);
    const error = await errorOf(pair.apply(await pair.record(...inserts)));
    assert.equal(error.kind, "apply_failed");
    assert.match(error.message, /^Cannot commit in the transaction of "ams"/);
    assert.deepEqual(await pair.rows("SELECT id FROM t"), ["(1)"]);
  });

  await step("a missing table or column is named", {
    name: "missing",
    schema: "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (id int PRIMARY KEY)",
    targetSchema: "ALTER TABLE t DROP v; DROP TABLE u; CREATE VIEW u AS SELECT 1 AS id",
  }, async (pair) => {
    const messages = await pair.record("INSERT INTO t VALUES (1, 'a')");
    const column = await errorOf(pair.apply(messages));
    assert.equal(column.kind, "schema_mismatch");
    assert.match(
      column.message,
      /^Cannot apply changes to "public\.t": column "v" does not exist here \(in the transaction of "ams" at \w+\/\w+\)$/,
    );
    await pair.target.query("ALTER TABLE t RENAME TO gone");
    const table = await errorOf(pair.apply(messages));
    assert.match(table.message, /^Cannot apply changes to "public\.t": there is no such table here \(in /);
    await pair.target.query("CREATE TABLE t (id int PRIMARY KEY, v text)");
    await pair.apply(messages);
    assert.deepEqual(await pair.rows("SELECT * FROM t"), ["(1,a)"]);
    const view = await errorOf(pair.replicate("INSERT INTO u VALUES (1)"));
    assert.match(view.message, /^Cannot apply changes to "public\.u": it is a view here \(in /);
  });

  await step("a column dropped or an index lost while running is met as an error, and read again", {
    name: "ddl",
  }, async (pair) => {
    const seen = new Seen();
    const first = await pair.record("INSERT INTO t VALUES (1, 'a')");
    const second = await pair.record("INSERT INTO t VALUES (2, 'b')");
    const applier = await pair.openApplier(seen);
    await pushAll(applier, first);
    await pair.target.query("ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD extra int DEFAULT 7");
    // The recording announces the relation again, which would be reason enough to look.
    const error = await errorOf(pushAll(applier, second.filter((bytes) => bytes[0] !== "R".charCodeAt(0))));
    await applier.close();
    assert.equal(error.kind, "schema_mismatch");
    await pair.apply(second);
    assert.deepEqual(await pair.rows("SELECT * FROM t ORDER BY id"), ["(1,a,7)", "(2,b,7)"]);
  });

  await step("changes of mmlite's own schema are refused", { name: "own" }, async (pair) => {
    await pair.source.query("CREATE SCHEMA mmlite; CREATE TABLE mmlite.progress (origin text PRIMARY KEY)");
    const error = await errorOf(pair.replicate("INSERT INTO mmlite.progress VALUES ('x')"));
    assert.equal(error.kind, "refused");
  });

  await step("a large transaction streams before its end is known", { name: "large" }, async (pair) => {
    const messages = await pair.record(
      "INSERT INTO t SELECT g, 'row ' || g FROM generate_series(1, 30000) g",
      "INSERT INTO t VALUES (0, 'after')",
    );
    const seen = await pair.apply(messages);
    assert.equal(seen.transactions, 2);
    assert.equal(await pair.position(), endsOf(messages)[1]);
    const [source, target] = await pair.both(
      "SELECT count(*), sum(id), md5(string_agg(v, '' ORDER BY id)) FROM t",
    );
    assert.deepEqual(target, source);
    // Cut off in its middle, nothing of it stays, and it comes whole the next time.
    const update = await pair.record("UPDATE t SET v = 'new'");
    const applier = await pair.openApplier(new Seen());
    await pushAll(applier, update.slice(0, update.length / 2));
    await applier.close();
    assert.deepEqual(await pair.rows("SELECT count(*) FROM t WHERE v = 'new'"), ["(0)"]);
    await pair.apply(update);
    assert.deepEqual(await pair.rows("SELECT count(*) FROM t WHERE v = 'new'"), ["(30001)"]);
  });

  await step("inserts that go together are each treated as if they came alone", {
    name: "runs",
    schema:
      "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (v text); CREATE TABLE s (id text PRIMARY KEY, v int)",
    targetSchema: `ALTER TABLE t ADD own int GENERATED BY DEFAULT AS IDENTITY;
      INSERT INTO t VALUES (3, 'in the way'), (30, 'in the way');
      CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
      ALTER TABLE s ALTER id TYPE text COLLATE blind`,
  }, async (pair) => {
    const seen = await pair.replicate(
      "INSERT INTO t SELECT g, 'row ' || g FROM generate_series(1, 40) g",
      // Two tables in turn, a row too long to wait, and rows that go and come back in one transaction.
      `BEGIN; INSERT INTO t VALUES (41, 'a'); INSERT INTO u VALUES ('a'); INSERT INTO t VALUES (42, repeat('x', 5000));
       INSERT INTO t SELECT g, 'b' FROM generate_series(43, 60) g; UPDATE t SET v = v || 'c' WHERE id > 40;
       DELETE FROM t WHERE id > 50; INSERT INTO t SELECT g, 'back' FROM generate_series(51, 58) g; COMMIT`,
      "INSERT INTO u SELECT 'same' FROM generate_series(1, 33)",
      "INSERT INTO s VALUES ('a', 1), ('A', 2)",
    );
    const [source, target] = await pair.both("SELECT id, v FROM t ORDER BY id");
    assert.deepEqual(target, source);
    const [sourceKeyless, targetKeyless] = await pair.both("SELECT v, count(*) FROM u GROUP BY v ORDER BY v");
    assert.deepEqual(targetKeyless, sourceKeyless);
    // The receiver holds for one what are two for the sender.
    assert.deepEqual(seen.conflicts, ["insert_exists", "insert_exists", "insert_exists"]);
    assert.equal(seen.kinds.insert, 40 + 1 + 1 + 1 + 18 + 8 + 33 + 2);
    assert.deepEqual(await pair.rows("SELECT count(DISTINCT own) = count(*) FROM t"), ["(t)"]);
  });

  await step("a long value passes unharmed", {
    name: "long",
    schema: "CREATE TABLE t (id int PRIMARY KEY, v bytea, w text)",
  }, async (pair) => {
    await pair.replicate(
      `INSERT INTO t SELECT 1, decode(string_agg(md5(g::text), ''), 'hex'), repeat('é', 3000000)
        FROM generate_series(1, 300000) g`,
      "INSERT INTO t VALUES (2, '\\x00ff', '')",
    );
    const [source, target] = await pair.both("SELECT id, md5(v), md5(w), length(v) FROM t ORDER BY id");
    assert.deepEqual(target, source);
  });

  await step("prepared statements are bounded", {
    name: "bound",
    schema: `CREATE TABLE t (${Array.from({ length: 8 }, (_, i) => `c${i} int`).join(", ")});
      ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t SELECT ${
      Array.from({ length: 8 }, (_, i) => `nullif((g >> ${i}) & 1, 0)`).join(", ")
    } FROM generate_series(0, 255) g`,
  }, async (pair) => {
    // Every row has nulls of its own, so every delete is another statement.
    const seen = await pair.replicate("DELETE FROM t");
    assert.equal(seen.kinds.delete, 256);
    assert.deepEqual(seen.conflicts, []);
    assert.deepEqual(await pair.rows("SELECT count(*) FROM t"), ["(0)"]);
  });

  await step("an older session that holds the origin is ended", { name: "holder" }, async (pair) => {
    const old = await pair.openApplier(new Seen());
    const messages = await pair.record("INSERT INTO t VALUES (1, 'a')");
    await within("the newer session to take over", 8_000, pair.apply(messages));
    const error = await errorOf(old.failed);
    await old.close();
    assert.equal(error.disposition, "retry");
    assert.deepEqual(await pair.rows("SELECT * FROM t"), ["(1,a)"]);
  });

  await step("a lock in the way is temporary trouble", { name: "locked" }, async (pair) => {
    const messages = await pair.record("INSERT INTO t VALUES (1, 'a')");
    await pair.target.query("BEGIN; LOCK TABLE t");
    const started = performance.now();
    const error = await errorOf(pair.apply(messages));
    await pair.target.query("ROLLBACK");
    assert.equal(error.kind, "transient");
    assert.ok(performance.now() - started < 15_000);
  });

  await step("stopping ends a session that waits", { name: "stop" }, async (pair) => {
    const messages = await pair.record("INSERT INTO t VALUES (1, 'a')");
    await pair.target.query("BEGIN; LOCK TABLE t");
    const stop = new AbortController();
    const applier = await pair.openApplier(new Seen(), { signal: stop.signal });
    const pushing = errorOf(pushAll(applier, messages));
    stop.abort();
    assert.equal((await within("the applier to stop", 2_000, pushing)).kind, "aborted");
    await within("the applier to close", 2_000, applier.close());
    await pair.target.query("ROLLBACK");
  });

  await step("garbage is refused", { name: "garbage" }, async (pair) => {
    const messages = await pair.record("INSERT INTO t VALUES (1, 'a')");
    assert.equal((await errorOf(pair.apply([new Uint8Array([1, 2, 3])]))).kind, "protocol");
    assert.equal((await errorOf(pair.apply(messages.slice(1)))).kind, "protocol");
    assert.equal((await errorOf(pair.apply([messages[0], ...messages]))).kind, "protocol");
    assert.deepEqual(await pair.rows("SELECT * FROM t"), []);
  });
});

Deno.test("nothing is acked before it is on disk", async () => {
  // The WAL writer sleeps longer than the test, and nothing else flushes.
  await using server = await startPostgres({
    major: 18,
    settings: {
      wal_writer_delay: "10s",
      bgwriter_lru_maxpages: "0",
      autovacuum: "off",
      checkpoint_timeout: "1h",
    },
  });
  await withPair(server, { name: "durable" }, async (pair) => {
    const messages = await pair.record("INSERT INTO t VALUES (1, 'a')", "INSERT INTO t VALUES (2, 'b')");
    const seen = new Seen();
    const applier = await pair.openApplier(seen);
    await eventually("the position itself to be acked", () => seen.acks.length === 1);
    await pushAll(applier, messages);
    const [visible] = await pair.rows("SELECT count(*) FROM t");
    assert.equal(visible, "(2)");
    const flushed = await pair.rows(
      "SELECT pg_current_wal_flush_lsn() >= pg_current_wal_insert_lsn()",
    );
    if (flushed[0] === "(f)") assert.equal(seen.acks.length, 1);
    // A commit that waits for its flush flushes everything before it.
    await pair.target.query("CREATE TABLE flush_now ()");
    await eventually("the ack", () => seen.acks.at(-1) === endsOf(messages)[1]);
    await applier.close();
  });
});

Deno.test("empty transactions of PostgreSQL 14 and older move the position, once at a pause", async () => {
  await using server = await startPostgres({ major: 13 });
  await withPair(server, { name: "empty" }, async (pair) => {
    const empty = await pair.record("CREATE TABLE a ()", "CREATE TABLE b ()", "DROP TABLE a, b");
    assert.equal(endsOf(empty).length, 3);
    const seen = await pair.apply(empty);
    assert.equal(seen.transactions, 1);
    assert.equal(seen.changes, 0);
    assert.equal(await pair.position(), endsOf(empty)[2]);
    const mixed = await pair.record("CREATE TABLE a ()", "INSERT INTO t VALUES (1, 'a')", "DROP TABLE a");
    assert.equal((await pair.apply([...empty, ...mixed])).duplicates, 3);
    assert.equal(await pair.position(), endsOf(mixed)[2]);
    // What was applied is tagged, so that it does not leave again: the target's own slot would drop it.
    const tagged = await pair.rows(
      "SELECT count(*) FROM pg_replication_origin_status WHERE local_lsn > '0/0'",
    );
    assert.deepEqual(tagged, ["(1)"]);
  });
});
