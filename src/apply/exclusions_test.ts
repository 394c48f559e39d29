/** Rows that may not stand beside each other by what only this server computes, and by several keys at once. */
import assert from "node:assert/strict";
import { ApplyPair, errorOf, pushAll, Seen } from "../../tests/support/apply_pair.ts";
import { type PostgresMajor, startPostgres } from "../../tests/support/postgres.ts";
import type { TablePolicy } from "../conflict_policy.ts";

const SCHEMA = "CREATE TABLE t (id int PRIMARY KEY, v text)";
const CASELESS =
  "CREATE COLLATION caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false)";

/** What refuses a second row whose `v` is the same but for its case. */
const REFUSALS: Readonly<Record<string, string>> = {
  "a generated column":
    `ALTER TABLE t ADD g varchar(9) GENERATED ALWAYS AS (lower(v)) STORED; ALTER TABLE t ADD UNIQUE (g)`,
  "a generated column with another name for case":
    `ALTER TABLE t ADD "G" text GENERATED ALWAYS AS (lower(v)) STORED;
    CREATE UNIQUE INDEX ON t ("G", (id < 100)) WHERE "G" <> ''`,
  "an expression of a generated column": `ALTER TABLE t ADD g text GENERATED ALWAYS AS (v || 'x') STORED;
    CREATE UNIQUE INDEX ON t (lower(g)) WHERE g IS NOT NULL`,
  "an exclusion constraint over a generated column":
    `ALTER TABLE t ADD g text GENERATED ALWAYS AS (lower(v)) STORED;
    ALTER TABLE t ADD EXCLUDE USING hash (g WITH =)`,
  "a collation of the index": `${CASELESS}; CREATE UNIQUE INDEX ON t (v COLLATE caseless)`,
  "a collation of an expression": `${CASELESS}; CREATE UNIQUE INDEX ON t ((v || 'x') COLLATE caseless)`,
};

for (const major of [12, 18] satisfies PostgresMajor[]) {
  Deno.test(`on PostgreSQL ${major} rows do not stand beside each other by computed values`, async (t) => {
    await using source = await startPostgres({ major: 18 });
    await using target = await startPostgres({ major });
    const options = { source, target };

    for (const [i, [name, refusal]] of Object.entries(REFUSALS).entries()) {
      for (const order of ["newer", "older"] as const) {
        await t.step(`${name}: the newer stays, the ${order} one being remote`, async () => {
          const schema = `${SCHEMA}; ${refusal}`;
          await using pair = await ApplyPair.open({ ...options, schema, name: `by${i}_${order}` });
          await pair.replicate("INSERT INTO t VALUES (3, 'other'), (4, 'moves')");
          const remote = ["INSERT INTO t VALUES (2, 'SAME')", "UPDATE t SET v = 'OWN' WHERE id = 4"];
          const recorded = order === "older" ? await pair.record(...remote) : [];
          await pair.target.query("INSERT INTO t VALUES (1, 'same'), (5, 'own')");
          const seen = await pair.apply(order === "older" ? recorded : await pair.record(...remote));
          assert.deepEqual(seen.conflicts.toSorted(), ["insert_exists", "update_exists"]);
          assert.deepEqual(
            await pair.rows("SELECT id, v FROM t WHERE id NOT IN (4) ORDER BY id"),
            order === "newer" ? ["(2,SAME)", "(3,other)"] : ["(1,same)", "(3,other)", "(5,own)"],
          );
          assert.deepEqual(await pair.rows("SELECT table_name FROM mmlite.diverged"), ["(t)"]);
          assert.deepEqual(
            await pair.rows("SELECT local_row->>'id', remote_row->>'id' FROM mmlite.conflict ORDER BY 1"),
            ["(1,2)", "(5,4)"],
          );
        });
      }
    }

    await t.step("by a column that only this node has, an update meets another row", async () => {
      const targetSchema = "ALTER TABLE t ADD site int; CREATE UNIQUE INDEX ON t (v, site)";
      await using pair = await ApplyPair.open({ ...options, schema: SCHEMA, targetSchema, name: "extra" });
      await pair.replicate("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')");
      await pair.target.query("UPDATE t SET site = 7 WHERE id < 3");
      const seen = await pair.replicate(
        "UPDATE t SET v = 'c' WHERE id = 1",
        "UPDATE t SET v = 'c' WHERE id = 2",
      );
      assert.deepEqual(seen.conflicts.filter((type) => type === "update_exists"), ["update_exists"]);
      assert.deepEqual(await pair.rows("SELECT * FROM t ORDER BY id"), ["(2,c,7)", "(3,c,)"]);
    });

    await t.step(
      "by its row as a whole nothing can be told before, and the link stops with the reason",
      async () => {
        const schema =
          `${SCHEMA}; CREATE FUNCTION low(t) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1.v)';
        CREATE UNIQUE INDEX t_low ON t (low(t.*))`;
        await using pair = await ApplyPair.open({ ...options, schema, name: "whole" });
        await pair.replicate("INSERT INTO t VALUES (1, 'a'), (2, 'b')", "UPDATE t SET v = 'c' WHERE id = 1");
        assert.deepEqual(await pair.rows("SELECT * FROM t ORDER BY id"), ["(1,c)", "(2,b)"]);
        await pair.target.query("INSERT INTO t VALUES (3, 'same')");
        const error = await errorOf(pair.replicate("INSERT INTO t VALUES (4, 'SAME')"));
        assert.equal(error.kind, "apply_failed");
        assert.match(
          error.message,
          /a duplicate key of "public\.t" was refused by "t_low" \(SQLSTATE 23505\)$/,
        );
        assert.match(error.hint!, /another row/);
        assert.deepEqual(await pair.rows("SELECT * FROM t ORDER BY id"), ["(1,c)", "(2,b)", "(3,same)"]);
      },
    );

    const several: Readonly<Record<string, { here: string; came: string }>> = {
      "two rows here": { here: "(1, 'a', 'x'), (2, 'y', 'b')", came: "INSERT INTO m VALUES (3, 'a', 'b')" },
      "one row by two keys": { here: "(1, 'a', 'b')", came: "INSERT INTO m VALUES (3, 'a', 'b')" },
      "its own key and another": {
        here: "(1, 'a', 'b'), (3, 'o', 'o')",
        came: "INSERT INTO m VALUES (3, 'a', 'y')",
      },
      "one row by one key": { here: "(1, 'a', 'b')", came: "INSERT INTO m VALUES (3, 'a', 'y')" },
    };
    for (const [i, [name, { here, came }]] of Object.entries(several).entries()) {
      await t.step(
        `the policy of multiple_unique_conflicts is that of a row which meets ${name}`,
        async () => {
          const schema = "CREATE TABLE m (id int PRIMARY KEY, u text UNIQUE, w text UNIQUE)";
          await using pair = await ApplyPair.open({ ...options, schema, name: `several${i}` });
          await pair.target.query(`INSERT INTO m VALUES ${here}`);
          const held = await pair.rows("SELECT * FROM m ORDER BY id");
          const policyOf = (): TablePolicy => ({
            policy: "last_update_wins",
            types: { multiple_unique_conflicts: "keep_local" },
          });
          const seen = new Seen();
          const applier = await pair.openApplier(seen, { policyOf });
          await pushAll(applier, await pair.record(came));
          await applier.close();
          const isOne = name === "one row by one key";
          assert.deepEqual(await pair.rows("SELECT * FROM m ORDER BY id"), isOne ? ["(3,a,y)"] : held);
          assert.deepEqual(
            new Set(seen.conflicts.map((type, i) => `${type} ${seen.resolutions[i]}`)),
            new Set([isOne ? "insert_exists applied" : "multiple_unique_conflicts skipped"]),
          );
        },
      );
    }

    await t.step("where nodes may differ nobody gives way to what is not written", async () => {
      const schema = `${SCHEMA}; ALTER TABLE t ADD UNIQUE (v)`;
      await using pair = await ApplyPair.open({ ...options, schema, name: "unwritten" });
      await pair.target.query("INSERT INTO t VALUES (1, 'first')");
      const late = await pair.record("INSERT INTO t VALUES (1, 'x')");
      await pair.target.query("INSERT INTO t VALUES (2, 'x')");
      const seen = new Seen();
      const policyOf = (): TablePolicy => ({ policy: "first_update_wins", types: {} });
      const applier = await pair.openApplier(seen, { policyOf });
      await pushAll(applier, late);
      await applier.close();
      assert.deepEqual(await pair.rows("SELECT * FROM t ORDER BY id"), ["(1,first)", "(2,x)"]);
      assert.deepEqual(seen.conflicts, ["insert_exists"]);
    });

    await t.step("older versions of a row that had to go do not come again", async () => {
      const schema = `${SCHEMA}; ALTER TABLE t ADD UNIQUE (v)`;
      await using pair = await ApplyPair.open({ ...options, schema, name: "again" });
      const third = (id: number, sql: string, at: string) =>
        pair.target.query(
          `BEGIN; ${sql}; INSERT INTO mmlite.apply_group (xid, origin, first_timestamp, last_timestamp, entries)
          VALUES (txid_current(), 'par', ${at}, ${at}, int8send(mmlite.key_hash('public.t', ARRAY['${id}'])) ||
            timestamptz_send(${at})); COMMIT`,
        );
      const before = await pair.record("INSERT INTO t VALUES (7, 'old')");
      // A third node has changed the row since, and ours takes its value; then what came before that comes.
      await third(7, "INSERT INTO t VALUES (7, 'x')", "clock_timestamp()");
      const at = "(SELECT last_timestamp FROM mmlite.apply_group WHERE origin = 'par')";
      const lists = "SELECT origin, mmlite.find_entry(entries, mmlite.key_hash('public.t', ARRAY['7']))";
      await pair.source.query("SELECT pg_sleep(0.001)");
      const taking = await pair.record("INSERT INTO t VALUES (8, 'x')");
      await pair.apply([...before, ...taking]);
      assert.deepEqual(await pair.rows("SELECT * FROM t ORDER BY id"), ["(8,x)"]);
      assert.deepEqual(await pair.rows(`${lists} = ${at} FROM mmlite.tombstone`), ["(par,t)"]);
    });

    await t.step("a row that had to go for another one may be of the same transaction", async () => {
      const schema = `${SCHEMA}; ALTER TABLE t ADD UNIQUE (v)`;
      await using pair = await ApplyPair.open({ ...options, schema, name: "both" });
      await pair.replicate("INSERT INTO t VALUES (1, 'a'), (2, 'b')");
      const late = await pair.record(
        "BEGIN; UPDATE t SET v = 'c' WHERE id = 2; UPDATE t SET v = 'x' WHERE id = 1; COMMIT",
      );
      await pair.target.query("UPDATE t SET v = 'x' WHERE id = 2");
      const seen = new Seen();
      const policyOf = (): TablePolicy => ({
        policy: "apply_remote",
        types: { update_origin_differs: "keep_local" },
      });
      const applier = await pair.openApplier(seen, { policyOf });
      await pushAll(applier, late);
      await applier.close();
      assert.deepEqual(await pair.rows("SELECT * FROM t ORDER BY id"), ["(1,x)"]);
      assert.deepEqual(seen.conflicts, ["update_origin_differs", "update_exists"]);
    });
  });
}
