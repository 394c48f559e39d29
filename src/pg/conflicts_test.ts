import assert from "node:assert/strict";
import { startPostgres } from "../../tests/support/postgres.ts";
import { openControl } from "./control.ts";
import {
  countConflicts,
  forgetConflicts,
  readConflict,
  readConflicts,
  readConflictsAbove,
  readConflictWriters,
  readLastConflictId,
} from "./conflicts.ts";
import { ensureSchema } from "./schema.ts";
import { parsePostgresUrl } from "./target.ts";

for (const major of [10, 18] as const) {
  Deno.test(`conflicts are found, told apart and forgotten on PostgreSQL ${major}`, async () => {
    await using server = await startPostgres({ major });
    const control = openControl(await parsePostgresUrl(server.url(), {}), "mmlite test");
    const query = control.query("test");
    await ensureSchema(query);
    assert.equal(await readLastConflictId(query), 0n);
    assert.deepEqual(await readConflictsAbove(query, { above: 0n, except: [], limit: 9 }), []);
    const note = (table: string, type: string, at: string, resolution = "applied") =>
      query(
        `INSERT INTO mmlite.conflict (noted_at, table_schema, table_name, type, resolution, change, key, local_row,
           remote_row, remote_origin, remote_timestamp, remote_lsn)
         VALUES ($1::timestamptz, 'public', $2, $3, $4, 'update', '{"id": 9007199254740993}', NULL, '{"id": 1}',
           'fra', '2026-01-02 03:04:05.678901+00', '1/A')`,
        [at, table, type, resolution],
      );
    const now = Date.now();
    const ago = (seconds: number) => new Date(now - seconds * 1000).toISOString();
    await note("a", "insert_exists", ago(7200));
    await note("b", "insert_exists", ago(60));
    await note("a", "update_missing", ago(1), "skipped");
    const ids = async (filter: Parameters<typeof readConflicts>[1], limit = 10) =>
      (await readConflicts(query, filter, limit)).map(({ id }) => id).join();
    assert.equal(await ids({}), "3,2,1");
    assert.equal(await ids({}, 2), "3,2");
    assert.equal(await ids({ before: "3" }), "2,1");
    assert.equal(await ids({ since: ago(3600) }), "3,2");
    assert.equal(await ids({ table: { schema: "public", name: "a" } }), "3,1");
    assert.equal(await ids({ table: { schema: "other", name: "a" } }), "");
    assert.equal(await ids({ type: "insert_exists", table: { schema: "public", name: "b" } }), "2");
    assert.equal(await ids({ resolution: "skipped" }), "3");
    assert.deepEqual(await readConflict(query, "1"), {
      id: "1",
      notedAt: ago(7200).replace("Z", "000Z"),
      schema: "public",
      name: "a",
      type: "insert_exists",
      resolution: "applied",
      change: "update",
      key: '{"id": 9007199254740993}',
      localOrigin: null,
      localTimestamp: null,
      localRow: null,
      remoteOrigin: "fra",
      remoteTimestamp: "2026-01-02T03:04:05.678901Z",
      remoteLsn: "1/A",
      remoteRow: '{"id": 1}',
    });
    assert.equal(await readConflict(query, "7"), undefined);

    assert.equal(await readLastConflictId(query), 3n);
    const above = await readConflictsAbove(query, { above: 1n, except: [2n], limit: 9 });
    assert.deepEqual(above.map(({ id }) => id), ["3"]);
    assert.deepEqual(await readConflictWriters(query), []);
    const writer = await server.connect("postgres");
    await writer.query("BEGIN; DELETE FROM mmlite.conflict WHERE false");
    assert.equal((await readConflictWriters(query)).length, 1);
    await writer.end();

    assert.equal(await countConflicts(query), 3);
    assert.equal(await forgetConflicts(query, 30, 1), 1, "a piece");
    assert.equal(await ids({}), "3,2", "the oldest first");
    assert.equal(await forgetConflicts(query, 30, 10), 1);
    assert.equal(await forgetConflicts(query, 30, 10), 0);
    assert.equal(await countConflicts(query), 1);
    await query(
      `INSERT INTO mmlite.conflict (table_schema, table_name, type, resolution, change, remote_origin, remote_timestamp)
       SELECT 'public', 'a', 'insert_exists', 'applied', 'insert', 'fra', now() FROM generate_series(1, 12000)`,
    );
    await query("ANALYZE mmlite.conflict");
    assert.equal(await countConflicts(query), 12_001);
    await control.close();
  });
}
