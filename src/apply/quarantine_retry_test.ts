/** A transaction out of quarantine beside what its origin has changed since, on the oldest server and on the newest. */
import assert from "node:assert/strict";
import { ApplyPair, ORIGIN, pushAll, Seen } from "../../tests/support/apply_pair.ts";
import { type PostgresMajor, startPostgres } from "../../tests/support/postgres.ts";
import { MmliteError } from "../errors.ts";
import { noteBlocked, readQuarantined } from "../pg/quarantine.ts";
import { decodeBegin } from "../pgoutput/peek.ts";
import { retryQuarantined } from "./quarantine_retry.ts";

interface Case {
  readonly name: string;
  /** What both have, what is set aside, and what follows it. */
  readonly first: string;
  readonly kept: string;
  readonly later: readonly string[];
  readonly conflicts: readonly string[];
}

const CASES: readonly Case[] = [
  {
    name: "an update stays behind a later one",
    first: "INSERT INTO t VALUES (1, 'first'), (2, 'first')",
    kept: "UPDATE t SET v = 'kept'",
    later: ["UPDATE t SET v = 'later' WHERE id = 1"],
    conflicts: ["update_origin_differs skipped"],
  },
  {
    name: "an insert stays behind a later update",
    first: "INSERT INTO t VALUES (3, 'first')",
    kept: "INSERT INTO t VALUES (1, 'kept'), (2, 'kept')",
    later: ["UPDATE t SET v = 'later' WHERE id = 1"],
    conflicts: ["insert_exists skipped"],
  },
  {
    name: "what was deleted later does not come again",
    first: "INSERT INTO t VALUES (2, 'first')",
    kept: "INSERT INTO t VALUES (1, 'kept')",
    later: ["DELETE FROM t WHERE id = 1"],
    conflicts: ["update_deleted skipped"],
  },
  {
    name: "what was truncated later does not come again",
    first: "INSERT INTO t VALUES (2, 'first')",
    kept: "INSERT INTO t VALUES (1, 'kept')",
    later: ["TRUNCATE t"],
    conflicts: ["update_deleted skipped"],
  },
  {
    name: "a delete leaves what was inserted later",
    first: "INSERT INTO t VALUES (1, 'first'), (2, 'first')",
    kept: "DELETE FROM t",
    later: ["INSERT INTO t VALUES (1, 'later')"],
    conflicts: ["delete_origin_differs skipped"],
  },
  {
    name: "a truncate leaves what was inserted later",
    first: "INSERT INTO t VALUES (1, 'first'), (2, 'first')",
    kept: "TRUNCATE t",
    later: ["INSERT INTO t VALUES (1, 'later')"],
    conflicts: ["delete_origin_differs applied"],
  },
  {
    name: "a row stays where it was moved to later",
    first: "INSERT INTO t VALUES (1, 'first')",
    kept: "UPDATE t SET v = 'kept'",
    later: ["UPDATE t SET id = 9, v = 'later'"],
    conflicts: ["update_deleted skipped"],
  },
  {
    name: "a row that is deleted and inserted again by the same transaction is there",
    first: "INSERT INTO t VALUES (1, 'first')",
    kept: "BEGIN; DELETE FROM t; INSERT INTO t VALUES (1, 'kept'); UPDATE t SET v = 'kept too'; COMMIT",
    later: ["INSERT INTO t VALUES (2, 'later')"],
    conflicts: [],
  },
];

/** Applies all but what is kept in quarantine, and then that, once `awaitTable` lets it. */
async function setAsideAndRetry(
  pair: ApplyPair,
  { first, kept, later, awaitTable }: Pick<Case, "first" | "kept" | "later"> & {
    readonly awaitTable?: (oid: number) => Promise<void>;
  },
): Promise<Seen> {
  const query = async (text: string, params?: readonly unknown[]) =>
    (await pair.target.query(text, params && [...params])).rows;
  await pair.replicate(first);
  const messages = await pair.record(kept);
  const { commitLsn } = decodeBegin(messages[0]);
  const error = new MmliteError("apply_failed", "Cannot apply");
  await noteBlocked(query, { origin: ORIGIN, transaction: { commitLsn }, error, skip: true });
  const applier = await pair.openApplier(new Seen(), { skipLsn: commitLsn });
  await pushAll(applier, messages);
  await pushAll(applier, await pair.record(...later));
  await applier.close();
  const [{ id }] = await query("SELECT id::text FROM mmlite.quarantine");
  const seen = new Seen();
  const transaction = (await readQuarantined(query, id))!;
  await retryQuarantined({ ...await pair.applierOptions(seen), transaction, awaitTable });
  return seen;
}

for (const major of [11, 18] satisfies PostgresMajor[]) {
  Deno.test(`on PostgreSQL ${major} what comes out of quarantine is older than what its origin did since`, async (t) => {
    await using source = await startPostgres({ major: 18 });
    await using target = await startPostgres({ major });
    for (const [i, { name, first, kept, later, conflicts }] of CASES.entries()) {
      await t.step(name, async () => {
        const schema = "CREATE TABLE t (id int PRIMARY KEY, v text)";
        await using pair = await ApplyPair.open({ source, target, schema, name: `kept${i}` });
        const seen = await setAsideAndRetry(pair, { first, kept, later });
        const [there, here] = await pair.both("SELECT * FROM t ORDER BY id");
        assert.deepEqual(here, there);
        assert.deepEqual(seen.conflicts.map((type, i) => `${type} ${seen.resolutions[i]}`), conflicts);
      });
    }

    await t.step("values that a later update left as they were are asked for", async () => {
      const schema =
        "CREATE TABLE t (id int PRIMARY KEY, v text, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL";
      await using pair = await ApplyPair.open({ source, target, schema, name: "left" });
      const seen = await setAsideAndRetry(pair, {
        first: "INSERT INTO t VALUES (1, 'first', repeat('f', 5000))",
        kept: "UPDATE t SET big = repeat('k', 5000)",
        later: ["UPDATE t SET v = 'later'"],
      });
      assert.deepEqual(seen.resolutions, ["skipped"]);
      assert.deepEqual(await pair.rows("SELECT v, left(big, 1) FROM t"), ["(later,f)"]);
      assert.deepEqual(await pair.rows("SELECT origin, key FROM mmlite.unsent"), ["(ams,{1})"]);
    });

    await t.step("a table that may not have rows of other nodes yet is waited for", async () => {
      await using pair = await ApplyPair.open({
        ...{ source, target, name: "awaited" },
        schema: "CREATE TABLE t (id int PRIMARY KEY, v text)",
      });
      const awaited: number[] = [];
      const retried = setAsideAndRetry(pair, {
        first: "INSERT INTO t VALUES (1, 'first')",
        kept: "INSERT INTO t VALUES (2, 'kept')",
        later: ["INSERT INTO t VALUES (3, 'later')"],
        awaitTable: (oid) => {
          awaited.push(oid);
          return Promise.reject(new MmliteError("transient", "Cannot publish table public.t: it is locked"));
        },
      });
      await assert.rejects(retried, /Cannot publish table public\.t: it is locked/);
      assert.deepEqual(await pair.rows("SELECT 't'::regclass::oid"), awaited.map((oid) => `(${oid})`));
      assert.deepEqual(await pair.rows("SELECT id FROM t ORDER BY id"), ["(1)", "(3)"]);
      assert.equal((await pair.rows("SELECT FROM mmlite.quarantine")).length, 1);
    });
  });
}
