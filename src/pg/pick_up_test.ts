import assert from "node:assert/strict";
import { within } from "../../tests/support/poll.ts";
import { type PostgresServer, startPostgres } from "../../tests/support/postgres.ts";
import { makeSlotBed, type SlotBed, transactionsOf } from "../../tests/support/slot_bed.ts";
import type { MmliteError } from "../errors.ts";
import { formatTableName } from "../table_name.ts";
import { closeClient } from "./client.ts";
import { readKnownTables, saveKnownTables } from "./known_tables.ts";
import { MAX_PICKED_UP_ROWS, openPickUps, pickUpTable } from "./pick_up.ts";
import { readPublications } from "./publication.ts";
import { schemaStatements } from "./schema.ts";
import { leavesOf, partitionsByParent, readTables } from "./tables.ts";

const SCHEMA = "CREATE TABLE public.old (id int PRIMARY KEY)";

async function openBed(server: PostgresServer) {
  const bed = await makeSlotBed(server, { name: "later", schema: SCHEMA });
  for (const step of schemaStatements(0)) await bed.query(step);
  await bed.query(
    "INSERT INTO mmlite.node VALUES (true, 'c', 'ams', '4a2e51b2-5f0b-4ad9-9a7c-5d3f5f3f3f3f')",
  );
  await bed.ensureSlot();
  const tables = await readTables(bed.query);
  await saveKnownTables(bed.query, tables.map(({ oid }) => oid));
  return bed;
}

async function pickUp({ query, target, serverVersion }: SlotBed, name: string) {
  const present = await readTables(query);
  const table = present.find((one) => one.name === name)!;
  const leaves = table.partitioned ? leavesOf(table, partitionsByParent(present)) : [];
  const oids = [table.oid, ...leaves.map(({ oid }) => oid)];
  const client = await openPickUps(target);
  const done = await pickUpTable(client, { table, oids, serverVersion, isVersioned: true })
    .finally(() => closeClient(client));
  const known = await readKnownTables(query);
  assert.ok(oids.every((oid) => known!.has(oid)));
  return done;
}

async function publicationOf({ query }: SlotBed, table: string): Promise<string[]> {
  const all = await readPublications(query);
  return all.filter(({ tables }) => tables.some((one) => formatTableName(one) === table)).map((one) =>
    one.name
  );
}

for (const major of [10, 11, 12, 13, 14, 15, 16, 17, 18] as const) {
  Deno.test(`the rows of a new table are decoded as inserts, each once, on PostgreSQL ${major}`, async (t) => {
    await using server = await startPostgres({ major });
    await using bed = await openBed(server);
    const { query } = bed;
    const source = await bed.source();
    const transactions = transactionsOf(source);
    const next = async () => (await within("a transaction", 60_000, transactions.next())).value!;

    await t.step("of a table with a key, large values and a trigger", async () => {
      await query(
        `CREATE TABLE public.keyed (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, big text, gone int);
         ALTER TABLE public.keyed ALTER big SET STORAGE EXTERNAL, DROP COLUMN gone;
         CREATE TABLE public.refers (keyed int REFERENCES public.keyed ON DELETE CASCADE);
         CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''fired''; END';
         INSERT INTO public.keyed (big) SELECT repeat(i::text, 9000) FROM generate_series(1, 3) i;
         INSERT INTO public.refers VALUES (1), (2);
         UPDATE public.keyed SET big = 'x' WHERE id = 3;
         CREATE TRIGGER refuse BEFORE INSERT OR DELETE ON public.keyed FOR EACH ROW EXECUTE PROCEDURE refuse()`,
      );
      assert.deepEqual(await pickUp(bed, "keyed"), { rows: 3, sent: true });
      assert.deepEqual(await publicationOf(bed, "public.keyed"), ["mmlite"]);
      const { kinds, inserted } = await next();
      assert.match(kinds, /^BR+IIIC$/);
      assert.deepEqual(inserted.sort(), ["1", "2", "3"]);
      await query("DROP TRIGGER refuse ON public.keyed; UPDATE public.keyed SET big = 'y' WHERE id = 1");
      assert.match((await next()).kinds, /^BR*UC$/);
      assert.equal((await query("SELECT count(*) FROM public.refers"))[0].count, "2");
    });

    await t.step("of a table without key", async () => {
      await query(
        "CREATE TABLE public.keyless (v int, w text); INSERT INTO public.keyless VALUES (1), (1), (2)",
      );
      assert.deepEqual(await pickUp(bed, "keyless"), { rows: 3, sent: true });
      assert.deepEqual(await publicationOf(bed, "public.keyless"), ["mmlite_inserts"]);
      const { kinds, inserted } = await next();
      assert.match(kinds, /^BR+IIIC$/);
      assert.deepEqual(inserted.sort(), ["1", "1", "2"]);
      await query("UPDATE public.keyless SET v = 5; INSERT INTO public.keyless VALUES (7)");
      assert.deepEqual((await next()).inserted, ["7"]);
    });

    if (major >= 13) {
      await t.step("of a partitioned table", async () => {
        await query(
          `CREATE TABLE public.parted (id int PRIMARY KEY) PARTITION BY RANGE (id);
           CREATE TABLE public.p1 PARTITION OF public.parted FOR VALUES FROM (0) TO (10);
           CREATE TABLE public.p2 PARTITION OF public.parted FOR VALUES FROM (10) TO (20);
           INSERT INTO public.parted VALUES (1), (11), (12)`,
        );
        assert.deepEqual(await pickUp(bed, "parted"), { rows: 3, sent: true });
        const { kinds, inserted } = await next();
        assert.match(kinds, /^BR+IR*IR*IC$/);
        assert.deepEqual(inserted.sort(), ["1", "11", "12"]);
      });
    }

    await t.step("but not those that came from another node", async () => {
      await query("SELECT pg_replication_origin_create('mmlite_fra')");
      await query("CREATE TABLE public.mixed (id int PRIMARY KEY); INSERT INTO public.mixed VALUES (1)");
      await query("SELECT pg_replication_origin_session_setup('mmlite_fra')");
      await query(
        `BEGIN; INSERT INTO public.mixed VALUES (2);
         INSERT INTO mmlite.apply_group VALUES (txid_current(), 'fra', now(), now(), '');
         SELECT pg_replication_origin_xact_setup('0/1', now()); COMMIT`,
      );
      await query("SELECT pg_replication_origin_session_reset()");
      assert.deepEqual(await pickUp(bed, "mixed"), { rows: 2, sent: true });
      assert.deepEqual((await next()).inserted, ["1"]);
    });

    await t.step("and a table that is written to is left for later", async () => {
      await query("CREATE TABLE public.busy (id int PRIMARY KEY)");
      const client = await server.connect("later");
      await client.query("BEGIN; INSERT INTO public.busy VALUES (1)");
      await assert.rejects(pickUp(bed, "busy"), (error: MmliteError) => error.kind === "transient");
      assert.deepEqual(await publicationOf(bed, "public.busy"), []);
      await client.query("COMMIT");
      await client.end();
      assert.deepEqual(await pickUp(bed, "busy"), { rows: 1, sent: true });
      assert.deepEqual((await next()).inserted, ["1"]);
    });

    await t.step("rows that cannot be written again are not sent, and that is said", async () => {
      const refused: Record<string, [string, RegExp]> = {
        checked: [
          "CREATE TABLE public.checked (id int PRIMARY KEY); INSERT INTO public.checked VALUES (-5); " +
          "ALTER TABLE public.checked ADD CHECK (id > 0) NOT VALID",
          /a value of "public\.checked" was refused by "checked_id_check" \(SQLSTATE 23514\)/,
        ],
        watched: [
          "CREATE TABLE public.watched (id int PRIMARY KEY); INSERT INTO public.watched VALUES (-5); " +
          "CREATE TRIGGER refuse BEFORE DELETE ON public.watched FOR EACH ROW EXECUTE PROCEDURE refuse(); " +
          "ALTER TABLE public.watched ENABLE ALWAYS TRIGGER refuse",
          /a change was refused by function public\.refuse\(\) \(SQLSTATE P0001\)/,
        ],
        deferred: [
          "CREATE TABLE public.deferred (id int PRIMARY KEY); INSERT INTO public.deferred VALUES (-5); " +
          "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON public.deferred DEFERRABLE INITIALLY DEFERRED " +
          "FOR EACH ROW EXECUTE PROCEDURE refuse(); ALTER TABLE public.deferred ENABLE ALWAYS TRIGGER refuse",
          /a change was refused by function public\.refuse\(\) \(SQLSTATE P0001\)/,
        ],
        others: [
          "CREATE TABLE public.others (id int); INSERT INTO public.others VALUES (-5); " +
          "CREATE PUBLICATION others FOR ALL TABLES",
          /cannot delete from table "others" because it does not have a replica identity/,
        ],
      };
      for (const [name, [sql, why]] of Object.entries(refused)) {
        await query(sql);
        const { refused, ...done } = await pickUp(bed, name);
        assert.deepEqual(done, { rows: 1, sent: false });
        assert.match(refused!, why);
        assert.deepEqual(await publicationOf(bed, `public.${name}`), [
          name === "others" ? "mmlite_inserts" : "mmlite",
        ]);
        const [{ reason }] = await query("SELECT reason FROM mmlite.diverged WHERE table_name = $1", [name]);
        assert.match(reason!, /^its rows could not be written again when node ams began to publish it/);
        assert.match(reason!, why);
        assert.doesNotMatch(reason!, /-5/);
      }
      await query(
        "DROP PUBLICATION others; DELETE FROM mmlite.diverged; INSERT INTO public.others VALUES (9)",
      );
      assert.deepEqual((await next()).inserted, ["9"]);
    });

    if (major === 10 || major === 18) {
      await t.step("nor are too many rows sent", async () => {
        await query(
          `CREATE TABLE public.most (id int PRIMARY KEY, v text);
           INSERT INTO public.most SELECT i, md5(i::text) FROM generate_series(1, ${MAX_PICKED_UP_ROWS}) i;
           CREATE TABLE public.more (id int PRIMARY KEY);
           INSERT INTO public.more SELECT generate_series(1, ${MAX_PICKED_UP_ROWS + 1})`,
        );
        assert.deepEqual(await pickUp(bed, "more"), { rows: MAX_PICKED_UP_ROWS + 1, sent: false });
        assert.deepEqual(await publicationOf(bed, "public.more"), ["mmlite"]);
        const [{ table_name, reason }] = await query("SELECT table_name, reason FROM mmlite.diverged");
        assert.equal(table_name, "more");
        assert.match(reason!, /^it had too many rows when node ams began to publish it/);
        assert.deepEqual(await pickUp(bed, "most"), { rows: MAX_PICKED_UP_ROWS, sent: true });
        assert.equal((await next()).inserted.length, MAX_PICKED_UP_ROWS);
      });
    }
    await source.close();
  });
}
