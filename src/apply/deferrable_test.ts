/** Keys that may be checked at the end of a transaction, which PostgreSQL does not check at all for what is applied. */
import assert from "node:assert/strict";
import { ApplyPair, later, pushAll, Seen } from "../../tests/support/apply_pair.ts";
import { eventually } from "../../tests/support/poll.ts";
import { type PostgresMajor, type PostgresServer, startPostgres } from "../../tests/support/postgres.ts";

const schemaOf = (when: string) =>
  `CREATE TABLE t (id int PRIMARY KEY DEFERRABLE INITIALLY ${when}, v text); ALTER TABLE t REPLICA IDENTITY FULL`;
const ROWS = "SELECT id, v FROM t ORDER BY id, v";
const ON_RECORD =
  "SELECT type, resolution, local_row->>'v', local_origin, remote_row->>'v', remote_origin FROM mmlite.conflict";
/** The lock that appliers take before they commit. */
const COMMIT_LOCK = "1836870245, 0";

async function sessionsWait(pair: ApplyPair, count: number, event: string): Promise<void> {
  await eventually(`${count} sessions to wait for ${event}`, async () => {
    const [row] = await pair.rows(
      `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
         AND application_name LIKE 'mmlite apply %' AND wait_event = '${event}'`,
    );
    return row === `(${count})`;
  }, { intervalMs: 10 });
}

for (const major of [10, 18] satisfies PostgresMajor[]) {
  Deno.test(`on PostgreSQL ${major} rows of a deferrable key are settled like others`, async (t) => {
    await using source = await startPostgres({ major: 18 });
    await using target = await startPostgres({ major });
    const step = stepsOn(t, { source, target });

    await step("two senders insert one key at the same moment", async (pair, ends) => {
      const [first, second] = [new Seen(), new Seen()];
      const a = ends.adopt(await pair.openApplier(first), (one) => one.close());
      const b = ends.adopt(await pair.openApplierOf("par", second), (one) => one.close());
      const early = await pair.record("INSERT INTO t VALUES (1, 'early')");
      await pair.record("DELETE FROM t");
      const late = await pair.record("INSERT INTO t VALUES (1, 'late')");
      const other = ends.adopt(await pair.connectTarget(), (one) => one.end());
      await other.query(`SELECT pg_advisory_lock(${COMMIT_LOCK})`);
      const applied = [pushAll(a, early)];
      await sessionsWait(pair, 1, "advisory");
      applied.push(pushAll(b, late));
      await sessionsWait(pair, 2, "advisory");
      await other.query(`SELECT pg_advisory_unlock(${COMMIT_LOCK})`);
      await Promise.all(applied);
      assert.deepEqual(await pair.rows(ROWS), ["(1,late)"]);
      assert.deepEqual(await pair.rows(ON_RECORD), ["(insert_exists,applied,early,ams,late,par)"]);
      assert.deepEqual([...first.conflicts, ...second.conflicts], ["insert_exists"]);
    });

    await step("a newer local change that is not committed yet is not lost", async (pair, ends) => {
      await pair.replicate("INSERT INTO t VALUES (1, 'first')");
      const applier = ends.adopt(await pair.openApplier(new Seen()), (one) => one.close());
      const other = ends.adopt(await pair.connectTarget(), (one) => one.end());
      await other.query("BEGIN; UPDATE t SET v = 'local'");
      const applied = pushAll(applier, await pair.record("UPDATE t SET v = 'remote'"));
      await sessionsWait(pair, 1, "transactionid");
      await other.query("COMMIT");
      await applied;
      assert.deepEqual(await pair.rows(ROWS), ["(1,local)"]);
      assert.deepEqual(await pair.rows(ON_RECORD), [
        "(update_origin_differs,skipped,local,fra,remote,ams)",
      ]);
    });

    await step("an older local change that is not committed yet gives way", async (pair, ends) => {
      await pair.replicate("INSERT INTO t VALUES (1, 'first'), (2, 'first')");
      const applier = ends.adopt(await pair.openApplier(new Seen()), (one) => one.close());
      const other = ends.adopt(await pair.connectTarget(), (one) => one.end());
      await other.query("BEGIN; UPDATE t SET v = 'local'");
      const messages = await pair.record(
        "BEGIN; UPDATE t SET v = 'remote' WHERE id = 1; DELETE FROM t WHERE id = 2; COMMIT",
      );
      // As if the sender's clock were ahead.
      const applied = pushAll(applier, later(messages));
      await sessionsWait(pair, 1, "transactionid");
      await other.query("COMMIT");
      await applied;
      assert.deepEqual(await pair.rows(ROWS), ["(1,remote)"]);
      assert.deepEqual(await pair.rows(ON_RECORD), [
        "(update_origin_differs,applied,local,fra,remote,ams)",
        "(delete_origin_differs,applied,local,fra,,ams)",
      ]);
    });

    for (const order of ["newer", "older"] as const) {
      await step(`a row that moves to a key that is taken, by the ${order} change`, async (pair) => {
        await pair.replicate("INSERT INTO t VALUES (1, 'moves'), (3, 'stays')");
        const move = "UPDATE t SET id = 2 WHERE id = 1";
        const early = order === "older" ? await pair.record(move) : [];
        await pair.target.query("INSERT INTO t VALUES (2, 'local')");
        const seen = await pair.apply(order === "older" ? early : await pair.record(move));
        const won = order === "newer" ? ["moves", "applied"] : ["local", "skipped"];
        assert.deepEqual(await pair.rows(ROWS), [`(2,${won[0]})`, "(3,stays)"]);
        assert.deepEqual(await pair.rows(ON_RECORD), [`(update_exists,${won[1]},local,fra,moves,ams)`]);
        assert.deepEqual(seen.conflicts, ["update_exists"]);
      });

      await step(`a row that is gone moves to a key that is taken, by the ${order} change`, async (pair) => {
        await pair.replicate("INSERT INTO t VALUES (1, 'moves')");
        const move = "UPDATE t SET id = 2 WHERE id = 1";
        const early = order === "older" ? await pair.record(move) : [];
        await pair.target.query("DELETE FROM t");
        await pair.target.query("INSERT INTO t VALUES (2, 'local')");
        await pair.apply(order === "older" ? early : await pair.record(move));
        assert.deepEqual(await pair.rows(ROWS), [order === "newer" ? "(2,moves)" : "(2,local)"]);
        const conflicts = await pair.rows("SELECT type FROM mmlite.conflict");
        assert.ok(conflicts.includes("(update_exists)"), conflicts.join());
      });
    }

    await step("a row that may not move any more goes", async (pair) => {
      await pair.replicate("INSERT INTO t VALUES (1, 'moves')");
      const late = await pair.record("UPDATE t SET id = 2 WHERE id = 1");
      await pair.target.query(`INSERT INTO mmlite.tombstone VALUES ('par', clock_timestamp(),
        int8send(mmlite.key_hash('public.t', ARRAY['2'])) ||
        int8send((extract(epoch FROM clock_timestamp() - timestamptz '2000-01-01 00:00:00Z') * 1000000)::bigint))`);
      await pair.apply(late);
      assert.deepEqual(await pair.rows(ROWS), []);
    });

    await step("rows that pass keys on to each other are no conflict", async (pair) => {
      await pair.replicate("INSERT INTO t SELECT g, 'row ' || g FROM generate_series(1, 9) g");
      const seen = await pair.replicate("UPDATE t SET id = 10 - id", "UPDATE t SET id = id + 1");
      assert.deepEqual(seen.conflicts, []);
      const [there, here] = await pair.both(ROWS);
      assert.deepEqual(here, there);
    });
  });
}

type Step = (
  name: string,
  body: (pair: ApplyPair, ends: AsyncDisposableStack) => Promise<void>,
) => Promise<void>;

/** Each with a key that is checked after every statement, and with one that is checked in the end. */
function stepsOn(t: Deno.TestContext, servers: { source: PostgresServer; target: PostgresServer }): Step {
  let count = 0;
  return async (name, body) => {
    for (const when of ["IMMEDIATE", "DEFERRED"]) {
      await t.step(`${name} (INITIALLY ${when})`, async () => {
        await using pair = await ApplyPair.open({ ...servers, name: `d${++count}`, schema: schemaOf(when) });
        await using ends = new AsyncDisposableStack();
        await body(pair, ends);
      });
    }
  };
}
