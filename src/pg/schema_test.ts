import assert from "node:assert/strict";
import { type PostgresServer, startPostgres } from "../../tests/support/postgres.ts";
import { POSITION_MOVED_SQLSTATE } from "./conflict_schema.ts";
import { schemaStatements } from "./schema.ts";

/** A session on a database of its own with origins `a` and `b` at position 0. */
async function openSession(server: PostgresServer) {
  const client = await server.connect("postgres");
  for (const step of schemaStatements(0)) await client.query(step);
  await client.query("INSERT INTO mmlite.progress VALUES ('b', '0/0', NULL, 1), ('a', '0/0', NULL, 1)");
  const value = async (text: string) =>
    (await client.query({ text, rowMode: "array" })).rows[0]?.[0] as unknown;
  return {
    value,
    move: (from: number, to: number) =>
      value(`SELECT mmlite.begin_apply('a', '0/${from}', '0/${to}', 1, now())`),
    position: () => value("SELECT lsn::text FROM mmlite.progress WHERE origin = 'a'"),
    [Symbol.asyncDispose]: () => client.end(),
  };
}

for (const major of [10, 18] as const) {
  Deno.test(`the position moves without a search by key, and exactly, on PostgreSQL ${major}`, async () => {
    await using server = await startPostgres({ major });
    await using session = await openSession(server);
    const { value, move, position } = session;
    const moved = { code: POSITION_MOVED_SQLSTATE };

    await value("BEGIN");
    await value(
      `SELECT count(mmlite.begin_apply('a', '0/0'::pg_lsn, '0/0'::pg_lsn, 1, now()))
         FROM generate_series(1, 3000)`,
    );
    const scans = Number(
      await value("SELECT idx_scan FROM pg_stat_xact_all_tables WHERE relid = 'mmlite.progress'::regclass"),
    );
    assert.ok(scans >= 1 && scans < 100, `${scans} searches`);
    await value("ROLLBACK");

    await move(0, 1);
    const place = () => value("SELECT current_setting('mmlite.place')");
    assert.equal(await place(), await value("SELECT ctid::text FROM mmlite.progress WHERE origin = 'a'"));
    await value("BEGIN");
    await move(1, 2);
    await value("ROLLBACK");
    await assert.rejects(move(2, 3), moved);
    await move(1, 2);
    // The row moves, and the other origin's takes its place.
    await value("UPDATE mmlite.progress SET lsn = lsn WHERE origin = 'b'");
    await value("VACUUM FULL mmlite.progress");
    await value(
      "SELECT set_config('mmlite.place', ctid::text, false) FROM mmlite.progress WHERE origin = 'b'",
    );
    await move(2, 3);
    assert.equal(await position(), "0/3");
    assert.equal(await value("SELECT lsn::text FROM mmlite.progress WHERE origin = 'b'"), "0/0");
    await server.sql("postgres", "UPDATE mmlite.progress SET epoch = 2 WHERE origin = 'a'");
    await assert.rejects(move(3, 4), moved);
  });
}

Deno.test("conflicts on record stay where the step comes that keeps them as json", async () => {
  await using server = await startPostgres({ major: 10 });
  const client = await server.connect("postgres");
  try {
    const steps = schemaStatements(0);
    for (const step of steps.slice(0, 6)) await client.query(step);
    await client.query(
      `INSERT INTO mmlite.conflict (table_schema, table_name, type, resolution, change, key, local_row, remote_origin,
         remote_timestamp) VALUES ('public', 't', 'update_missing', 'applied', 'update', '{"id": 1}', NULL, 'b', now())`,
    );
    for (const step of steps.slice(6)) await client.query(step);
    const { rows } = await client.query("SELECT key::text, local_row::text FROM mmlite.conflict");
    assert.deepEqual(rows, [{ key: '{"id": 1}', local_row: null }]);
  } finally {
    await client.end();
  }
});

Deno.test("a step records the same number whatever the database has already", () => {
  const all = schemaStatements(0);
  all.forEach((sql, i) => {
    assert.ok(sql.endsWith(`INSERT INTO mmlite.schema_step (step) VALUES (${i + 1});`), `step ${i + 1}`);
    assert.equal(sql.match(/INTO mmlite\.schema_step/g)?.length, 1, `step ${i + 1}`);
    assert.deepEqual(schemaStatements(i), all.slice(i));
  });
});
