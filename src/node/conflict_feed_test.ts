import assert from "node:assert/strict";
import { startPostgres } from "../../tests/support/postgres.ts";
import { openControl } from "../pg/control.ts";
import { ensureSchema } from "../pg/schema.ts";
import { parsePostgresUrl } from "../pg/target.ts";
import { ConflictFeed } from "./conflict_feed.ts";

const NOTE = `INSERT INTO mmlite.conflict (table_schema, table_name, type, resolution, change, remote_origin,
  remote_timestamp) VALUES ('public', 't', 'update_missing', 'skipped', 'update', 'fra', now()) RETURNING id::text`;

for (const major of [10, 18] as const) {
  Deno.test(`no conflict is left out whose id was given before a higher one was committed, on PostgreSQL ${major}`, async () => {
    await using server = await startPostgres({ major });
    const control = openControl(await parsePostgresUrl(server.url(), {}), "mmlite test");
    const query = control.query("test");
    await ensureSchema(query);
    const [slow, slower] = [await server.connect("postgres"), await server.connect("postgres")];
    try {
      const note = async () => (await query(NOTE))[0].id;
      const read = async (feed: ConflictFeed) =>
        (await feed.read()).fed.map(({ conflict, position }) => `${conflict.id}@${position}`).join(" ");
      const begin = async (client: typeof slow) => {
        await client.query("BEGIN");
        return (await client.query(NOTE)).rows[0].id;
      };
      assert.equal(await note(), "1");
      assert.equal(await begin(slow), "2");
      const feed = await ConflictFeed.fromNow(query);
      assert.equal(await read(feed), "", "what is there already is not new");
      assert.equal(await note(), "3");
      assert.equal(await read(feed), "3@1", "what may still come is not passed");
      assert.equal(await begin(slower), "4");
      await slow.query("COMMIT");
      assert.equal(await read(feed), "2@3", "a lower id came later");
      const again = ConflictFeed.after(query, "1");
      assert.equal(await read(again), "2@2 3@3");
      assert.equal(await note(), "5");
      assert.equal(await read(feed), "5@3");
      await slower.query("ROLLBACK");
      assert.equal(await read(again), "5@5", "its id never comes");
      assert.equal(await note(), "6");
      assert.equal(await read(feed), "6@6", "and is passed now");
      assert.equal(await read(ConflictFeed.after(query, "6")), "");
      const ahead = ConflictFeed.after(query, "1000000");
      assert.equal(await read(ahead), "", "a position of another life of the database");
      await query(`${NOTE.replace(/VALUES.*RETURNING.*/s, "")}
        SELECT 'public', 't', 'update_missing', 'skipped', 'update', 'fra', now() FROM generate_series(1, 1200)`);
      const looks: number[] = [];
      const ids: number[] = [];
      for (let more = true; more;) {
        const look = await feed.read();
        looks.push(look.fed.length);
        for (const { conflict, position } of look.fed) {
          assert.equal(position, conflict.id, "whoever has only this one goes on here");
          ids.push(Number(conflict.id));
        }
        more = look.more;
      }
      assert.deepEqual(looks, [500, 500, 200]);
      assert.deepEqual(ids, Array.from({ length: 1200 }, (_, index) => index + 7));
      assert.equal((await ahead.read()).fed[0].conflict.id, "7");
    } finally {
      await Promise.all([slow.end(), slower.end(), control.close()]);
    }
  });
}
