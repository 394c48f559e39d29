import assert from "node:assert/strict";
import { type PostgresMajor, type PostgresServer, startPostgres } from "../../tests/support/postgres.ts";
import { CORPUS, corpusSchema } from "../../tests/support/type_corpus.ts";
import { closeClient, openClient } from "./client.ts";
import { ColumnTypes } from "./column_types.ts";
import { type Query, queryWith } from "./query.ts";
import { type LocalTable, readLocalTable } from "./relation.ts";
import { parsePostgresUrl } from "./target.ts";

/** Corpus columns whose values nothing compares. */
const INCOMPARABLE = "point line lseg box path polygon circle json jsonpath xml json_array box_array " +
  "txid_snapshot pg_snapshot";
const SPECIAL_EQUALITY: Readonly<Record<string, string | null>> = {
  c_citext: "public.=",
  c_hstore: "public.=",
  ...Object.fromEntries(INCOMPARABLE.split(" ").map((type) => [`c_${type}`, null])),
};

/** Runs a body with what reads a table of `public` in one session, as that of an apply session would be. */
async function withReader(
  major: PostgresMajor,
  body: (server: PostgresServer, read: (name: string) => Promise<LocalTable | undefined>) => Promise<void>,
): Promise<void> {
  await using server = await startPostgres({ major });
  const client = await openClient(await parsePostgresUrl(server.url(), {}), { applicationName: "reader" });
  let queries = 0;
  const query: Query = (text, params) => (queries++, queryWith(client)(text, params));
  const types = new ColumnTypes();
  const read = (name: string) =>
    readLocalTable(query, { schema: "public", name, serverVersion: major * 10_000, types });
  try {
    await body(server, async (name) => {
      const first = await read(name);
      queries = 0;
      assert.deepEqual(await read(name), first);
      assert.equal(queries, 1, "a second reading takes one query");
      return first;
    });
  } finally {
    await closeClient(client);
  }
}

/** A table's columns as `name:type equality`, with marks for what is out of the ordinary. */
function described(table: LocalTable | undefined): string[] {
  return table!.columns.map((column) =>
    [
      `${column.name}:${column.typeName}`,
      ...(column.typeModifier === -1 ? [] : [`(${column.typeModifier})`]),
      ...(column.equality === "pg_catalog.=" ? [] : [column.equality ?? "incomparable"]),
      ...(column.castIsInput ? [] : ["cast"]),
      ...(column.deterministic ? [] : ["nondeterministic"]),
      ...(column.generated ? ["generated"] : []),
      ...(column.identityAlways ? ["identity"] : []),
    ].join(" ")
  );
}

const firing = (kind: "ALWAYS" | "REPLICA", table: string) =>
  `CREATE TRIGGER noted BEFORE INSERT ON ${table} FOR EACH ROW EXECUTE PROCEDURE noted();
   ALTER TABLE ${table} ENABLE ${kind} TRIGGER noted;`;
const MADE_TYPES = `
CREATE DOMAIN short AS varchar(3); CREATE DOMAIN shorter AS short; CREATE DOMAIN doc AS json;
CREATE TYPE colour AS ENUM ('red'); CREATE DOMAIN hue AS colour;
CREATE FUNCTION to_colour(text) RETURNS colour LANGUAGE sql AS $$ SELECT 'red'::public.colour $$;
CREATE CAST (text AS colour) WITH FUNCTION to_colour(text);
CREATE TYPE shape AS ENUM ('round'); CREATE CAST (text AS shape) WITH INOUT;
CREATE TYPE painted AS (colours colour[]); CREATE TYPE filed AS (body doc);
CREATE TABLE made (a short, b shorter, c doc, d colour, e hue, f painted, g colour[], h shape, i filed[], j char,
  k varchar[], l bit(3), m pg_catalog.bpchar);`;
const MADE = [
  "a:public.short",
  "b:public.shorter",
  "c:public.doc incomparable",
  "d:public.colour cast",
  "e:public.hue cast",
  "f:public.painted cast",
  "g:public.colour[] cast",
  "h:public.shape",
  "i:public.filed[] incomparable",
  "j:bpchar (5)",
  "k:character varying[]",
  'l:"bit" (3)',
  "m:bpchar",
];

for (const major of [10, 12, 18] as const) {
  Deno.test(`a local table is read as the catalog of PostgreSQL ${major} has it`, async (t) => {
    await withReader(major, async (server, read) => {
      await t.step("types are named, and have their operators", async () => {
        const corpus = CORPUS.filter(({ since = 10 }) => since <= major);
        const columns = corpus.map(({ name, type }) => `${name} ${type}`).join(", ");
        await server.sql("postgres", `${corpusSchema(major)} CREATE TABLE corpus (${columns})`);
        const table = await read("corpus");
        assert.deepEqual(table!.columns.map(({ name }) => name), corpus.map(({ name }) => name));
        const named = table!.columns.map(({ typeName, typeOid }) => `${typeName} ${typeOid}`);
        const [{ types }] = await server.sql(
          "postgres",
          `SET search_path = ''; SELECT array_agg(format_type(atttypid, -1) || ' ' || atttypid ORDER BY attnum)
            AS types FROM pg_attribute WHERE attrelid = 'public.corpus'::regclass AND attnum > 0`,
        );
        assert.deepEqual(named, types);
        for (const { name, equality, castIsInput } of table!.columns) {
          assert.equal(equality, name in SPECIAL_EQUALITY ? SPECIAL_EQUALITY[name] : "pg_catalog.=", name);
          assert.equal(
            castIsInput,
            !name.startsWith("c_byte") || name === "c_bytea" || name === "c_bytea_array",
          );
        }
      });

      await t.step("a type is what it is made of, to the last domain, array and column", async () => {
        await server.sql("postgres", MADE_TYPES);
        assert.deepEqual(described(await read("made")), MADE);
      });

      await t.step("a cast, a name or a type that is new is seen at the next reading", async () => {
        await server.sql(
          "postgres",
          `CREATE TYPE grade AS ENUM ('good'); CREATE TABLE graded (g grade, h shape);
           CREATE FUNCTION to_shape(text) RETURNS shape LANGUAGE sql AS $$ SELECT 'round'::public.shape $$`,
        );
        assert.deepEqual(described(await read("graded")), ["g:public.grade", "h:public.shape"]);
        await server.sql(
          "postgres",
          `ALTER TYPE grade RENAME TO mark; DROP CAST (text AS shape);
           CREATE CAST (text AS shape) WITH FUNCTION to_shape(text); ALTER TABLE graded ADD i mark[]`,
        );
        assert.deepEqual(described(await read("graded")), [
          "g:public.mark",
          "h:public.shape cast",
          "i:public.mark[]",
        ]);
      });

      await t.step("columns keep their order, and dropped ones are gone", async () => {
        await server.sql(
          "postgres",
          `CREATE TABLE kept (z int GENERATED ALWAYS AS IDENTITY, gone int, "A b" numeric(10,2),
             i int GENERATED BY DEFAULT AS IDENTITY); ALTER TABLE kept DROP gone; CREATE TABLE bare ()`,
        );
        assert.deepEqual(described(await read("kept")), [
          "z:integer identity",
          "A b:numeric (655366)",
          "i:integer",
        ]);
        assert.deepEqual(described(await read("bare")), []);
        assert.equal(await read("none"), undefined);
      });

      if (major >= 12) {
        await t.step("generated columns and collations are told", async () => {
          await server.sql(
            "postgres",
            `CREATE COLLATION loose (provider = icu, locale = 'und', deterministic = false);
             CREATE TABLE told (a text COLLATE loose, b text, c int GENERATED ALWAYS AS (1) STORED)`,
          );
          assert.deepEqual(described(await read("told")), [
            "a:text nondeterministic",
            "b:text",
            "c:integer generated",
          ]);
        });
      }

      await t.step("unique indexes over plain columns and all rows count", async () => {
        await server.sql(
          "postgres",
          `CREATE TABLE keyed (a int NOT NULL, b text NOT NULL, c int, PRIMARY KEY (b, a), UNIQUE (c) DEFERRABLE);
           CREATE UNIQUE INDEX ident ON keyed (a) ${major >= 11 ? "INCLUDE (c)" : ""};
           CREATE UNIQUE INDEX ON keyed (c) WHERE c > 0; CREATE UNIQUE INDEX ON keyed ((c + 1));
           CREATE INDEX ON keyed (c); ALTER TABLE keyed REPLICA IDENTITY USING INDEX ident`,
        );
        const plain = { primary: false, replicaIdentity: false, immediate: true, exclusion: false };
        assert.deepEqual((await read("keyed"))!.uniqueIndexes, [
          { ...plain, columns: ["b", "a"], primary: true },
          { ...plain, columns: ["c"], immediate: false },
          { ...plain, columns: ["a"], replicaIdentity: true },
        ]);
      });

      if (major < 12) {
        await t.step("an index over the system column oid is none over others", async () => {
          await server.sql(
            "postgres",
            "CREATE TABLE aged (a int) WITH OIDS; CREATE UNIQUE INDEX ON aged (oid, a)",
          );
          assert.deepEqual((await read("aged"))!.uniqueIndexes[0].columns, ["oid", "a"]);
        });
      }

      await t.step("a trigger or rule fires if a replica runs it, in a partition too", async () => {
        await server.sql(
          "postgres",
          `CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
           CREATE TABLE origin_only (a int);
           CREATE TRIGGER noted BEFORE INSERT ON origin_only FOR EACH ROW EXECUTE PROCEDURE noted();
           CREATE TABLE always (a int); ${firing("ALWAYS", "always")}
           CREATE TABLE replica (a int); ${firing("REPLICA", "replica")}
           CREATE TABLE ruled (a int); CREATE RULE noted AS ON INSERT TO ruled DO ALSO NOTIFY noted;
           ALTER TABLE ruled ENABLE ALWAYS RULE noted;
           CREATE TABLE parent (a int); CREATE TABLE child () INHERITS (parent); ${firing("ALWAYS", "child")}
           CREATE TABLE parted (a int, b int) PARTITION BY RANGE (a);
           CREATE TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (9) PARTITION BY RANGE (b);
           CREATE TABLE leaf PARTITION OF part FOR VALUES FROM (0) TO (9); ${firing("ALWAYS", "leaf")}
           CREATE VIEW seen AS SELECT 1 AS a`,
        );
        const firesIn = async (name: string) => (await read(name))!.firesOnApply;
        for (const name of ["always", "replica", "ruled", "child", "parted", "part", "leaf"]) {
          assert.ok(await firesIn(name), name);
        }
        for (const name of ["origin_only", "parent", "seen"]) assert.ok(!await firesIn(name), name);
        assert.equal((await read("parted"))!.kind, "p");
        assert.equal((await read("seen"))!.kind, "v");
      });
    });
  });
}
