/** Rows of which not all values come, and what is fetched of them, on the oldest server that can and on the newest. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { ApplyPair, ORIGIN, pushAll, Seen } from "../../tests/support/apply_pair.ts";
import { eventually } from "../../tests/support/poll.ts";
import { type PostgresMajor, type PostgresServer, startPostgres } from "../../tests/support/postgres.ts";
import { decodeBegin } from "../pgoutput/peek.ts";
import type { Applier } from "./applier.ts";

const SCHEMA =
  "CREATE TABLE t (id int PRIMARY KEY, v text, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL";
const UNSENT =
  "SELECT origin, key_columns, key, hash = mmlite.key_hash('public.t', ARRAY['1']) FROM mmlite.unsent";
const ROWS = "SELECT id, v, left(big, 1) FROM t ORDER BY id";
const VERSION = `SELECT (mmlite.row_version(xmin, mmlite.key_hash('public.t', ARRAY[id::text]))).node FROM t`;

/** Runs SQL at the target as if it had come from a third node at that time. */
async function fromThird({ target }: ApplyPair, sql: string, at: string): Promise<void> {
  await target.query(`BEGIN; ${sql}; ${asThird(at)}; COMMIT`);
}

/** SQL by which the transaction that it is in counts as one of a third node, of that time in SQL. */
function asThird(at: string): string {
  return `INSERT INTO mmlite.apply_group (xid, origin, first_timestamp, last_timestamp, entries)
    VALUES (txid_current(), 'par', ${at}, ${at}, int8send(mmlite.key_hash('public.t', ARRAY['1'])) || int8send(
      (extract(epoch FROM ${at} - timestamptz '2000-01-01 00:00:00Z') * 1000000)::bigint))`;
}

/** When what awaits values was committed at the origin, microseconds since 2000-01-01 UTC. */
async function awaitedAt(pair: ApplyPair): Promise<bigint> {
  const [row] = await pair.rows(
    "SELECT (extract(epoch FROM max(at) - timestamptz '2000-01-01 00:00:00Z') * 1000000)::bigint FROM mmlite.unsent",
  );
  return BigInt(row.slice(1, -1));
}

async function fetchRow(applier: Applier, at: bigint, values: readonly string[]): Promise<void> {
  await applier.fetched({
    ...{ schema: "public", name: "t", key: ["id"], columns: ["id", "v", "big"], at },
    values: values.map((value) => ({ kind: "text", bytes: Buffer.from(value) })),
  });
  await applier.idle();
}

const BIG = (letter: string) => `repeat('${letter}', 5000)`;
const LONG = (letter: string) => letter.repeat(5000);

async function withApplier(
  server: { source: PostgresServer; target: PostgresServer },
  name: string,
  body: (of: { pair: ApplyPair; applier: Applier; seen: Seen; wanted: string[] }) => Promise<void>,
): Promise<void> {
  await using pair = await ApplyPair.open({ ...server, name, schema: SCHEMA });
  const [seen, wanted]: [Seen, string[]] = [new Seen(), []];
  await pair.replicate(`INSERT INTO t VALUES (1, 'first', ${BIG("f")})`);
  const applier = await pair.openApplier(seen, { onUnsent: (nodes) => void wanted.push(...nodes) });
  try {
    await body({ pair, applier, seen, wanted });
  } finally {
    await applier.close();
  }
}

for (const major of [10, 18] satisfies PostgresMajor[]) {
  Deno.test(`on PostgreSQL ${major} a row of which not all values came gets them from its author`, async (t) => {
    await using source = await startPostgres({ major: 18 });
    await using target = await startPostgres({ major });
    const servers = { source, target };

    await t.step("what the sender updates of its own version needs nothing", async () => {
      await withApplier(servers, "own", async ({ pair, applier, wanted }) => {
        await pushAll(applier, await pair.record("UPDATE t SET v = 'remote'"));
        assert.deepEqual(await pair.rows(UNSENT), []);
        assert.deepEqual(wanted, []);
      });
    });

    await t.step("over another node's version the values are awaited, and come", async () => {
      await withApplier(servers, "other", async ({ pair, applier, wanted }) => {
        await pair.target.query(`UPDATE t SET big = ${BIG("l")}`);
        await pushAll(applier, await pair.record("UPDATE t SET v = 'remote'"));
        assert.deepEqual(await pair.rows(ROWS), ["(1,remote,l)"]);
        assert.deepEqual(await pair.rows(UNSENT), ["(ams,{id},{1},t)"]);
        assert.deepEqual(wanted, [ORIGIN]);
        const before = await pair.position();
        const at = await awaitedAt(pair);
        await fetchRow(applier, at - 1n, ["1", "old", LONG("o")]);
        assert.deepEqual(await pair.rows(ROWS), ["(1,remote,l)"], "an older version changes nothing");
        assert.equal((await pair.rows(UNSENT)).length, 1);
        await fetchRow(applier, at, ["1", "remote", LONG("f")]);
        assert.deepEqual(await pair.rows(ROWS), ["(1,remote,f)"]);
        assert.deepEqual(await pair.rows(VERSION), ["(ams)"]);
        assert.deepEqual(await pair.rows(UNSENT), []);
        assert.equal(await pair.position(), before);
        // And it goes on behind it.
        await pushAll(applier, await pair.record("UPDATE t SET v = 'later'"));
        assert.deepEqual(await pair.rows(ROWS), ["(1,later,f)"]);
        assert.deepEqual(await pair.rows(UNSENT), []);
      });
    });

    await t.step(
      "with another key even the sender's own row awaits them: others have written to the old one",
      async () => {
        await withApplier(servers, "moved", async ({ pair, applier, wanted }) => {
          // As if a third node had changed it there, which its author does not send.
          await pair.record(`UPDATE t SET big = ${BIG("t")}`);
          await pushAll(applier, await pair.record("UPDATE t SET id = 2"));
          assert.deepEqual(await pair.rows(ROWS), ["(2,first,f)"]);
          assert.deepEqual(await pair.rows("SELECT origin, key FROM mmlite.unsent"), ["(ams,{2})"]);
          assert.deepEqual(wanted, [ORIGIN]);
          await fetchRow(applier, await awaitedAt(pair), ["2", "first", LONG("t")]);
          assert.deepEqual(await pair.rows(ROWS), ["(2,first,t)"]);
          assert.deepEqual(await pair.rows(UNSENT), []);
        });
      },
    );

    await t.step(
      "a row that is ahead of what its author has sent is awaited until that has come",
      async () => {
        await withApplier(servers, "ahead", async ({ pair, applier }) => {
          await pair.target.query(`UPDATE t SET big = ${BIG("l")}`);
          await pushAll(applier, await pair.record("UPDATE t SET v = 'remote'"));
          const before = await pair.record(`UPDATE t SET v = 'before', big = ${BIG("b")}`);
          // As if a third node had changed it there, which its author does not send.
          await pair.record(`UPDATE t SET v = 'third', big = ${BIG("t")}`);
          const last = await pair.record("UPDATE t SET v = 'last'");
          const { commitTimestamp } = decodeBegin(last[0]);
          await fetchRow(applier, commitTimestamp, ["1", "last", LONG("t")]);
          assert.deepEqual(await pair.rows(ROWS), ["(1,last,t)"]);
          await pushAll(applier, [...before, ...last]);
          assert.deepEqual(await pair.rows(ROWS), ["(1,last,b)"], "what its author sends follows its own");
          assert.equal((await pair.rows(UNSENT)).length, 1);
          await fetchRow(applier, commitTimestamp, ["1", "last", LONG("t")]);
          assert.deepEqual(await pair.rows(ROWS), ["(1,last,t)"]);
          assert.deepEqual(await pair.rows(UNSENT), []);
        });
      },
    );

    await t.step("a row that its author put where it had deleted one comes", async () => {
      await withApplier(servers, "again", async ({ pair, applier }) => {
        await pushAll(applier, await pair.record(`INSERT INTO t VALUES (2, 'second', ${BIG("s")})`));
        await pair.target.query("DELETE FROM t WHERE id = 2");
        const moved = await pair.record(
          "BEGIN; DELETE FROM t WHERE id = 1; UPDATE t SET id = 1 WHERE id = 2; COMMIT",
        );
        await pushAll(applier, moved);
        assert.deepEqual(await pair.rows(UNSENT), ["(ams,{id},{1},t)"]);
        await fetchRow(applier, await awaitedAt(pair), ["1", "second", LONG("s")]);
        assert.deepEqual(await pair.rows(ROWS), ["(1,second,s)"]);
        assert.deepEqual(await pair.rows(UNSENT), []);
      });
    });

    await t.step("one that was missing is, too", async () => {
      await withApplier(servers, "far", async ({ pair, applier }) => {
        await pair.target.query("DELETE FROM t");
        await pushAll(applier, await pair.record("UPDATE t SET v = 'remote'"));
        const last = await pair.record("UPDATE t SET v = 'last'");
        const { commitTimestamp } = decodeBegin(last[0]);
        await fetchRow(applier, commitTimestamp, ["1", "last", LONG("f")]);
        assert.deepEqual(await pair.rows(ROWS), ["(1,last,f)"]);
        assert.equal((await pair.rows(UNSENT)).length, 1);
        await pushAll(applier, last);
        await fetchRow(applier, commitTimestamp, ["1", "last", LONG("f")]);
        assert.deepEqual(await pair.rows(ROWS), ["(1,last,f)"]);
        assert.deepEqual(await pair.rows(UNSENT), []);
      });
    });

    await t.step("a later version of another node stays", async () => {
      await withApplier(servers, "later", async ({ pair, applier }) => {
        await pair.target.query("UPDATE t SET v = 'local'");
        await pushAll(applier, await pair.record("UPDATE t SET v = 'remote'"));
        const at = await awaitedAt(pair);
        await pair.target.query(`UPDATE t SET v = 'local again', big = ${BIG("l")}`);
        await fetchRow(applier, at, ["1", "remote", LONG("f")]);
        assert.deepEqual(await pair.rows(ROWS), ['(1,"local again",l)']);
        assert.deepEqual(await pair.rows(UNSENT), []);
      });
    });

    await t.step("a missing row is fetched whole", async () => {
      await withApplier(servers, "missing", async ({ pair, applier, seen }) => {
        await pair.target.query("DELETE FROM t");
        await pushAll(applier, await pair.record("UPDATE t SET v = 'remote'"));
        assert.deepEqual([seen.conflicts, seen.resolutions], [["update_missing"], ["skipped"]]);
        assert.deepEqual(await pair.rows(UNSENT), ["(ams,{id},{1},t)"]);
        await fetchRow(applier, await awaitedAt(pair), ["1", "remote", LONG("f")]);
        assert.deepEqual(await pair.rows(ROWS), ["(1,remote,f)"]);
        assert.deepEqual(await pair.rows(VERSION), ["(ams)"]);
        assert.deepEqual(await pair.rows(UNSENT), []);
      });
    });

    await t.step("an older row that another session is about to put there gives way", async () => {
      await withApplier(servers, "meanwhile", async ({ pair, applier }) => {
        await using ends = new AsyncDisposableStack();
        const other = ends.adopt(await pair.connectTarget(), (one) => one.end());
        const { rows: [{ at: earlier }] } = await pair.target.query("SELECT clock_timestamp()::text AS at");
        await pair.target.query("DELETE FROM t");
        await pushAll(applier, await pair.record("UPDATE t SET v = 'remote'"));
        const at = await awaitedAt(pair);
        await other.query(
          `BEGIN; INSERT INTO t VALUES (1, 'third', ${BIG("t")}); ${asThird(`'${earlier}'::timestamptz`)}`,
        );
        const fetching = fetchRow(applier, at, ["1", "remote", LONG("f")]);
        await eventually(
          "the fetched row waits",
          async () =>
            (await pair.rows("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'")).length > 0,
        );
        await other.query("COMMIT");
        await fetching;
        assert.deepEqual(await pair.rows(ROWS), ["(1,remote,f)"]);
        assert.deepEqual(await pair.rows(VERSION), ["(ams)"]);
        assert.deepEqual(await pair.rows(UNSENT), []);
      });
    });

    await t.step("a row that was deleted after it was read does not come again", async () => {
      await withApplier(servers, "deleted", async ({ pair, applier }) => {
        await pair.target.query("DELETE FROM t");
        await pushAll(applier, await pair.record("UPDATE t SET v = 'remote'"));
        const at = await awaitedAt(pair);
        await pushAll(applier, await pair.record("DELETE FROM t"));
        await fetchRow(applier, at, ["1", "remote", LONG("f")]);
        assert.deepEqual(await pair.rows(ROWS), []);
        assert.deepEqual(await pair.rows(UNSENT), []);
      });
    });

    await t.step("what comes too late for a third node's version makes that node be asked", async () => {
      await withApplier(servers, "third", async ({ pair, applier, wanted }) => {
        const late = await pair.record(`UPDATE t SET big = ${BIG("r")}`);
        await fromThird(pair, "UPDATE t SET v = 'third'", "clock_timestamp()");
        await pushAll(applier, late);
        assert.deepEqual(await pair.rows(ROWS), ["(1,third,f)"]);
        assert.deepEqual(await pair.rows(UNSENT), ["(par,{id},{1},t)"]);
        assert.deepEqual(wanted, ["par"]);
      });
    });
  });
}
