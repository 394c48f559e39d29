/** Rows taken over from another database in the versions that they have there, on several releases. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { type PostgresServer, startPostgres } from "../../tests/support/postgres.ts";
import { MESSAGE_TYPE, messageType } from "../pgoutput/peek.ts";
import { eventually } from "../../tests/support/poll.ts";
import { closeClient } from "../pg/client.ts";
import { COMMIT_LOCK } from "../pg/conflict_schema.ts";
import { ensureNamedOrigin } from "../pg/progress.ts";
import { type Query, queryWith } from "../pg/query.ts";
import { openHashClient } from "../pg/row_hash.ts";
import { readScannedTable, type ScannedTable } from "../pg/scanned_table.ts";
import { ensureSchema } from "../pg/schema.ts";
import { readTables } from "../pg/tables.ts";
import { parsePostgresUrl } from "../pg/target.ts";
import { readWholeRows } from "../pg/whole_rows.ts";
import { type ExactRow, ExactRows, type Outcome } from "./exact_rows.ts";

const SIGNAL = new AbortController().signal;
const hex = (text: string) => Buffer.from(text).toString("hex");

/** A database that is a node, and sees its rows as other nodes ask for them. */
async function openNode(server: PostgresServer, name: string, schema: string) {
  await server.createDatabase(name);
  const target = await parsePostgresUrl(server.url(name), {});
  const client = await openHashClient(target, { applicationName: "test", signal: SIGNAL });
  const query = queryWith(client);
  await ensureSchema(query);
  await query(
    `INSERT INTO mmlite.node VALUES (true, 'c', '${name}', '4a2e51b2-5f0b-4ad9-9a7c-5d3f5f3f3f3f'); ${schema}`,
  );
  const [row] = await query("SELECT current_setting('server_version_num') AS version");
  return {
    name,
    query,
    target,
    scan: async (table: string) => {
      const found = (await readTables(query)).find((one) => one.name === table);
      return await readScannedTable(query, found!, Number(row.version));
    },
    [Symbol.asyncDispose]: () => closeClient(client),
  };
}
type TestNode = Awaited<ReturnType<typeof openNode>>;

async function openRows(here: TestNode): Promise<ExactRows> {
  const originName = `mmlite:${here.name}:repair`;
  await ensureNamedOrigin(here.query, originName);
  return await ExactRows.open({
    target: here.target,
    ...{ self: here.name, originName, source: "there", signal: SIGNAL },
  });
}

/** Keys as texts, as they differ: seen here, and whole there. */
async function seen(
  { here, there, table, keys }: { here: TestNode; there: TestNode; table: string; keys: string[][] },
): Promise<{ scanned: ScannedTable; rows: ExactRow[] }> {
  const [mine, theirs] = [await here.scan(table), await there.scan(table)];
  const digits = keys.map((key) => key.map(hex));
  const [my, their] = [
    await readWholeRows(here.query, mine, digits),
    await readWholeRows(there.query, theirs, digits),
  ];
  const rows = digits.map((key, i): ExactRow => {
    const [one, other] = [my[i], their[i]];
    assert.ok(one.kind !== "long" && other.kind !== "long");
    return {
      key,
      stamp: one.kind === "row" ? one.stamp : null,
      values: other.kind === "row" ? other.values : null,
      version: other.version,
    };
  });
  return { scanned: mine, rows };
}

async function take(
  options: { here: TestNode; there: TestNode; table: string; keys: string[][] },
  { alone, meanwhile }: { alone?: boolean; meanwhile?: (query: Query) => Promise<unknown> } = {},
): Promise<Outcome[]> {
  const writer = await openRows(options.here);
  try {
    await writer.begin(await options.here.scan(options.table));
    const { rows } = await seen(options);
    await meanwhile?.(options.here.query);
    return await writer.write(rows, { alone });
  } finally {
    await writer.close();
  }
}

async function texts(query: Query, sql: string): Promise<string[]> {
  return (await query(sql)).map((row) => Object.values(row).join("|"));
}

/** Transactions of a slot that change something: local ones, and those that say that they came from elsewhere. */
async function decoded(query: Query, slot: string): Promise<{ local: number; foreign: number }> {
  const rows = await query(
    `SELECT encode(data, 'hex') AS data FROM pg_logical_slot_get_binary_changes('${slot}', NULL, NULL,
       'proto_version', '1', 'publication_names', 'p')`,
  );
  const found = { local: 0, foreign: 0 };
  let types: number[] = [];
  for (const { data } of rows) {
    const bytes = Buffer.from(data!, "hex");
    types.push(messageType(bytes, 0, bytes.length));
    if (types.at(-1) !== MESSAGE_TYPE.commit) continue;
    const isForeign = types[1] === MESSAGE_TYPE.origin || types[1] === MESSAGE_TYPE.unnamedOrigin;
    if (types.length > 2) found[isForeign ? "foreign" : "local"]++;
    types = [];
  }
  return found;
}

const KEY = "mmlite.key_hash('public.t', ARRAY[id::text])";
const VERSIONS =
  `SELECT id, v, (mmlite.row_version(xmin, ${KEY})).node, (mmlite.row_version(xmin, ${KEY})).at FROM public.t ORDER BY id`;

for (const major of [10, 11, 12, 13, 14, 15, 16, 17, 18] as const) {
  Deno.test(`on PostgreSQL ${major} rows get values and versions of their source, and nothing is sent on`, async (t) => {
    await using server = await startPostgres({ major });
    const schema = "CREATE TABLE public.t (id int PRIMARY KEY, v text UNIQUE);";
    await using there = await openNode(server, "there", schema);
    await using here = await openNode(server, "here", schema);
    await here.query("CREATE PUBLICATION p FOR TABLE public.t");
    await here.query("SELECT pg_create_logical_replication_slot('s', 'pgoutput')");
    const both = { here, there, table: "t" };

    await t.step("overwritten, inserted and deleted, of several authors", async () => {
      for (let i = 1; i <= 3; i++) await there.query(`INSERT INTO public.t VALUES (${i}, 'there ${i}')`);
      // As if this node had written the first one, and a third node the second.
      await there.query(
        `INSERT INTO mmlite.apply_group SELECT mmlite.full_xid(xmin), CASE id WHEN 1 THEN 'here' ELSE 'third' END,
           '2020-01-01Z', '2020-01-01Z', int8send(${KEY}) || int8send(631152000000000 + id) FROM public.t WHERE id < 3`,
      );
      await here.query("INSERT INTO public.t VALUES (1, 'other'), (4, 'too many')");
      assert.deepEqual(await decoded(here.query, "s"), { local: 1, foreign: 0 });
      const outcomes = await take({ ...both, keys: [["4"], ["1"], ["2"], ["3"]] });
      assert.deepEqual(outcomes, ["written", "written", "written", "written"]);
      const rows = await texts(here.query, VERSIONS);
      assert.deepEqual(rows, await texts(there.query, VERSIONS));
      assert.deepEqual(rows.map((row) => row.split("|")[2]), ["here", "third", "there"]);
      assert.deepEqual(await decoded(here.query, "s"), { local: 0, foreign: 4 });
    });

    await t.step("a row that goes leaves a tombstone of its version", async () => {
      const [row] = await texts(
        here.query,
        "SELECT origin, position(int8send(mmlite.key_hash('public.t', ARRAY['4'])) IN entries) FROM mmlite.tombstone",
      );
      assert.equal(row, "here|1");
    });

    await t.step("what has changed here meanwhile stays", async () => {
      await there.query("UPDATE public.t SET v = 'new ' || id; DELETE FROM public.t WHERE id = 3");
      await there.query("INSERT INTO public.t VALUES (5, 'new 5'), (6, 'new 6')");
      const outcomes = await take({ ...both, keys: [["1"], ["2"], ["3"], ["5"], ["6"]] }, {
        meanwhile: (query) =>
          query(`UPDATE public.t SET v = 'local 1' WHERE id = 1; UPDATE public.t SET v = v WHERE id = 3;
            INSERT INTO public.t VALUES (5, 'local 5');
            INSERT INTO mmlite.tombstone (origin, last_timestamp, entries) VALUES ('there', now(), int8send(
              mmlite.key_hash('public.t', ARRAY['6'])) || int8send(800000000000000))`),
      });
      assert.deepEqual(outcomes, ["changed", "written", "changed", "changed", "changed"]);
      assert.deepEqual(await texts(here.query, "SELECT id, v FROM public.t ORDER BY id"), [
        "1|local 1",
        "2|new 2",
        "3|there 3",
        "5|local 5",
      ]);
      // Known before it was looked at, that row counts for what the source has.
      assert.deepEqual(await take({ ...both, keys: [["6"]] }), ["written"]);
      assert.deepEqual(await take({ ...both, keys: [["3"], ["1"], ["5"]] }), [
        "written",
        "written",
        "written",
      ]);
      assert.deepEqual(await texts(here.query, VERSIONS), await texts(there.query, VERSIONS));
    });

    await t.step("a row that another one stands in the way of is left, the others are written", async () => {
      await there.query("INSERT INTO public.t VALUES (10, 'taken'), (11, 'free')");
      await here.query("INSERT INTO public.t VALUES (12, 'taken')");
      const keys = [["10"], ["11"]];
      const refused = { refused: "other rows here have its values" };
      assert.deepEqual(await take({ ...both, keys }), [refused, "written"]);
      const [why] = await take({ ...both, keys: [["10"]] }, { alone: true });
      assert.match(typeof why === "string" ? why : why.refused, /a duplicate key .* by "t_v_key"/);
      assert.deepEqual(await texts(here.query, "SELECT id, v FROM public.t WHERE id >= 10 ORDER BY id"), [
        "11|free",
        "12|taken",
      ]);
    });

    await t.step("an UPDATE that waits for a row while it is repaired finds it", async () => {
      await there.query(
        "UPDATE public.t SET v = 'right' WHERE id = 2; INSERT INTO public.t VALUES (30, 'new')",
      );
      const [holder, application] = [await server.connect("here"), await server.connect("here")];
      try {
        // The repair waits for it after its UPDATE, with the row locked.
        await holder.query(`SELECT pg_advisory_lock(${COMMIT_LOCK}, 0)`);
        const repair = take({ ...both, keys: [["2"], ["30"]] });
        const waiting = (locktype: string) =>
          eventually(`a wait for ${locktype}`, async () => {
            const sql = `SELECT FROM pg_locks WHERE locktype = '${locktype}' AND NOT granted`;
            return (await here.query(sql)).length > 0;
          });
        await waiting("advisory");
        const update = application.query("UPDATE public.t SET v = v || ', and later' WHERE id = 2");
        await waiting("transactionid");
        await holder.query(`SELECT pg_advisory_unlock(${COMMIT_LOCK}, 0)`);
        assert.deepEqual(await repair, ["written", "written"]);
        assert.equal((await update).rowCount, 1);
      } finally {
        await holder.end();
        await application.end();
      }
      assert.deepEqual(await texts(here.query, "SELECT v FROM public.t WHERE id = 2"), ["right, and later"]);
    });

    await t.step("rows that exchange their values", async () => {
      await there.query(
        `DELETE FROM public.t; INSERT INTO public.t VALUES (20, 'a'), (21, 'b')`,
      );
      await here.query(`DELETE FROM public.t; INSERT INTO public.t VALUES (20, 'b'), (21, 'a')`);
      assert.deepEqual(await take({ ...both, keys: [["20"], ["21"]] }), ["written", "written"]);
      assert.deepEqual(await texts(here.query, VERSIONS), await texts(there.query, VERSIONS));
    });
  });
}

for (const major of [10, 18] as const) {
  Deno.test(`on PostgreSQL ${major} keys and columns of any kind are taken over`, async () => {
    await using server = await startPostgres({ major });
    const generated = major >= 12 ? ", g int GENERATED ALWAYS AS (1 + 1) STORED" : "";
    const schema = `CREATE TYPE public.pair AS (a int, b text); CREATE DOMAIN public.short AS varchar(5);
      CREATE TABLE public.parent (p text UNIQUE); INSERT INTO public.parent VALUES ('x');
      CREATE TABLE public."Odd ""name" ("a ""b" text COLLATE "C", f float8, "%k" char(3), id int GENERATED ALWAYS AS IDENTITY, n numeric(10,2),
        b bytea, j json, jb jsonb, arr text[], fs float8[], c public.pair, s public.short, ch "char", t timestamptz, r int4range,
        p text REFERENCES public.parent (p), x xml${generated}, PRIMARY KEY ("%k", f, "a ""b"));
      CREATE FUNCTION public.boom() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'fired'; END $$;
      CREATE TABLE public.wide (id int${major >= 11 ? " PRIMARY KEY" : ""}, v text) ${
      major >= 11
        ? "PARTITION BY RANGE (id); CREATE TABLE public.low PARTITION OF public.wide FOR VALUES FROM (0) TO (10); CREATE TABLE public.high PARTITION OF public.wide FOR VALUES FROM (10) TO (20)"
        : ""
    };`;
    await using there = await openNode(server, "there", schema);
    await using here = await openNode(server, "here", schema);
    await here.query(
      `CREATE TRIGGER boom BEFORE INSERT OR DELETE ON public."Odd ""name" FOR EACH ROW EXECUTE PROCEDURE public.boom()`,
    );
    await here.query("DELETE FROM public.parent");
    await there.query(`INSERT INTO public."Odd ""name" OVERRIDING SYSTEM VALUE VALUES
      (E'tab\\t"q"', 1.0::float8 / 3, 'a ', 77, 3.5, '\\xdeadbeef', '{"a" :  1}', '{"a":1}', ARRAY['x', NULL, 'y"z'], ARRAY[0.1::float8/3],
       ROW(1, 'two, "three"'), '12345', 'z', '2020-02-02 02:02:02.123456Z', '[1,5)', 'x', '<a/>'),
      ('', 'NaN', '', 78, NULL, '', 'null', 'null', '{}', NULL, ROW(NULL, NULL), '', '', 'infinity', 'empty', NULL, NULL)`);
    const name = 'Odd "name';
    const keys = (await there.query(
      `SELECT "%k" || repeat(' ', 3 - length("%k")) AS k, f::text, "a ""b" AS ab FROM public."Odd ""name" ORDER BY id`,
    )).map((row) =>
      ["%k", "a", "f"].map((column) => column === "%k" ? row.k! : column === "a" ? row.ab! : row.f!)
    );
    const floats = keys.map(([k, ab, f]) => [k, ab, f === "NaN" ? f : String(1 / 3)]);
    const scanned = await here.scan(name);
    assert.deepEqual(scanned.key.map((column) => column.name), ["%k", 'a "b', "f"]);
    assert.deepEqual(await take({ here, there, table: name, keys: floats }), ["written", "written"]);
    const all = `SELECT md5(t::text), t.* FROM public."Odd ""name" t ORDER BY id`;
    assert.deepEqual(await here.query(all), await there.query(all));
    if (major >= 11) {
      await there.query("INSERT INTO public.wide VALUES (1, 'low'), (11, 'high')");
      await here.query("INSERT INTO public.wide VALUES (1, 'other'), (12, 'too many')");
      const outcomes = await take({ here, there, table: "wide", keys: [["1"], ["11"], ["12"]] });
      assert.deepEqual(outcomes, ["written", "written", "written"]);
      const wide = "SELECT tableoid::regclass::text, id, v FROM public.wide ORDER BY id";
      assert.deepEqual(await here.query(wide), await there.query(wide));
    }
  });
}
