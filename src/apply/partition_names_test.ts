/** Below 13 partitions come under their own names, from 13 on under that of their root: rows are known by one name. */
import assert from "node:assert/strict";
import { ApplyPair } from "../../tests/support/apply_pair.ts";
import { startPostgres } from "../../tests/support/postgres.ts";
import { copiedRows } from "../../tests/support/copied_rows.ts";
import { closeClient } from "../pg/client.ts";
import { queryWith } from "../pg/query.ts";
import { openHashClient } from "../pg/row_hash.ts";
import { readScannedTable } from "../pg/scanned_table.ts";
import { ensureSchema } from "../pg/schema.ts";
import { readTables } from "../pg/tables.ts";
import { parsePostgresUrl } from "../pg/target.ts";
import { ExactStatements } from "./exact_statements.ts";

const SCHEMA = `CREATE TABLE r (v text, a int, b int, PRIMARY KEY (a, b)) PARTITION BY RANGE (a);
  CREATE TABLE r1 PARTITION OF r FOR VALUES FROM (0) TO (100) PARTITION BY RANGE (b);
  CREATE TABLE r11 (b int NOT NULL, v text, a int NOT NULL);
  ALTER TABLE r1 ATTACH PARTITION r11 FOR VALUES FROM (0) TO (100)`;

for (const [from, to] of [[12, 18], [18, 12]] as const) {
  Deno.test(`a partition's row that is deleted is known by the root's name, from PostgreSQL ${from} to ${to}`, async (t) => {
    await using source = await startPostgres({ major: from });
    await using target = await startPostgres({ major: to });
    const options = {
      ...{ source, target, schema: SCHEMA },
      publish: from < 13 ? undefined : "publish_via_partition_root = true",
    };

    await t.step("what the sender deletes is found under it", async () => {
      await using pair = await ApplyPair.open({ ...options, name: "noted" });
      await pair.replicate("INSERT INTO r VALUES ('x', 1, 2)", "DELETE FROM r");
      assert.deepEqual(
        await pair.rows(
          "SELECT deleted_by FROM mmlite.newest_tombstone(mmlite.key_hash('public.r', ARRAY['1', '2']), 'public', 'r', '-infinity', 'x')",
        ),
        ["(ams)"],
      );
    });

    await t.step("what others have deleted under it stays away", async () => {
      await using pair = await ApplyPair.open({ ...options, name: "late" });
      const late = await pair.record("INSERT INTO r VALUES ('late', 1, 2)", "UPDATE r SET v = 'later'");
      await pair.target.query(`INSERT INTO mmlite.tombstone VALUES ('par', clock_timestamp(),
        int8send(mmlite.key_hash('public.r', ARRAY['1', '2'])) ||
        int8send((extract(epoch FROM clock_timestamp() - timestamptz '2000-01-01 00:00:00Z') * 1000000)::bigint))`);
      const seen = await pair.apply(late);
      assert.deepEqual(seen.conflicts, ["update_deleted", "update_deleted"]);
      assert.deepEqual(await pair.rows("SELECT * FROM r"), []);
    });

    await t.step("a truncate knows the versions of rows by it", async () => {
      await using pair = await ApplyPair.open({ ...options, name: "truncated" });
      const truncate = await pair.record("TRUNCATE r");
      await pair.target.query(`BEGIN; INSERT INTO r VALUES ('older', 1, 2);
        INSERT INTO mmlite.apply_group (xid, origin, first_timestamp, last_timestamp, entries)
          VALUES (txid_current(), 'par', '2020-01-01', clock_timestamp(),
            int8send(mmlite.key_hash('public.r', ARRAY['1', '2'])) || timestamptz_send('2020-01-01')); COMMIT`);
      await pair.apply(truncate);
      assert.deepEqual(await pair.rows("SELECT * FROM r"), []);
    });
  });
}

Deno.test("copying and repairing a partition by itself, below 13, know its rows by the root's name", async () => {
  await using server = await startPostgres({ major: 12 });
  const target = await parsePostgresUrl(server.url(), {});
  const signal = new AbortController().signal;
  const client = await openHashClient(target, { applicationName: "test", signal });
  const query = queryWith(client);
  await ensureSchema(query);
  await query(
    SCHEMA.replaceAll(/\b(TABLE|OF|PARTITION) (r)/g, "$1 public.$2"),
  );
  await query(`BEGIN; INSERT INTO public.r VALUES ('x', 1, 2);
    INSERT INTO mmlite.apply_group (xid, origin, first_timestamp, last_timestamp, entries)
      VALUES (txid_current(), 'par', '2010-01-01Z', clock_timestamp(),
        int8send(mmlite.key_hash('public.r', ARRAY['1', '2'])) || timestamptz_send('2010-01-01Z')); COMMIT`);
  const table = (await readTables(query)).find(({ name }) => name === "r11")!;
  const copied = await copiedRows(target, { table, serverVersion: 120_000 });
  const [{ hash }] = await query("SELECT mmlite.key_hash('public.r', ARRAY['1', '2']) AS hash");
  const at = BigInt(Date.UTC(2010, 0, 1) - 946_684_800_000) * 1000n;
  assert.equal(copied, `par\t${at}\t${hash}\tx\n`);

  const statements = new ExactStatements(await readScannedTable(query, table, 120_000));
  assert.deepEqual([statements.label, statements.keyPlaces], ["public.r", [0, 1]]);
  await closeClient(client);
});
