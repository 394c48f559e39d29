/** What is kept of conflicts: every value, and each conflict once; on the oldest server that can and on the newest. */
import assert from "node:assert/strict";
import { ApplyPair } from "../../tests/support/apply_pair.ts";
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
  });
}
