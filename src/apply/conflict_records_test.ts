/** What is kept of conflicts: every value, and each conflict once; on the oldest server that can and on the newest. */
import assert from "node:assert/strict";
import { ApplyPair, pushAll, Seen } from "../../tests/support/apply_pair.ts";
import { eventually } from "../../tests/support/poll.ts";
import { type PostgresMajor, startPostgres } from "../../tests/support/postgres.ts";

/** Values that jsonb cannot hold, or not as they are. */
const AWKWARD = {
  j: String.raw`{"a": "\u0000", "b": 1e400000, "a": "\ud800"}`,
  n: "NaN",
  f: "-Infinity",
  t: "infinity",
};

for (const major of [10, 18] satisfies PostgresMajor[]) {
  Deno.test(`on PostgreSQL ${major} a conflict is on record whole, and once`, async (t) => {
    await using source = await startPostgres({ major: 18 });
    await using target = await startPostgres({ major });
    const options = { source, target };

    await t.step("whatever values its rows have", async () => {
      const wide = Array.from({ length: 120 }, (_, i) => `c${i} int DEFAULT ${i}`).join(", ");
      const schema =
        `CREATE TABLE t (id int PRIMARY KEY, u text UNIQUE, j json, n numeric, f float8, t timestamptz, ${wide})`;
      await using pair = await ApplyPair.open({ ...options, schema, name: "awkward" });
      const { j, n, f, t } = AWKWARD;
      const row = (id: number, u: string) =>
        `INSERT INTO t (id, u, j, n, f, t) VALUES (${id}, '${u}', '${j}', '${n}', '${f}', '${t}')`;
      for (const [id, u] of [[1, "a"], [2, "b"], [3, "c"]] as const) await pair.target.query(row(id, u));
      const seen = await pair.replicate(row(1, "a"), row(4, "c"));
      assert.deepEqual(seen.conflicts, ["insert_exists", "insert_exists"]);
      const { rows } = await pair.target.query(
        "SELECT local_row::text AS local, remote_row::text AS remote FROM mmlite.conflict ORDER BY id",
      );
      assert.equal(rows.length, 2);
      for (const { local, remote } of rows) {
        for (const text of [local, remote]) {
          assert.ok(text.includes(j), "the json as it came");
          const { n, f, t, c119 } = JSON.parse(text);
          assert.deepEqual({ n, f, t, c119 }, { n: "NaN", f: "-Infinity", t: "infinity", c119: 119 });
        }
      }
      assert.deepEqual(await pair.rows("SELECT id FROM t ORDER BY id"), ["(1)", "(2)", "(4)"]);
    });

    await t.step("if what noted it is undone and written again", async () => {
      const schema = "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE c (id int PRIMARY KEY)";
      await using pair = await ApplyPair.open({ ...options, schema, name: "undone" });
      await pair.target.query("INSERT INTO t VALUES (1, 'local'); INSERT INTO c VALUES (5)");
      const many = "INSERT INTO c SELECT generate_series(1, 20)";
      const seen = await pair.replicate(`BEGIN; INSERT INTO t VALUES (1, 'remote'); ${many}; COMMIT`);
      assert.deepEqual(seen.conflicts, ["insert_exists", "insert_exists"]);
      assert.deepEqual(await pair.rows("SELECT table_name FROM mmlite.conflict ORDER BY id"), ["(t)", "(c)"]);
    });

    const local = "UPDATE t SET v = 'local'";
    const remotes = {
      "an update": { first: local, then: "UPDATE t SET v = 'newer'", remote: "UPDATE t SET v = 'remote'" },
      "a delete": { first: local, then: "UPDATE t SET v = 'newer'", remote: "DELETE FROM t" },
      "an update of what is deleted": {
        first: local,
        then: "DELETE FROM t",
        remote: "UPDATE t SET v = 'remote'",
      },
      "a key": {
        first: "INSERT INTO t VALUES (2, 'local')",
        then: "UPDATE t SET v = 'newer' WHERE id = 2",
        remote: "UPDATE t SET id = 2",
      },
    };
    const expected: Record<string, string[]> = {
      "an update": ["update_origin_differs skipped newer"],
      "a delete": ["delete_origin_differs skipped newer"],
      // What the client deletes is not noted here: nothing reads its slot.
      "an update of what is deleted": ["update_missing applied null"],
      "a key": ["update_exists skipped newer"],
    };
    for (const [i, [name, { first, then, remote }]] of Object.entries(remotes).entries()) {
      await t.step(`${name} that waits for a client's lock`, async () => {
        const schema = "CREATE TABLE t (id int PRIMARY KEY, v text)";
        await using pair = await ApplyPair.open({ ...options, schema, name: `waits${i}` });
        await pair.replicate("INSERT INTO t VALUES (1, 'first')");
        await pair.target.query(first);
        const late = await pair.record(remote);
        const client = await target.connect(`waits${i}_dst`);
        const seen = new Seen();
        const applier = await pair.openApplier(seen);
        try {
          await client.query(`BEGIN; ${then}`);
          const pushed = pushAll(applier, late);
          await eventually("apply to wait for the client", async () =>
            (await pair.rows(
              "SELECT FROM pg_stat_activity WHERE application_name LIKE 'mmlite apply%' AND wait_event_type = 'Lock'",
            )).length === 1);
          await client.query("COMMIT");
          await pushed;
        } finally {
          await applier.close();
          await client.end();
        }
        const { rows } = await pair.target.query(
          "SELECT type, resolution, local_row->>'v' AS v FROM mmlite.conflict ORDER BY id",
        );
        assert.deepEqual(rows.map(({ type, resolution, v }) => `${type} ${resolution} ${v}`), expected[name]);
        assert.deepEqual(
          seen.conflicts.map((type, i) => `${type} ${seen.resolutions[i]}`),
          expected[name].map((one) => one.split(" ").slice(0, 2).join(" ")),
        );
      });
    }
  });
}
