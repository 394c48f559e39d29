/** Changes whose values come in binary form are applied as those that come as text are. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { type ApplyPair, ORIGIN, pushAll, Seen, withPair } from "../../tests/support/apply_pair.ts";
import { encodeMessage } from "../../tests/support/pgoutput_encode.ts";
import { type PostgresServer, startPostgres } from "../../tests/support/postgres.ts";
import { MmliteError } from "../errors.ts";
import { noteBlocked } from "../pg/quarantine.ts";
import { decodeMessage } from "../pgoutput/decode.ts";
import { decodeBegin } from "../pgoutput/peek.ts";
import { textMessage } from "../pgoutput/text_form.ts";
import { TupleScan } from "../pgoutput/tuple_scan.ts";
import { KeyHash, tableHash } from "./key_hash.ts";

/** Types that may come in binary form, and a value of each for the number `g`. */
const TYPES: Readonly<Record<string, string>> = {
  "boolean": "g % 2 = 0",
  "bytea": "decode(md5(g::text), 'hex')",
  "name": "('n' || g)::name",
  "bigint": "(g - 20) * 46116860184273879",
  "smallint": "(g - 20) * 800",
  "int": "(g - 20) * 50000007",
  "text": "repeat(E'ä\\t\\\\\\n€', g % 4)",
  "oid": "(g::bigint * 70000007)::oid",
  "json": `('{"b":  ' || g || '}')::json`,
  "jsonb": `('{"b":  ' || g || '}')::jsonb`,
  "char(5)": "'c' || g",
  "varchar(20)": "'v' || g",
  "date": "date '2000-01-01' + (g - 20) * 36525",
  "time": "time '00:00' + g * interval '31 min 1.5 s'",
  "timestamp": "timestamp '2000-01-01' + (g - 20) * interval '99 years 1.000001 s'",
  "timestamptz": "timestamptz '2000-01-01Z' + (g - 20) * interval '99 years 1.000001 s'",
  "numeric": "(g - 20)::numeric * power(10::numeric, g - 20)",
  "numeric(12,2)": "(g - 20) / 7.0",
  "uuid": "md5(g::text)::uuid",
  "real": "((g - 20) / 3.0)::real",
  "double precision": "(g - 20) * power(10::float8, g - 20) / 3",
};
const NAMES = Object.keys(TYPES).map((_, i) => `c${i}`);
const COLUMNS = Object.keys(TYPES).map((type, i) => `c${i} ${type}`).join(", ");
const VALUES = Object.values(TYPES).join(", ");
/** Types that no unique index takes. */
const isKeyType = (type: string) => !type.startsWith("json");

async function requireEqual(pair: ApplyPair, sql: string, rows?: number): Promise<void> {
  const [source, target] = await pair.both(sql);
  assert.deepEqual(target, source);
  if (rows !== undefined) assert.equal(source.length, rows);
}

/** Statements that the server has logged since it was asked before. */
function statementsOf(server: PostgresServer): () => Promise<string> {
  let read = 0;
  return async () => {
    const log = await server.log();
    const since = log.slice(read);
    read = log.length;
    return since;
  };
}

for (const major of [14, 18] as const) {
  Deno.test(`values in binary form, on PostgreSQL ${major}`, async (t) => {
    await using server = await startPostgres({ major, settings: { log_statement: "all" } });
    const logged = statementsOf(server);
    const step = (
      name: string,
      options: { name: string; schema: string; targetSchema?: string },
      body: (pair: ApplyPair) => Promise<void>,
    ) => t.step(name, () => withPair(server, { ...options, binary: true }, body));

    const every = `CREATE TABLE t (id int PRIMARY KEY, ${COLUMNS})`;
    await step("sets of all types", { name: "all", schema: every }, async (pair) => {
      const inserts = await pair.record(`INSERT INTO t SELECT g, ${VALUES} FROM generate_series(1, 60) g`);
      const values = inserts.map((bytes) => decodeMessage(bytes)).flatMap((message) =>
        message.kind === "insert" ? message.newTuple : []
      );
      assert.deepEqual(new Set(values.map(({ kind }) => kind)), new Set(["binary"]));
      await logged();
      await pair.apply(inserts);
      assert.ok(/COPY "public"."t" .* FROM STDIN \(FORMAT binary\)/.test(await logged()));
      await requireEqual(pair, "SELECT * FROM t ORDER BY id", 60);
      const set = NAMES.map((name) => `${name} = o.${name}`).join(", ");
      await pair.replicate(`UPDATE t SET ${set} FROM t AS o WHERE o.id = t.id + 20`);
      assert.ok(/WITH u AS \(UPDATE .* FROM \(SELECT pg_catalog.unnest/.test(await logged()));
      await requireEqual(pair, "SELECT * FROM t ORDER BY id", 60);
      await pair.replicate(`UPDATE t SET ${NAMES.map((name) => `${name} = NULL`).join(", ")} WHERE id > 30`);
      const seen = await pair.replicate("DELETE FROM t WHERE id BETWEEN 10 AND 40");
      assert.equal(seen.commits, 1);
      await requireEqual(pair, "SELECT * FROM t ORDER BY id", 29);
    });

    await step("rows one by one", { name: "one", schema: every }, async (pair) => {
      await pair.replicate(`INSERT INTO t SELECT g, ${VALUES} FROM generate_series(1, 3) g`);
      const set = NAMES.map((name) => `${name} = o.${name}`).join(", ");
      await pair.replicate(`UPDATE t SET ${set} FROM t AS o WHERE o.id = 3 AND t.id = 1`);
      await pair.replicate("UPDATE t SET id = 11 WHERE id = 1", "DELETE FROM t WHERE id = 2");
      await requireEqual(pair, "SELECT * FROM t ORDER BY id", 2);
    });

    const keyed = Object.keys(TYPES).filter(isKeyType);
    const tables = keyed.map((type, i) => `CREATE TABLE k${i} (k ${type} PRIMARY KEY, v int)`).join(";");
    await step(
      "keys of all types, and the hashes of them",
      { name: "keys", schema: tables },
      async (pair) => {
        // Of some there are fewer values than rows.
        await pair.replicate(...keyed.flatMap((type, i) => [
          `INSERT INTO k${i} SELECT DISTINCT ON (k) k, g FROM (SELECT ${
            TYPES[type]
          } AS k, g FROM generate_series(1, 40) g) s`,
        ]));
        const seen = await pair.replicate(
          ...keyed.flatMap((_, i) => [`UPDATE k${i} SET v = v + 1`, `DELETE FROM k${i} WHERE v % 2 = 1`]),
        );
        assert.deepEqual(seen.conflicts, []);
        for (const i of keyed.keys()) await requireEqual(pair, `SELECT * FROM k${i} ORDER BY 1`);
      },
    );

    const mixed = {
      schema:
        `CREATE TABLE t (id int PRIMARY KEY, number int, body varchar(40), price numeric(12,2), at timestamptz)`,
      targetSchema: `ALTER TABLE t ALTER id TYPE bigint, ALTER number TYPE numeric, ALTER body TYPE text;
        ALTER TABLE t ALTER at TYPE text`,
    };
    await step("types that differ on both sides", { name: "differ", ...mixed }, async (pair) => {
      await pair.replicate(
        "INSERT INTO t SELECT g, -g, 'b' || g, g / 7.0, timestamptz '2020-01-01 12:34:56.5Z' FROM generate_series(1, 30) g",
      );
      await pair.replicate(
        "UPDATE t SET number = NULL, price = price * 2 WHERE id < 20",
        "DELETE FROM t WHERE id < 6",
      );
      const sql = "SELECT id, number, body, price, at::text AS at FROM t ORDER BY id";
      await pair.target.query("SET timezone = 'UTC'");
      await requireEqual(pair, sql, 25);
    });

    const sets = { ...mixed, targetSchema: "ALTER TABLE t ALTER number TYPE bigint" };
    await step(
      "a type that differs leaves the rest to sets of text",
      { name: "text", ...sets },
      async (pair) => {
        await logged();
        await pair.replicate(
          "INSERT INTO t SELECT g, -g, 'b' || g, g / 7.0, now() FROM generate_series(1, 30) g",
        );
        assert.ok(/COPY "public"."t" .* FROM STDIN\n/.test(await logged()));
        await requireEqual(pair, "SELECT * FROM t ORDER BY id", 30);
      },
    );

    const altered = "CREATE TABLE t (id int PRIMARY KEY, n bigint); CREATE TABLE keyless (n bigint)";
    await step(
      "a type that changes while changes come",
      { name: "altered", schema: altered },
      async (pair) => {
        const first = await pair.record(
          "INSERT INTO t SELECT g, g FROM generate_series(1, 20) g",
          "INSERT INTO keyless SELECT g FROM generate_series(1, 20) g",
        );
        const second = await pair.record(
          "INSERT INTO t SELECT g, g FROM generate_series(21, 40) g",
          "INSERT INTO keyless SELECT g FROM generate_series(21, 40) g",
          "UPDATE t SET n = n + 1 WHERE id > 20",
        );
        // They are announced once for the two, as to a reader that stays.
        const isRelation = (bytes: Uint8Array) => decodeMessage(bytes).kind === "relation";
        const applier = await pair.openApplier(new Seen());
        await pushAll(applier, first);
        for (const table of ["t", "keyless"]) {
          await pair.target.query(`ALTER TABLE ${table} ALTER n TYPE float8`);
        }
        await pushAll(applier, second.filter((bytes) => !isRelation(bytes)));
        // Row by row for a while, then by sets of text.
        const later = await pair.record(
          ...Array.from({ length: 70 }, (_, i) => `INSERT INTO t VALUES (${101 + i}, ${i})`),
          "INSERT INTO t SELECT g, g FROM generate_series(201, 220) g",
        );
        await logged();
        await pushAll(applier, later.filter((bytes) => !isRelation(bytes)));
        await applier.close();
        assert.ok(/COPY "public"."t" .* FROM STDIN\n/.test(await logged()));
        await requireEqual(pair, "SELECT id, n::float8 AS n FROM t ORDER BY id", 130);
        await requireEqual(pair, "SELECT n::float8 AS n FROM keyless ORDER BY n", 40);
      },
    );

    const long = "CREATE TABLE t (id int PRIMARY KEY, n int, a text, b bytea)";
    await step("values that are long, or not sent", { name: "long", schema: long }, async (pair) => {
      await pair.source.query("ALTER TABLE t ALTER a SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL");
      await pair.replicate(
        "INSERT INTO t SELECT g, g, repeat('ä', 700 * g), decode(repeat('0a5c', 300 * g), 'hex') FROM generate_series(1, 20) g",
      );
      await pair.replicate("UPDATE t SET n = -n", "UPDATE t SET id = id + 100 WHERE id > 15");
      await requireEqual(pair, "SELECT * FROM t ORDER BY id", 20);
    });

    const full = `CREATE TABLE t (id int PRIMARY KEY, n numeric); ALTER TABLE t REPLICA IDENTITY FULL;
      CREATE TABLE keyless (n int, v text); CREATE TABLE whole (n int, at timestamptz);
      ALTER TABLE whole REPLICA IDENTITY FULL`;
    await step("whole old rows, and tables without a key", { name: "full", schema: full }, async (pair) => {
      await pair.replicate(
        "INSERT INTO t SELECT g, g / 3.0 FROM generate_series(1, 20) g",
        "INSERT INTO keyless SELECT nullif(g % 3, 0), CASE g % 3 WHEN 1 THEN 'v' END FROM generate_series(1, 40) g",
        "INSERT INTO whole SELECT g, now() FROM generate_series(1, 20) g",
      );
      await pair.replicate(
        "UPDATE t SET n = n + 1",
        "UPDATE t SET id = id + 100 WHERE id % 2 = 0",
        "DELETE FROM t WHERE id < 6",
        "UPDATE whole SET at = 'infinity' WHERE n < 10",
        "DELETE FROM whole WHERE n > 15",
      );
      await requireEqual(pair, "SELECT * FROM t ORDER BY id", 17);
      await requireEqual(pair, "SELECT * FROM keyless ORDER BY n, v", 40);
      await requireEqual(pair, "SELECT * FROM whole ORDER BY n", 15);
    });

    await step("a conflict is settled by text", { name: "conflict", schema: every }, async (pair) => {
      await pair.replicate(`INSERT INTO t SELECT g, ${VALUES} FROM generate_series(1, 30) g`);
      await pair.target.query("UPDATE t SET c5 = 0 WHERE id IN (3, 4)");
      await pair.target.query("DELETE FROM t WHERE id = 5");
      const set = NAMES.map((name) => `${name} = o.${name}`).join(", ");
      const seen = await pair.replicate(`UPDATE t SET ${set} FROM t AS o WHERE o.id = t.id + 15`);
      assert.ok(seen.conflicts.length >= 2, String(seen.conflicts));
      await requireEqual(pair, "SELECT * FROM t ORDER BY id", 30);
    });

    await step("what is kept in quarantine is text", { name: "kept", schema: every }, async (pair) => {
      const messages = await pair.record(`INSERT INTO t SELECT g, ${VALUES} FROM generate_series(1, 9) g`);
      const { commitLsn } = decodeBegin(messages[0]);
      const query = async (text: string, params?: readonly unknown[]) =>
        (await pair.target.query(text, params && [...params])).rows;
      const error = new MmliteError("apply_failed", "Cannot apply");
      await noteBlocked(query, { origin: ORIGIN, transaction: { commitLsn }, error, skip: true });
      const applier = await pair.openApplier(new Seen(), { skipLsn: commitLsn });
      await pushAll(applier, messages);
      await applier.close();
      const kept = await pair.rows(
        "SELECT message FROM mmlite.quarantine_change WHERE kind = 'insert' ORDER BY number",
      );
      const types = messages.map((bytes) =>
        decodeMessage(bytes)
      ).flatMap((m) => m.kind === "relation" ? [m.columns.map(({ typeOid }) => typeOid)] : [])[0];
      const texts = messages.filter((bytes) =>
        decodeMessage(bytes).kind === "insert"
      )
        .map((bytes) => `("\\\\x${Buffer.from(textMessage(bytes, types)).toString("hex")}")`);
      assert.deepEqual(kept, texts);
      const [whole] = await pair.rows("SELECT count(*) FROM mmlite.quarantine_row");
      assert.equal(whole, "(9)");
    });
  });
}

Deno.test("a key in binary form has the hash of its text", () => {
  const hash = tableHash("public.t");
  const scan = new TupleScan();
  const hashOf = (type: number, message: Uint8Array) => {
    assert.equal(scan.scan(message, 6, { start: 0, end: message.length }), message.length);
    const key = new KeyHash();
    key.ofRow({ hash, map: { sentTypes: [type] } }, { bytes: message, scan, key: [0] });
    return [key.high, key.low];
  };
  const requireSame = (type: number, bytes: Uint8Array) => {
    const message = encodeMessage({ kind: "insert", relationId: 1, newTuple: [{ kind: "binary", bytes }] });
    const text = textMessage(message, [type]);
    assert.notDeepEqual(text, message);
    assert.deepEqual(hashOf(type, message), hashOf(type, text));
  };
  const of = (size: number, write: (buffer: Buffer) => void) => {
    const buffer = Buffer.alloc(size);
    write(buffer);
    return buffer;
  };
  for (const value of [0, 7, -7, 10, 99, 100, 32_767, -32_768]) {
    requireSame(21, of(2, (buffer) => buffer.writeInt16BE(value)));
    requireSame(23, of(4, (buffer) => buffer.writeInt32BE(value)));
  }
  fc.assert(
    fc.property(
      fc.oneof(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), fc.maxSafeInteger().map(BigInt)),
      (value) => {
        requireSame(20, of(8, (buffer) => buffer.writeBigInt64BE(value)));
        requireSame(1184, of(8, (buffer) => buffer.writeBigInt64BE(value)));
        requireSame(26, of(4, (buffer) => buffer.writeUInt32BE(Number(BigInt.asUintN(32, value)))));
      },
    ),
  );
});
