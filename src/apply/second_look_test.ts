/** Rows of transactions that are not over yet when a change of another node is applied, and nothing waits for them. */
import assert from "node:assert/strict";
import { ApplyPair, later, pushAll, Seen, TABLE } from "../../tests/support/apply_pair.ts";
import { eventually } from "../../tests/support/poll.ts";
import { type PostgresMajor, startPostgres } from "../../tests/support/postgres.ts";

const ROWS = "SELECT id, v FROM t ORDER BY id, v";
const ON_RECORD =
  "SELECT type, resolution, local_row->>'v', local_origin, remote_row->>'v', remote_origin FROM mmlite.conflict ORDER BY id";
const LEFT = "SELECT count(*) FROM mmlite.second_look";

async function lookAgain(pair: ApplyPair): Promise<string> {
  return (await pair.rows("SELECT mmlite.look_again()"))[0];
}

/** Everything that may have been under way is over by the next look. */
async function lookUntilOver(pair: ApplyPair): Promise<void> {
  await eventually("nothing to be looked at again", async () => await lookAgain(pair) === "(0)");
}

for (const major of [10, 18] satisfies PostgresMajor[]) {
  Deno.test(`on PostgreSQL ${major} what was not to be seen is looked at again`, async (t) => {
    await using source = await startPostgres({ major: 18 });
    await using target = await startPostgres({ major });

    for (const when of ["IMMEDIATE", "DEFERRED"]) {
      for (const order of ["newer", "older"] as const) {
        await t.step(`two rows of a deferrable key, INITIALLY ${when}, the local one ${order}`, async () => {
          const schema =
            `CREATE TABLE t (id int PRIMARY KEY DEFERRABLE INITIALLY ${when}, v text); ALTER TABLE t REPLICA IDENTITY FULL`;
          const name = `d_${when}_${order}`.toLowerCase();
          await using pair = await ApplyPair.open({ source, target, name, schema });
          await using ends = new AsyncDisposableStack();
          const other = ends.adopt(await pair.connectTarget(), (one) => one.end());
          await other.query("BEGIN; INSERT INTO t VALUES (1, 'local')");
          const messages = await pair.record("INSERT INTO t VALUES (1, 'remote'), (2, 'remote')");
          // As if the sender's clock were ahead.
          const seen = await pair.apply(order === "newer" ? messages : later(messages));
          assert.deepEqual(seen.conflicts, []);
          assert.equal(await lookAgain(pair), "(2)", "the local transaction is not over");
          await other.query("COMMIT");
          assert.equal((await pair.rows(ROWS)).length, 3);
          await lookUntilOver(pair);
          assert.deepEqual(await pair.rows(ROWS), [
            order === "newer" ? "(1,local)" : "(1,remote)",
            "(2,remote)",
          ]);
          assert.deepEqual(await pair.rows(ON_RECORD), [
            `(insert_exists,${order === "newer" ? "skipped" : "applied"},local,fra,remote,ams)`,
          ]);
        });
      }
    }

    await t.step(
      "nothing is looked at again where nobody else writes, and a table at rest costs nothing",
      async () => {
        const schema = "CREATE TABLE t (id int PRIMARY KEY DEFERRABLE, v text)";
        await using pair = await ApplyPair.open({ source, target, name: "alone", schema });
        await pair.replicate("INSERT INTO t VALUES (1, 'remote')");
        assert.deepEqual(await pair.rows(LEFT), ["(0)"]);
      },
    );

    await t.step("a local row waits for a standby when its later delete comes", async () => {
      await using pair = await ApplyPair.open({ source, target, name: "standby", schema: TABLE });
      await using ends = new AsyncDisposableStack();
      const other = ends.adopt(await pair.connectTarget(), (one) => one.end());
      await pair.target.query("SET synchronous_commit = local");
      await pair.record("INSERT INTO t VALUES (1, 'there'), (2, 'there'), (3, 'there')");
      const applier = ends.adopt(await pair.openApplier(new Seen()), (one) => one.close());
      await setStandby(pair, "nobody");
      try {
        const waiting = other.query("INSERT INTO t VALUES (1, 'local'), (2, 'local'), (4, 'stays')");
        const pid = await syncWaiter(pair);
        await pushAll(
          applier,
          await pair.record("DELETE FROM t WHERE id = 1", "UPDATE t SET id = 9 WHERE id = 2"),
        );
        assert.deepEqual(await pair.rows(ROWS), ["(9,there)"]);
        assert.equal(await lookAgain(pair), "(2)");
        await pair.target.query(`SELECT pg_cancel_backend(${pid})`);
        await waiting;
        assert.deepEqual(await pair.rows(ROWS), ["(1,local)", "(2,local)", "(4,stays)", "(9,there)"]);
        await lookUntilOver(pair);
      } finally {
        await setStandby(pair, "");
      }
      assert.deepEqual(await pair.rows(ROWS), ["(4,stays)", "(9,there)"]);
      assert.deepEqual((await pair.rows(ON_RECORD)).slice(-2), [
        "(delete_origin_differs,applied,local,fra,,ams)",
        "(delete_origin_differs,applied,local,fra,,ams)",
      ]);
    });
  });
}

async function setStandby(pair: ApplyPair, name: string): Promise<void> {
  await pair.target.query(`ALTER SYSTEM SET synchronous_standby_names = '${name}'`);
  await pair.target.query("SELECT pg_reload_conf()");
  await eventually("the setting to be read", async () => {
    return (await pair.rows(`SELECT current_setting('synchronous_standby_names') = '${name}'`))[0] === "(t)";
  });
}

/** The session that waits for a standby. */
async function syncWaiter(pair: ApplyPair): Promise<string> {
  return await eventually("a commit to wait for a standby", async () => {
    const [row] = await pair.rows("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
    return row?.slice(1, -1);
  });
}
