/** Every conflict by its type, in either order of the versions, on the oldest server that can and on the newest. */
import assert from "node:assert/strict";
import { ApplyPair, pushAll, Seen } from "../../tests/support/apply_pair.ts";
import { type PostgresMajor, startPostgres } from "../../tests/support/postgres.ts";
import type { ConflictPolicy } from "../conflict_policy.ts";
import { toLsn } from "../lsn.ts";
import { NEVER, SeenVersions } from "../seen_versions.ts";

interface Case {
  readonly name: string;
  /** What both have, as one transaction of the source. */
  readonly first?: string;
  /** What this node does, and what the other does. */
  readonly local?: string;
  readonly remote: string;
  /** Rows after the remote change has come, where it is the newer one, and where it is the older one. */
  readonly newer: { readonly rows: string[]; readonly conflicts: string[] };
  readonly older?: { readonly rows: string[]; readonly conflicts: string[] };
}

const CASES: readonly Case[] = [
  {
    name: "insert_exists",
    local: "INSERT INTO t VALUES (1, 'local')",
    remote: "INSERT INTO t VALUES (1, 'remote')",
    newer: { rows: ["(1,remote)"], conflicts: ["insert_exists applied"] },
    older: { rows: ["(1,local)"], conflicts: ["insert_exists skipped"] },
  },
  {
    name: "update_origin_differs",
    first: "INSERT INTO t VALUES (1, 'first')",
    local: "UPDATE t SET v = 'local'",
    remote: "UPDATE t SET v = 'remote'",
    newer: { rows: ["(1,remote)"], conflicts: ["update_origin_differs applied"] },
    older: { rows: ["(1,local)"], conflicts: ["update_origin_differs skipped"] },
  },
  {
    name: "delete_origin_differs",
    first: "INSERT INTO t VALUES (1, 'first')",
    local: "UPDATE t SET v = 'local'",
    remote: "DELETE FROM t",
    newer: { rows: [], conflicts: ["delete_origin_differs applied"] },
    older: { rows: ["(1,local)"], conflicts: ["delete_origin_differs skipped"] },
  },
  {
    name: "update_exists",
    first: "INSERT INTO t VALUES (1, 'first')",
    local: "INSERT INTO t VALUES (2, 'local')",
    remote: "UPDATE t SET id = 2",
    newer: { rows: ["(2,first)"], conflicts: ["update_exists applied"] },
    older: { rows: ["(2,local)"], conflicts: ["update_exists skipped"] },
  },
  {
    name: "delete_missing",
    first: "INSERT INTO t VALUES (1, 'first')",
    local: "DELETE FROM t",
    remote: "DELETE FROM t",
    newer: { rows: [], conflicts: ["delete_missing skipped"] },
    older: { rows: [], conflicts: ["delete_missing skipped"] },
  },
  {
    name: "update_missing",
    first: "INSERT INTO t VALUES (1, 'first')",
    local: "DELETE FROM t",
    remote: "UPDATE t SET v = 'remote'",
    newer: { rows: ["(1,remote)"], conflicts: ["update_missing applied"] },
  },
  {
    name: "a truncate",
    first: "INSERT INTO t VALUES (1, 'first'), (2, 'first')",
    local: "UPDATE t SET v = 'local' WHERE id = 2",
    remote: "TRUNCATE t",
    newer: { rows: [], conflicts: [] },
    older: { rows: ["(2,local)"], conflicts: ["delete_origin_differs applied"] },
  },
];

const SCHEMA = "CREATE TABLE t (id int PRIMARY KEY, v text)";

/** When the row of the target was committed, microseconds since 2000-01-01 UTC. */
async function lastCommit(pair: ApplyPair): Promise<bigint> {
  const [time] = await pair.rows(
    `SELECT (extract(epoch FROM pg_xact_commit_timestamp(xmin) - timestamptz '2000-01-01 00:00:00Z') * 1000000)::bigint
       FROM t`,
  );
  return BigInt(time.slice(1, -1));
}

/** Applies the remote change of a case before or after the local one was made. */
async function play(pair: ApplyPair, { first, local = "", remote }: Case, order: "newer" | "older") {
  if (first !== undefined) await pair.replicate(first);
  const recorded = order === "older" ? await pair.record(remote) : [];
  await pair.target.query(local);
  const seen = await pair.apply(order === "older" ? recorded : await pair.record(remote));
  return {
    rows: await pair.rows("SELECT * FROM t ORDER BY id"),
    conflicts: seen.conflicts.map((type, i) => `${type} ${seen.resolutions[i]}`),
  };
}

for (const major of [10, 18] satisfies PostgresMajor[]) {
  Deno.test(`on PostgreSQL ${major} the newer version wins, whichever comes last`, async (t) => {
    await using source = await startPostgres({ major: 18 });
    await using target = await startPostgres({ major });
    const options = { source, target, schema: SCHEMA };
    for (const [i, one] of CASES.entries()) {
      for (const order of ["newer", "older"] as const) {
        if (one[order] === undefined || (major === 10 && one.remote.startsWith("TRUNCATE"))) continue;
        await t.step(`${one.name}, the remote change is the ${order} one`, async () => {
          await using pair = await ApplyPair.open({ ...options, name: `c${i}_${order}` });
          assert.deepEqual(await play(pair, one, order), one[order]);
        });
      }
    }

    await t.step(
      "a row that the author of a change had seen gives way, and that is no conflict",
      async () => {
        await using pair = await ApplyPair.open({ ...options, name: "author" });
        const conflictsOf = async (others: readonly string[], isLate: boolean, isRestarted = false) => {
          await pair.target.query("UPDATE t SET v = v || '+'");
          const at = await lastCommit(pair);
          await pair.source.query("UPDATE t SET v = v || '-'");
          const seen = new Seen();
          const said = { node: "here", position: toLsn(1n), timestamp: isLate ? at - 1n : at };
          const known = isRestarted ? SeenVersions.NOTHING.with([said]).times() : undefined;
          const applier = await pair.openApplier(seen, { others: () => others, seen: known });
          await applier.seen([isRestarted ? { ...said, timestamp: NEVER } : said]);
          await pushAll(applier, await pair.record());
          await applier.close();
          return seen.conflicts;
        };
        await pair.replicate("INSERT INTO t VALUES (1, '')");
        assert.deepEqual(await conflictsOf(["here"], false), []);
        assert.deepEqual(await conflictsOf(["here"], true), ["update_origin_differs"]);
        assert.deepEqual(await conflictsOf(["here", "nyc"], false), ["update_origin_differs"]);
        assert.deepEqual(
          await conflictsOf(["here"], false, true),
          [],
          "it had said so before it was restarted",
        );
        assert.deepEqual(await conflictsOf(["here"], true, true), ["update_origin_differs"]);
      },
    );

    await t.step("both rows and versions of a conflict are kept", async () => {
      await using pair = await ApplyPair.open({ ...options, name: "kept" });
      await pair.target.query("INSERT INTO t VALUES (1, 'local')");
      await pair.replicate("INSERT INTO t VALUES (1, 'remote')");
      assert.deepEqual(
        await pair.rows(
          `SELECT table_schema, table_name, type, resolution, change, key, local_row, local_origin,
          local_timestamp < remote_timestamp, remote_row, remote_origin, remote_lsn IS NOT NULL FROM mmlite.conflict`,
        ),
        [
          `(public,t,insert_exists,applied,insert,"{""id"" : 1}","{""id"":1,""v"":""local""}",fra,t,` +
          `"{""id"" : 1, ""v"" : ""remote""}",ams,t)`,
        ],
      );
    });

    await t.step("a row comes after its delete, and stays away", async () => {
      await using pair = await ApplyPair.open({ ...options, name: "after" });
      // What another node deleted meanwhile, as its own session notes it.
      const late = await pair.record(
        ...Array.from({ length: 20 }, (_, i) => `INSERT INTO t VALUES (${i}, 'late')`),
      );
      await pair.target.query(`INSERT INTO mmlite.tombstone VALUES ('par', clock_timestamp(),
        int8send(mmlite.key_hash('public.t', ARRAY['7'])) ||
        int8send((extract(epoch FROM clock_timestamp() - timestamptz '2000-01-01 00:00:00Z') * 1000000)::bigint))`);
      const seen = await pair.apply(late);
      assert.deepEqual(seen.conflicts, ["update_deleted"]);
      assert.deepEqual(seen.resolutions, ["skipped"]);
      assert.deepEqual(await pair.rows("SELECT count(*), count(*) FILTER (WHERE id = 7) FROM t"), ["(19,0)"]);
      // What is newer than the delete is written.
      await pair.replicate("UPDATE t SET v = 'newer' WHERE id = 7");
      assert.deepEqual(await pair.rows("SELECT * FROM t WHERE id = 7"), ["(7,newer)"]);
    });

    await t.step("a row does not move to a key that was deleted later", async () => {
      await using pair = await ApplyPair.open({ ...options, name: "moved" });
      await pair.replicate("INSERT INTO t VALUES (5, 'moves')");
      const late = await pair.record("UPDATE t SET id = 2 WHERE id = 5", "UPDATE t SET v = 'x' WHERE id = 2");
      await pair.target.query(`INSERT INTO mmlite.tombstone VALUES ('par', clock_timestamp(),
        int8send(mmlite.key_hash('public.t', ARRAY['2'])) ||
        int8send((extract(epoch FROM clock_timestamp() - timestamptz '2000-01-01 00:00:00Z') * 1000000)::bigint))`);
      const seen = await pair.apply(late);
      assert.deepEqual(seen.conflicts, ["update_deleted", "update_deleted"]);
      assert.deepEqual(await pair.rows("SELECT * FROM t"), []);
    });

    await t.step("deletes leave tombstones, by sets and one by one", async () => {
      await using pair = await ApplyPair.open({ ...options, name: "stones" });
      const count =
        "SELECT coalesce(sum(length(entries)), 0) / 16 FROM mmlite.tombstone WHERE origin = 'ams'";
      await pair.replicate(
        "INSERT INTO t SELECT g, 'x' FROM generate_series(1, 100) g",
        "DELETE FROM t WHERE id > 50",
      );
      assert.deepEqual(await pair.rows(count), ["(50)"]);
      await pair.replicate("DELETE FROM t WHERE id = 1", "UPDATE t SET id = 1000 WHERE id = 2");
      assert.deepEqual(await pair.rows(count), ["(52)"]);
      const found =
        "mmlite.newest_tombstone(mmlite.key_hash('public.t', ARRAY[id]), 'public', 't', '-infinity', 'x')";
      assert.deepEqual(
        await pair.rows(`SELECT id, (${found}).deleted_by FROM unnest(ARRAY['1', '2', '3', '51', '100']) id`),
        ["(1,ams)", "(2,ams)", "(3,)", "(51,ams)", "(100,ams)"],
      );
    });

    const excluding: Record<string, string> = {
      "a second unique key": "ALTER TABLE t ADD UNIQUE (v)",
      "a unique index of some rows and an expression": "CREATE UNIQUE INDEX ON t (lower(v)) WHERE id < 100",
      "a deferrable unique key": "ALTER TABLE t ADD UNIQUE (v) DEFERRABLE INITIALLY DEFERRED",
      "an exclusion constraint": "ALTER TABLE t ADD EXCLUDE USING hash (v WITH =)",
    };
    for (const [i, [name, sql]] of Object.entries(excluding).entries()) {
      for (const order of ["newer", "older"] as const) {
        await t.step(`${name}: of two rows the newer stays, the ${order} one being remote`, async () => {
          const schema = `${SCHEMA}; ${sql}`;
          await using pair = await ApplyPair.open({ ...options, schema, name: `x${i}_${order}` });
          const one = {
            name,
            local: "INSERT INTO t VALUES (1, 'same')",
            remote: "INSERT INTO t VALUES (2, 'same'), (3, 'other')",
          };
          const seen = await play(pair, { ...one, newer: { rows: [], conflicts: [] } }, order);
          const [rows, conflicts] = order === "newer"
            ? [["(2,same)", "(3,other)"], ["insert_exists applied"]]
            : [["(1,same)", "(3,other)"], ["insert_exists skipped"]];
          assert.deepEqual(seen, { rows, conflicts });
          assert.deepEqual(await pair.rows("SELECT table_name FROM mmlite.diverged"), ["(t)"]);
          assert.deepEqual(
            await pair.rows("SELECT local_row->>'id', remote_row->>'id' FROM mmlite.conflict"),
            ["(1,2)"],
          );
        });
      }
    }

    await t.step("an update that meets another row by a unique key is settled alike", async () => {
      const schema = `${SCHEMA}; ALTER TABLE t ADD u int; ALTER TABLE t ADD UNIQUE (u)`;
      await using pair = await ApplyPair.open({ ...options, schema, name: "xupdate" });
      await pair.replicate("INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3)");
      const late = await pair.record("UPDATE t SET u = 9 WHERE id = 1", "UPDATE t SET v = 'x' WHERE id = 3");
      await pair.target.query("INSERT INTO t VALUES (4, 'local', 9)");
      const seen = await pair.apply(late);
      assert.deepEqual(seen.conflicts, ["update_exists"]);
      // So does the row that has lost at its author, who had it with 9.
      assert.deepEqual(await pair.rows("SELECT * FROM t ORDER BY id"), [
        "(2,b,2)",
        "(3,x,3)",
        "(4,local,9)",
      ]);
      // Values that rows pass on to each other within the sender's transaction are no conflict.
      const swap = "BEGIN; UPDATE t SET u = 20 WHERE id = 2; UPDATE t SET u = 2 WHERE id = 3; COMMIT";
      assert.deepEqual((await pair.replicate(swap)).conflicts, []);
    });

    for (
      const [policy, rows] of Object.entries({
        first_update_wins: ["(1,local)"],
        apply_remote: ["(1,remote)"],
        keep_local: ["(1,local)"],
      })
    ) {
      await t.step(`policy ${policy}`, async () => {
        await using pair = await ApplyPair.open({ ...options, name: policy });
        await pair.target.query("INSERT INTO t VALUES (1, 'local')");
        const seen = new Seen();
        const policyOf = () => ({ policy: policy as ConflictPolicy, types: {} });
        const applier = await pair.openApplier(seen, { policyOf });
        await pushAll(applier, await pair.record("INSERT INTO t VALUES (1, 'remote')"));
        await applier.close();
        assert.deepEqual(await pair.rows("SELECT * FROM t"), rows);
        assert.deepEqual(seen.conflicts, ["insert_exists"]);
      });
    }

    await t.step("policy error stops before the conflict and says where", async () => {
      await using pair = await ApplyPair.open({ ...options, name: "stop" });
      await pair.target.query("INSERT INTO t VALUES (1, 'secret')");
      const policyOf = () => ({ policy: "error" as const, types: {} });
      const applier = await pair.openApplier(new Seen(), { policyOf });
      const messages = await pair.record("INSERT INTO t VALUES (1, 'secret')");
      await assert.rejects(pushAll(applier, messages), {
        kind: "apply_failed",
        message: /conflict insert_exists at "public\.t", whose policy is to stop$/,
      });
      await applier.close();
    });
  });
}
