/** The hash of a key in SQL is the one of the texts that replication sends, for keys of all kinds of types. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { ApplyPair } from "../../tests/support/apply_pair.ts";
import { type PostgresMajor, startPostgres } from "../../tests/support/postgres.ts";
import { closeClient, openClient } from "../pg/client.ts";
import { ColumnTypes } from "../pg/column_types.ts";
import { queryWith } from "../pg/query.ts";
import { readLocalTable } from "../pg/relation.ts";
import { VALUE_SETTINGS } from "../pg/replication.ts";
import { sentText } from "../pg/sent_text.ts";
import { parsePostgresUrl } from "../pg/target.ts";
import { decodeMessage } from "../pgoutput/decode.ts";
import { KeyHash, tableHash } from "./key_hash.ts";
import type { MappedRelation } from "./relation_map.ts";
import { keyMatches } from "./sql_text.ts";

const ROWS = 60;
const BEFORE = `CREATE EXTENSION citext;
  CREATE TYPE mood AS ENUM ('good', 'so so', 'bad');
  CREATE FUNCTION shown(mood) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'mood'::text $$;
  CREATE CAST (mood AS text) WITH FUNCTION shown(mood);
  CREATE DOMAIN code AS char(5);
  CREATE DOMAIN codes AS code;
  CREATE TYPE pair AS (a int, b char(3));
  CREATE FUNCTION some_text(most int) RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT coalesce(string_agg(CASE (random() * 9)::int WHEN 0 THEN chr(192 + (random() * 400)::int) WHEN 1 THEN ' '
      ELSE chr(32 + (random() * 94)::int) END, ''), '') FROM generate_series(1, (random() * most)::int) $$;`;

/** Types, and a random value of each in SQL. */
const TYPES: Readonly<Record<string, string>> = {
  "boolean": "random() < 0.5",
  "smallint": "(random() * 60000 - 30000)::smallint",
  "int": "(random() * 4e9 - 2e9)::int",
  "bigint": "(random() * 1.8e19 - 9e18)::bigint",
  "oid": "((random() * 4e9)::bigint)::oid",
  "text": "some_text(12)",
  "varchar(12)": "some_text(12)",
  "char(9)": "some_text(9)",
  "character": "some_text(1)",
  "bpchar": "some_text(9)",
  '"char"': `chr(32 + (random() * 94)::int)::"char"`,
  "name": "some_text(12)::name",
  "citext": "some_text(12)",
  "code": "some_text(5)",
  "codes": "some_text(5)",
  "mood": "(enum_range(NULL::mood))[1 + (random() * 2)::int]",
  "uuid": "md5(random()::text)::uuid",
  "numeric": "(random() * 1e6)::numeric * power(10::numeric, (random() * 20 - 10)::int)",
  "numeric(9,3)": "(random() * 1e5)::numeric",
  "money": "((random() * 1e6)::numeric - 5e5)::money",
  "float4": "(random() * power(10, (random() * 40 - 20)::int))::float4",
  "float8": "random() * power(10, (random() * 200 - 100)::int)",
  "date": "date '2000-01-01' + (random() * 2000000 - 900000)::int",
  "time": "time '00:00' + random() * interval '24 h'",
  "timetz": "(time '00:00' + random() * interval '24 h')::timetz AT TIME ZONE interval '5:30'",
  "timestamp": "timestamp '2000-01-01' + (random() * 4000 - 2500) * interval '1 year'",
  "timestamptz": "timestamptz '2000-01-01Z' + (random() * 4000 - 2500) * interval '1 year'",
  "interval":
    "(random() * 100 - 50)::int * interval '1 month' + (random() * 100 - 50)::int * interval '1 day' + (random() - 0.5) * interval '9 h'",
  "bytea": "decode(substr(md5(random()::text), 1, 2 * (random() * 16)::int), 'hex')",
  "inet": "('10.0.' || (random() * 255)::int || '.7/' || 16 + 16 * (random() * 1)::int)::inet",
  "cidr": "('10.' || (random() * 255)::int || '.0.0/16')::cidr",
  "macaddr": "substr(md5(random()::text), 1, 12)::macaddr",
  "bit(9)": "(random() * 511)::int::bit(9)",
  "bit": "(random() * 1)::int::bit(1)",
  "varbit": "substr((random() * 511)::int::bit(9)::text, 1, (random() * 9)::int)::varbit",
  "int4range": "int4range((random() * 9)::int, 9 + (random() * 9)::int)",
  "text[]": "ARRAY[some_text(3), some_text(3)]",
  "char(3)[]": "ARRAY[some_text(3), some_text(3)]",
  "boolean[]": "ARRAY[random() < 0.5, true]",
  "pair": "ROW((random() * 9)::int, some_text(3))::pair",
  "jsonb": "jsonb_build_object('a', random(), 'b', some_text(5))",
};
/** Floats are printed with other digits from 12 on. */
const SAME_RELEASE_ONLY = ["float4", "float8"];

/** Signed, as PostgreSQL has it. */
function hashOf(value: Uint8Array): string {
  const hash = new KeyHash();
  hash.ofValues(tableHash("public.t"), [value]);
  return String((BigInt(hash.high) << 32n) | BigInt(hash.low >>> 0));
}

const RELEASES: readonly (readonly [PostgresMajor, PostgresMajor])[] = [[10, 10], [18, 18], [10, 18], [
  18,
  10,
]];
for (const [from, to] of RELEASES) {
  Deno.test(`keys of any type have one hash, sent from PostgreSQL ${from} to ${to}`, async () => {
    await using source = await startPostgres({ major: from });
    await using target = await startPostgres({ major: to });
    const types = Object.keys(TYPES).filter((type) => from === to || !SAME_RELEASE_ONLY.includes(type));
    await using pair = await ApplyPair.open({
      ...{ source, target, name: "any" },
      schema: `${BEFORE} CREATE TABLE t (id int PRIMARY KEY, ${
        types.map((type, i) => `c${i} ${type} NOT NULL`).join(", ")
      })`,
    });
    const values = types.map((type) => TYPES[type]).join(", ");
    const messages = await pair.record(
      "SELECT setseed(0.5)",
      `INSERT INTO t SELECT g, ${values} FROM generate_series(1, ${ROWS}) g`,
    );
    await pair.apply(messages);
    const sent = messages.map((bytes) => decodeMessage(bytes)).flatMap((message) =>
      message.kind === "insert" ? [message.newTuple] : []
    );
    assert.equal(sent.length, ROWS);

    const client = await openClient(await parsePostgresUrl(target.url("any_dst"), {}), {
      applicationName: "test",
      settings: VALUE_SETTINGS,
    });
    const query = queryWith(client);
    const serverVersion = to * 10_000;
    const local = (await readLocalTable(query, {
      ...{ schema: "public", name: "t", serverVersion, types: new ColumnTypes() },
    }))!;
    for (const [i, type] of types.entries()) {
      const column = local.columns[i + 1];
      const texts = sent.map((tuple) => {
        const value = tuple[i + 1];
        assert.ok(value.kind === "text");
        return Buffer.from(value.bytes).toString();
      });
      const wanted = texts.map((text) => hashOf(Buffer.from(text)));
      const hash = (value: string) => `mmlite.key_hash('public.t', ARRAY[${sentText(value)}])::text AS hash`;
      const ofRows = await query(`SELECT ${hash(`t.c${i}`)} FROM public.t ORDER BY id`);
      assert.deepEqual(ofRows.map((row) => row.hash), wanted, `${type}: of rows`);
      const relation = { key: { columns: [column] } } as unknown as MappedRelation;
      const found = await query(
        `SELECT t.id::text FROM unnest($1::text[]) WITH ORDINALITY AS v(value, n), public.t
          WHERE t.id = v.n AND ${keyMatches(relation, () => "v.value")} ORDER BY t.id`,
        [texts],
      );
      assert.equal(found.length, ROWS, `${type}: rows by their texts`);
      await query(`PREPARE typed (${local.columns[i + 1].typeName}) AS SELECT ${hash("$1")}`);
      for (const [n, text] of texts.entries()) {
        const [row] = await query(`EXECUTE typed('${text.replaceAll("'", "''")}')`);
        assert.equal(row.hash, wanted[n], `${type}: of a parameter`);
      }
      await query("DEALLOCATE typed");
    }
    await closeClient(client);
  });
}
