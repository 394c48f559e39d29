import assert from "node:assert/strict";
import { eventually } from "../../tests/support/poll.ts";
import { startPostgres } from "../../tests/support/postgres.ts";
import { openControl } from "../pg/control.ts";
import { ensureSchema } from "../pg/schema.ts";
import { parsePostgresUrl } from "../pg/target.ts";
import { ConflictKeeper } from "./conflict_keeper.ts";

Deno.test("old conflicts are forgotten piece by piece, at the start too, and not while the database is away", async () => {
  await using server = await startPostgres({ major: 18 });
  const control = openControl(await parsePostgresUrl(server.url(), {}), "mmlite test");
  const query = control.query("test");
  await ensureSchema(query);
  const note = (count: number, ago: string) =>
    query(
      `INSERT INTO mmlite.conflict (noted_at, table_schema, table_name, type, resolution, change, remote_origin,
         remote_timestamp)
       SELECT now() - $2::interval, 'public', 't', 'update_missing', 'skipped', 'update', 'fra', now()
         FROM generate_series(1, $1::integer)`,
      [String(count), ago],
    );
  const left = async () =>
    Number((await query("SELECT count(*)::text AS left FROM mmlite.conflict"))[0].left);
  const keeper = new ConflictKeeper({ database: { control }, keepSeconds: 3600 });
  await note(2500, "61 minutes");
  await note(3, "59 minutes");
  assert.equal(await keeper.forget(), 2500);
  assert.deepEqual([await left(), await keeper.forget()], [3, 0]);

  await note(1, "2 hours");
  const stop = new AbortController();
  const away = keeper.run(stop.signal, () => false);
  const running = keeper.run(stop.signal, () => true);
  await eventually("the old one to go", async () => await left() === 3);
  stop.abort();
  await Promise.all([away, running]);
  await control.close();
});
