/** Every type in its awkward corners, between releases whose databases print and read values differently. */
import assert from "node:assert/strict";
// @ts-types="@types/pg"
import type pg from "pg";
import { arrived, type ClusterMember, startCluster } from "./support/cluster.ts";
import { copyOut } from "./support/copy_out.ts";
import { eventually } from "./support/poll.ts";
import { startPostgres } from "./support/postgres.ts";
import { CORPUS, type CorpusColumn, corpusSchema } from "./support/type_corpus.ts";

/** What both ends print under when they are compared. */
const PRINTED_WITH = `SET datestyle = 'ISO, YMD'; SET timezone = 'UTC'; SET intervalstyle = 'postgres';
  SET extra_float_digits = 3; SET bytea_output = 'hex'; SET xmloption = 'content'; SET client_encoding = 'UTF8';
  SET lc_monetary = 'C'; SET search_path = ''; SET quote_all_identifiers = off`;

/** Everything that changes how values are printed or read. */
const SETTINGS: readonly Readonly<Record<string, string>>[] = [
  {
    datestyle: "'German'",
    timezone: "'America/St_Johns'",
    intervalstyle: "'sql_standard'",
    extra_float_digits: "'-10'",
    bytea_output: "'escape'",
    xmloption: "'document'",
    standard_conforming_strings: "off",
    array_nulls: "off",
    client_encoding: "'LATIN1'",
    lc_monetary: "'C.UTF-8'",
    lc_numeric: "'C.UTF-8'",
    lc_time: "'C.UTF-8'",
    search_path: "'Other schema'",
    quote_all_identifiers: "on",
    transform_null_equals: "on",
    default_transaction_isolation: "'serializable'",
  },
  {
    datestyle: "'SQL, DMY'",
    timezone: "'Asia/Kathmandu'",
    intervalstyle: "'iso_8601'",
    extra_float_digits: "0",
    bytea_output: "'escape'",
    xmloption: "'document'",
    backslash_quote: "off",
    escape_string_warning: "off",
    client_encoding: "'SQL_ASCII'",
    search_path: "public, pg_catalog",
    row_security: "off",
    default_transaction_isolation: "'repeatable read'",
  },
];

/** What tells the old row to the receiver: its key, all of it beside a key, or all of it alone. */
const TABLES = {
  by_key: "ALTER TABLE public.by_key ADD PRIMARY KEY (id)",
  whole_row: "ALTER TABLE public.whole_row ADD PRIMARY KEY (id), REPLICA IDENTITY FULL",
  without_key: "ALTER TABLE public.without_key REPLICA IDENTITY FULL",
} as const;

/** One row for each value of the column that has the most, one more without values. */
const ROWS = Math.max(...CORPUS.map(({ values }) => values.length)) + 1;

function schemaFor(major: number, columns: readonly CorpusColumn[]): string {
  const list = columns.map(({ name, type }) => `${name} ${type}`).join(", ");
  const tables = Object.entries(TABLES).map(([table, identity]) =>
    `CREATE TABLE public.${table} (id int NOT NULL, ${list}); ${identity};`
  );
  // Names of types are those of public, whatever the database's own path is.
  return `SET search_path = public; SET array_nulls = on; SET client_encoding = 'UTF8'; ${
    corpusSchema(major)
  } ${tables.join("\n")}`;
}

/** The value of a column in the row whose `id` is the SQL expression given. */
function valueOf({ type, values }: CorpusColumn, id: string): string {
  const cases = values.map((value, index) => `WHEN ${index} THEN (${value})::${type}`);
  return `CASE (${id}) % ${values.length} ${cases.join(" ")} END`;
}

async function insertRows(client: pg.Client, table: string, options: Writing): Promise<void> {
  const { columns, firstId } = options;
  for (let id = firstId; id < firstId + ROWS - 1; id++) {
    const values = columns.map(({ type, values }) => `(${values[id % values.length]})::${type}`);
    await client.query(`INSERT INTO public.${table} VALUES (${[id, ...values].join(", ")})`);
  }
  const empty = columns.filter(({ type }) => type === "positive").map(({ name }) => name);
  await client.query(
    `INSERT INTO public.${table} (id, ${empty}) VALUES (${firstId + ROWS - 1}, ${empty.map(() => 1)})`,
  );
}

interface Writing {
  readonly columns: readonly CorpusColumn[];
  readonly firstId: number;
}

/** Each column alone, in a few rows or where all others travel along in one, then all of them in all rows. */
async function updateRows(client: pg.Client, table: string, { columns, firstId }: Writing): Promise<void> {
  const mine = `id >= ${firstId} AND id < ${firstId + ROWS}`;
  const rows = table === "by_key" ? `${mine} AND id % 4 = 0` : `id = ${firstId}`;
  for (const column of columns) {
    await client.query(
      `UPDATE public.${table} SET ${column.name} = ${valueOf(column, "id + 1")} WHERE ${rows}`,
    );
  }
  const all = columns.map((column) => `${column.name} = ${valueOf(column, "id + 2")}`);
  await client.query(`UPDATE public.${table} SET ${all.join(", ")} WHERE ${mine}`);
}

async function deleteRows(client: pg.Client, table: string): Promise<void> {
  await client.query(`DELETE FROM public.${table} WHERE id % 3 = 0`);
}

const WRITES = { insert: insertRows, update: updateRows, delete: deleteRows } as const;

async function assertEqual(
  members: readonly ClusterMember[],
  columns: readonly CorpusColumn[],
): Promise<void> {
  for (const table of Object.keys(TABLES)) {
    const list = columns.map(({ name, compare = "%" }) => compare.replace("%", name)).join(", ");
    const command = `COPY (SELECT id, ${list} FROM public.${table} ORDER BY id) TO STDOUT`;
    const [left, right] = await Promise.all(members.map(async ({ server, database }) => {
      const client = await server.connect(database);
      try {
        await client.query(PRINTED_WITH);
        return await copyOut(client, command);
      } finally {
        await client.end();
      }
    }));
    assert.ok(left.length > 0);
    if (left.equals(right)) continue;
    assert.deepEqual(differences(right, left, columns), [], `${table} differs`);
    assert.fail(`${table} differs`);
  }
}

/** The values that differ between two COPYs, shortened, one a line. */
function differences(actual: Uint8Array, expected: Uint8Array, columns: readonly CorpusColumn[]): string[] {
  const [left, right] = [actual, expected].map((bytes) =>
    new TextDecoder().decode(bytes).split("\n").map((line) => line.split("\t"))
  );
  if (left.length !== right.length) return [`${left.length} lines instead of ${right.length}`];
  return left.flatMap((line, row) =>
    line.flatMap((value, column) => {
      if (value === right[row][column]) return [];
      const name = columns[column - 1]?.name ?? "id";
      return [
        `row ${line[0]}, ${name}: ${value.slice(0, 200)} instead of ${right[row][column].slice(0, 200)}`,
      ];
    })
  );
}

for (const major of [17, 13, 10] as const) {
  Deno.test(`every type stays the same byte for byte between PostgreSQL 18 and ${major}`, async (t) => {
    const columns = CORPUS.filter(({ since = 10 }) => since <= major);
    await using newer = await startPostgres({ major: 18 });
    await using older = await startPostgres({ major });
    await using cluster = await startCluster(
      "types",
      [newer, older].map((server, index) => ({
        server,
        name: `n${server.major}`,
        schema: schemaFor(major, columns),
        settings: SETTINGS[index],
      })),
    );
    for (const [index, from] of cluster.members.entries()) {
      const to = cluster.members[1 - index];
      const writing = { columns, firstId: 1 + 1000 * index };
      for (const [what, write] of Object.entries(WRITES)) {
        const done = await t.step(`${what} on ${from.server.major}`, async () => {
          for (const table of Object.keys(TABLES)) await write(from.client, table, writing);
          await arrived(from, to);
          await assertEqual([from, to], columns);
        });
        if (!done) return;
      }
    }
  });
}

Deno.test("a LATIN1 database and a UTF8 one hold the same characters under the same names", async () => {
  const schema = 'SET client_encoding = "UTF8"; CREATE TABLE "Größe" ("Ä" text PRIMARY KEY, "ß" char(3))';
  await using latin1 = await startPostgres({ major: 15, encoding: "LATIN1" });
  await using utf8 = await startPostgres({ major: 18 });
  await using cluster = await startCluster("encodings", [
    { server: latin1, name: "latin1", schema },
    { server: utf8, name: "utf8", schema },
  ]);
  const [west, east] = cluster.members;
  for (const [from, to] of [[west, east], [east, west]]) {
    const { name } = from.node;
    await from.client.query(
      `INSERT INTO "Größe" SELECT '${name}' || chr(c), 'é' FROM generate_series(160, 255) c`,
    );
    await from.client.query(`UPDATE "Größe" SET "ß" = 'üÿ', "Ä" = "Ä" || 'ö' WHERE "Ä" > '${name}ö'`);
    await from.client.query(`DELETE FROM "Größe" WHERE "Ä" = '${name}ä'`);
    await arrived(from, to);
    const [left, right] = await Promise.all([from, to].map(async ({ client }) => {
      await client.query("SET client_encoding = 'UTF8'");
      return await copyOut(client, 'COPY (SELECT * FROM "Größe" ORDER BY "Ä" COLLATE "C") TO STDOUT');
    }));
    assert.equal(left.toString(), right.toString());
    assert.match(left.toString(), new RegExp(`^${name}þö\tüÿ $`, "m"));
  }
});

Deno.test("SQL_ASCII databases pass on any bytes, and a UTF8 one says that it cannot take them", async () => {
  const schema = `CREATE TABLE t (id int PRIMARY KEY, v text, c "char")`;
  await using first = await startPostgres({ major: 14, encoding: "SQL_ASCII" });
  await using second = await startPostgres({ major: 18, encoding: "SQL_ASCII" });
  await using third = await startPostgres({ major: 18 });
  await using cluster = await startCluster("bytes", [
    { server: first, name: "first", schema },
    { server: second, name: "second", schema },
    { server: third, name: "third", schema },
  ]);
  const [a, b, utf8] = cluster.members;
  await a.client.query("INSERT INTO t VALUES (1, 'valid: é', 'x')");
  await arrived(a, utf8);
  await a.client.query(
    `INSERT INTO t SELECT g + 1, convert_from(decode(lpad(to_hex(g), 2, '0') || '5cff', 'hex'), 'SQL_ASCII'), (g - 128)::"char"
       FROM generate_series(1, 255) g`,
  );
  await arrived(a, b);
  const hex =
    `COPY (SELECT id, encode(convert_to(v, 'SQL_ASCII'), 'hex'), c::int FROM t ORDER BY id) TO STDOUT`;
  const [left, right] = await Promise.all([a, b].map(({ client }) => copyOut(client, hex)));
  assert.match(left.toString(), /^256\tff5cff\t127$/m);
  assert.equal(right.toString(), left.toString());
  const { last_error: error } = await eventually("the UTF8 node to refuse", async () => {
    const { json } = await a.node.api("GET", `/v1/peers/${utf8.node.name}`);
    return json.state === "blocked" && json;
  });
  assert.equal(error.kind, "apply_failed");
  assert.match(error.message, /insert into "public\.t"/);
});
