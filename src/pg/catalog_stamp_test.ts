import assert from "node:assert/strict";
import { startPostgres } from "../../tests/support/postgres.ts";
import { type CatalogStamp, readCatalogStamp } from "./catalog_stamp.ts";
import type { Query } from "./query.ts";

const SCHEMA = `CREATE SCHEMA app; CREATE TABLE kept (id int PRIMARY KEY, other int NOT NULL UNIQUE);
  CREATE TABLE parted (id int) PARTITION BY RANGE (id); CREATE TABLE part (id int);
  CREATE PUBLICATION known FOR TABLE kept`;
/** Each changes which tables there are, how their rows are found or what is published. */
const CHANGES = [
  "CREATE TABLE fresh (id int)",
  "ALTER TABLE fresh RENAME TO renamed",
  "ALTER TABLE renamed SET SCHEMA app",
  "ALTER SCHEMA app RENAME TO shop",
  "DROP TABLE shop.renamed",
  "BEGIN; CREATE TABLE fresh (id int); DROP SCHEMA shop; COMMIT",
  "ALTER TABLE fresh SET UNLOGGED",
  "ALTER TABLE fresh SET LOGGED",
  "ALTER TABLE fresh ADD PRIMARY KEY (id)",
  "ALTER TABLE kept REPLICA IDENTITY FULL",
  "ALTER TABLE kept REPLICA IDENTITY USING INDEX kept_other_key",
  "ALTER TABLE kept DROP CONSTRAINT kept_other_key",
  "ALTER TABLE parted ATTACH PARTITION part FOR VALUES FROM (0) TO (9)",
  "ALTER TABLE parted DETACH PARTITION part",
  "ALTER PUBLICATION known SET (publish = 'insert')",
  "BEGIN; ALTER PUBLICATION known DROP TABLE kept; ALTER PUBLICATION known ADD TABLE fresh; COMMIT",
  "ALTER PUBLICATION known DROP TABLE fresh",
  "DROP PUBLICATION known",
];
const GENERATED_CHANGES = [
  "ALTER TABLE kept ADD twice int GENERATED ALWAYS AS (id * 2) STORED",
  "ALTER TABLE kept ALTER twice DROP EXPRESSION",
];
/** A transaction each, of which nothing that is published could tell. */
const OTHERS = [
  "INSERT INTO kept VALUES (1, 1)",
  "BEGIN; CREATE TABLE undone (id int); ROLLBACK",
  "CREATE FUNCTION made() RETURNS int LANGUAGE sql AS 'SELECT 1'",
];

for (const major of [10, 13, 18] as const) {
  Deno.test(`the stamp of the catalog of PostgreSQL ${major} changes with what is published`, async () => {
    await using server = await startPostgres({ major, settings: { autovacuum: "off" } });
    await server.sql("postgres", SCHEMA);
    let counted = 0;
    const query: Query = async (text, params) => {
      const rows = await server.sql("postgres", text, params as unknown[]);
      if (rows[0].rows !== null) counted++;
      return rows;
    };
    let last: CatalogStamp | undefined;
    const changed = async () => {
      const stamp = await readCatalogStamp(query, last);
      const isNew = stamp.rows !== last?.rows;
      last = stamp;
      return isNew;
    };
    assert.ok(await changed());
    for (const sql of [...CHANGES, ...(major >= 12 ? GENERATED_CHANGES : [])]) {
      await server.sql("postgres", sql);
      assert.ok(await changed(), sql);
      assert.ok(!await changed(), `nothing after ${sql}`);
    }
    for (const sql of OTHERS) {
      await server.sql("postgres", sql);
      assert.ok(!await changed(), sql);
    }
    counted = 0;
    assert.ok(!await changed());
    assert.equal(counted, 0, "nothing is counted while no transaction ends");
  });

  Deno.test(`what PostgreSQL ${major} had not committed at one stamp changes the next`, async () => {
    await using server = await startPostgres({ major });
    await server.sql("postgres", SCHEMA);
    const query: Query = (text, params) => server.sql("postgres", text, params as unknown[]);
    const other = await server.connect("postgres");
    try {
      await other.query("BEGIN; CREATE TABLE slow (id int)");
      await server.sql("postgres", "CREATE TABLE quick (id int)");
      const before = await readCatalogStamp(query, undefined);
      await other.query("COMMIT");
      const after = await readCatalogStamp(query, before);
      assert.notEqual(after.rows, before.rows);
      await server.restart();
      assert.notEqual((await readCatalogStamp(query, after)).rows, after.rows);
    } finally {
      await other.end();
    }
  });
}
