/** Publications over real servers: which table goes where, and that applications never notice. */
import assert from "node:assert/strict";
import type { MmliteError } from "../src/errors.ts";
import { readPublications } from "../src/pg/publication.ts";
import { formatTableName } from "../src/table_name.ts";
import { readTables } from "../src/pg/tables.ts";
import { within } from "./support/poll.ts";
import { startPostgres } from "./support/postgres.ts";
import { makeSlotBed, type SlotBed, transactionsOf } from "./support/slot_bed.ts";

const SCHEMA = `
  CREATE SCHEMA app;
  CREATE TABLE app.keyed (id int PRIMARY KEY, v text);
  CREATE TABLE app.keyless (v text);
  CREATE TABLE app.whole (v text);
  ALTER TABLE app.whole REPLICA IDENTITY FULL;
  CREATE TABLE app.indexed (a int NOT NULL, b text NOT NULL, c int);
  CREATE UNIQUE INDEX chosen ON app.indexed (b, a);
  ALTER TABLE app.indexed REPLICA IDENTITY USING INDEX chosen;
  CREATE TABLE app.deferred (id int PRIMARY KEY DEFERRABLE);
  CREATE TABLE app.muted (id int PRIMARY KEY);
  ALTER TABLE app.muted REPLICA IDENTITY NOTHING;
  CREATE TABLE app.heir () INHERITS (app.keyed);
  CREATE UNLOGGED TABLE app.unlogged (id int PRIMARY KEY);
  CREATE TEMPORARY TABLE temporary (id int PRIMARY KEY);
  CREATE TABLE app.parted (id int, v text) PARTITION BY RANGE (id);
  CREATE TABLE app.part_low PARTITION OF app.parted FOR VALUES FROM (0) TO (10);
  CREATE TABLE app.part_high PARTITION OF app.parted FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id);
  CREATE TABLE app.part_leaf PARTITION OF app.part_high FOR VALUES FROM (10) TO (20);
  ALTER TABLE app.part_low ADD PRIMARY KEY (id);
  ALTER TABLE app.part_leaf ADD PRIMARY KEY (id)`;

async function published({ query }: SlotBed): Promise<Record<string, string[]>> {
  const publications = await readPublications(query);
  return Object.fromEntries(publications.map(({ name, tables }) => [name, tables.map(formatTableName)]));
}

for (const major of [10, 12, 13, 15, 16, 18] as const) {
  Deno.test(`publications follow the tables of PostgreSQL ${major}`, async (t) => {
    await using server = await startPostgres({ major });
    await using bed = await makeSlotBed(server, { name: "app", schema: SCHEMA });
    const { query } = bed;
    // Partitioned tables take a primary key from 11 on.
    if (major >= 11) {
      await query(
        "ALTER TABLE app.part_low DROP CONSTRAINT part_low_pkey; ALTER TABLE app.part_leaf DROP CONSTRAINT part_leaf_pkey; ALTER TABLE app.parted ADD PRIMARY KEY (id)",
      );
    }
    const parted = major >= 13 ? ["app.parted"] : ["app.part_leaf", "app.part_low"];

    await t.step("by what identifies their rows", async () => {
      await bed.publish(["app.*"]);
      assert.deepEqual(await published(bed), {
        mmlite: ["app.indexed", "app.keyed", ...parted, "app.whole"],
        mmlite_inserts: ["app.deferred", "app.heir", "app.keyless", "app.muted"],
      });
      const tables = new Map((await readTables(query)).map((table) => [table.name, table]));
      assert.deepEqual(tables.get("indexed")!.keyColumns, ["b", "a"]);
      assert.deepEqual(tables.get("part_leaf")!.parent, { schema: "app", name: "part_high" });
      assert.match(tables.get("deferred")!.hint!, /deferrable/);
      assert.match(tables.get("keyless")!.hint!, /Add a primary key/);
      assert.equal(tables.has("unlogged") || tables.has("temporary"), false);
    });

    await t.step("and nothing is altered that need not be", async () => {
      assert.deepEqual(await bed.publish(["app.*"]), []);
      await query("ALTER TABLE app.keyless ADD PRIMARY KEY (v); CREATE TABLE app.fresh (id int PRIMARY KEY)");
      const statements = (await bed.publish(["app.*"], ["app.muted"])).filter((text) =>
        text.startsWith("ALTER")
      );
      assert.deepEqual(statements, [
        'ALTER PUBLICATION mmlite_inserts DROP TABLE ONLY "app"."keyless", ONLY "app"."muted"',
        'ALTER PUBLICATION mmlite ADD TABLE ONLY "app"."fresh", ONLY "app"."keyless"',
      ]);
    });

    await t.step("applications may still update what has no key", async () => {
      await query("INSERT INTO app.heir VALUES (1, 'a'); UPDATE app.heir SET v = 'b'; DELETE FROM app.heir");
      await query("INSERT INTO app.deferred VALUES (1); UPDATE app.deferred SET id = 2");
    });

    if (major >= 12) {
      await t.step("generated columns identify nothing", async () => {
        await query(
          `CREATE SCHEMA gen;
           CREATE TABLE gen.keyed (a int, b int GENERATED ALWAYS AS (a * 2) STORED, v int, PRIMARY KEY (a, b));
           CREATE TABLE gen.beside (a int PRIMARY KEY, b int GENERATED ALWAYS AS (a * 2) STORED, v int);
           CREATE TABLE gen.whole (a int, b int GENERATED ALWAYS AS (a * 2) STORED, v int);
           ALTER TABLE gen.whole REPLICA IDENTITY FULL`,
        );
        await bed.publish(["gen.*"]);
        const whole = major >= 18 ? "mmlite_inserts" : "mmlite";
        const { mmlite, mmlite_inserts } = await published(bed);
        assert.deepEqual(mmlite, whole === "mmlite" ? ["gen.beside", "gen.whole"] : ["gen.beside"]);
        assert.deepEqual(mmlite_inserts, whole === "mmlite" ? ["gen.keyed"] : ["gen.keyed", "gen.whole"]);
        const keyed = (await readTables(query)).find(({ schema, name }) =>
          schema === "gen" && name === "keyed"
        );
        assert.match(keyed!.hint!, /generated column/);
        for (const table of ["keyed", "beside", "whole"]) {
          await query(
            `INSERT INTO gen.${table} (a, v) VALUES (1, 1); UPDATE gen.${table} SET v = 2; DELETE FROM gen.${table}`,
          );
        }
      });
    }

    await t.step("partitions arrive under the published name", async () => {
      await bed.publish(["app.parted"]);
      await bed.ensureSlot();
      await bed.publish(["app.parted"]);
      const source = await bed.source();
      await query("INSERT INTO app.parted VALUES (1, 'a'), (11, 'b')");
      await query("UPDATE app.parted SET v = 'c'");
      const transactions = transactionsOf(source);
      const next = async () => (await within("a transaction", 10_000, transactions.next())).value!;
      assert.deepEqual((await next()).inserted, ["1", "11"]);
      assert.match((await next()).kinds, /^BR*UR*UC$/);
      await source.close();
    });

    if (major < 14) {
      await t.step("a locked table is left for later", async () => {
        const busy = await server.connect("app");
        await busy.query("BEGIN; INSERT INTO app.keyed VALUES (7)");
        await assert.rejects(bed.publish(["app.keyed"]), (error: MmliteError) => error.kind === "transient");
        await busy.query("COMMIT");
        await busy.end();
        assert.notDeepEqual(await bed.publish(["app.keyed"]), []);
      });
    }
  });
}
