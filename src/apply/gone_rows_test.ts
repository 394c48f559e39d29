/** What a long transaction that deletes row by row holds back, and what it notices before its commit. */
import assert from "node:assert/strict";
import { ApplyPair, errorOf, pushAll, Seen } from "../../tests/support/apply_pair.ts";
import { startPostgres } from "../../tests/support/postgres.ts";
import { toLsn } from "../lsn.ts";
import { COMMIT_LOCK } from "../pg/conflict_schema.ts";
import { Trust } from "./trust.ts";

/** More than are kept in memory. */
const ROWS = 20_000;
const SCHEMA = "CREATE TABLE t (a int, b text, v text, PRIMARY KEY (b, a))";

/** An applier to which row by row everything of a transaction was written but its end. */
async function openBeforeEnd(pair: ApplyPair, messages: readonly Uint8Array[], seen = new Seen()) {
  const trust = new Trust();
  trust.loseUntil(toLsn(2n ** 63n));
  const applier = await pair.openApplier(seen, { trust });
  await pushAll(applier, messages.slice(0, -1));
  return applier;
}

for (const major of [10, 18] as const) {
  Deno.test(`a long transaction of deletes lets others commit until its end, on PostgreSQL ${major}`, async (t) => {
    await using source = await startPostgres({ major: 18 });
    await using target = await startPostgres({ major });
    const begin = async (name: string, here: "here" | "missing") => {
      const pair = await ApplyPair.open({ source, target, schema: SCHEMA, name });
      await pair.replicate(`INSERT INTO t SELECT g, 'x', '' FROM generate_series(1, ${ROWS}) g`);
      if (here === "missing") await pair.target.query("DELETE FROM t");
      return { pair, messages: await pair.record("DELETE FROM t") };
    };

    for (const here of ["here", "missing"] as const) {
      await t.step(`rows that are ${here}`, async () => {
        const { pair, messages } = await begin(here, here);
        await using _ = pair;
        const seen = new Seen();
        const applier = await openBeforeEnd(pair, messages, seen);
        try {
          assert.deepEqual(await pair.rows(`SELECT pg_try_advisory_xact_lock(${COMMIT_LOCK}, 0)`), ["(t)"]);
          await pushAll(applier, messages.slice(-1));
        } finally {
          await applier.close();
        }
        assert.deepEqual(await pair.rows("SELECT count(*) FROM t"), ["(0)"]);
        assert.deepEqual(await pair.rows("SELECT count(*) FROM mmlite.gone"), ["(0)"]);
        assert.equal(seen.conflicts.length, here === "missing" ? ROWS : 0);
      });
    }

    for (const row of [1, ROWS]) {
      await t.step(`row ${row}, which was missing, is written by another session meanwhile`, async () => {
        const { pair, messages } = await begin(`again${row}`, "missing");
        await using _ = pair;
        const applier = await openBeforeEnd(pair, messages);
        try {
          await pair.target.query(`SELECT pg_replication_origin_create('par${row}')`);
          await pair.target.query(`SELECT pg_replication_origin_session_setup('par${row}')`);
          await pair.target.query("BEGIN");
          await pair.target.query(`INSERT INTO t VALUES (${row}, 'x', 'old')`);
          await pair.target.query("SELECT pg_replication_origin_xact_setup('0/1', '2020-01-01')");
          await pair.target.query("COMMIT");
          await pair.target.query("SELECT pg_replication_origin_session_reset()");
          const error = await errorOf(pushAll(applier, messages.slice(-1)));
          assert.equal(error.kind, "transient");
        } finally {
          await applier.close();
        }
        const second = await openBeforeEnd(pair, messages);
        await pushAll(second, messages.slice(-1));
        await second.close();
        assert.deepEqual(await pair.rows("SELECT count(*) FROM t"), ["(0)"]);
      });
    }
  });
}
