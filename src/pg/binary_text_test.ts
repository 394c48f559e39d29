/** What `pgoutput/binary_text.ts` makes of binary values is what real servers print. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { startPostgres } from "../../tests/support/postgres.ts";
import { closeClient, openClient } from "./client.ts";
import { queryWith } from "./query.ts";
import { VALUE_SETTINGS } from "./replication.ts";
import { parsePostgresUrl } from "./target.ts";
import { BINARY_TYPES, binaryInteger, binaryText } from "../pgoutput/binary_text.ts";

/** Texts that some sort of value is written as. */
const integers = (bits: number) => {
  const [min, max] = [-(2n ** BigInt(bits - 1)), 2n ** BigInt(bits - 1) - 1n];
  return {
    edges: ["0", "1", "-1", "9", "10", "-10", "99", "100", String(min), String(min + 1n), String(max)],
    random: fc.oneof(fc.bigInt({ min, max }), fc.bigInt({ min: -1000n, max: 1000n })).map(String),
  };
};
const texts = {
  edges: ["", " ", "a", "ä€😀", "\t\n\\", "NULL", "x".repeat(70)],
  random: fc.string({ unit: "binary" }).map((text) => text.replaceAll(/[\0\ud800-\udfff]/g, "")),
};
const time = fc.tuple(
  ...[fc.nat(23), fc.nat(59), fc.nat(59)],
  fc.oneof(fc.constant(0), fc.nat(999_999), fc.nat(99).map((n) => n * 10_000)),
)
  .map(([hour, minute, second, micros]) =>
    `${[hour, minute, second].map((n) => String(n).padStart(2, "0")).join(":")}.${
      String(micros).padStart(6, "0")
    }`
  );
const DATE_EDGES = [
  ...[
    "infinity",
    "-infinity",
    "2000-01-01",
    "1999-12-31",
    "2000-02-29",
    "2000-03-01",
    "1900-02-28",
    "1900-03-01",
  ],
  ...[
    "0001-01-01",
    "0001-12-31 BC",
    "0001-02-28 BC",
    "0001-02-29 BC",
    "0001-03-01 BC",
    "0004-03-01 BC",
    "0044-03-15 BC",
  ],
  ...["4713-11-24 BC", "9999-12-31", "10000-01-01", "99999-06-30", "0999-09-09", "1582-10-15", "2400-02-29"],
];
const dates = (lastYear: number) =>
  fc.tuple(fc.oneof(fc.nat({ max: 3000 }), fc.integer({ min: -4712, max: lastYear })), fc.nat(11), fc.nat(27))
    .map(
      ([year, month, day]) => {
        const text = `${String(year > 0 ? year : 1 - year).padStart(4, "0")}-${month + 1}-${day + 1}`;
        return year > 0 ? text : `${text} BC`;
      },
    );
const timestamps = {
  edges: [
    ...DATE_EDGES,
    ...["2000-01-01 00:00:00.000001", "1999-12-31 23:59:59.999999", "2026-11-28 22:28:52.12"],
    ...["4714-11-24 00:00:00 BC", "294276-12-31 23:59:59.999999", "0044-03-15 12:34:56.5 BC"],
  ],
  random: fc.tuple(dates(290_000), time).map(([date, time]) =>
    date.endsWith(" BC") ? `${date.slice(0, -3)} ${time} BC` : `${date} ${time}`
  ),
};
const numbers = {
  edges: [
    ...[
      "0",
      "0.0",
      "0.00000",
      "-0",
      "1",
      "-1",
      "10000",
      "9999",
      "10001",
      "100000000",
      "0.1",
      "0.0001",
      "0.00001",
    ],
    ...[
      "0.00010000",
      "-0.00000000012",
      "123456789.987654321",
      "1e100",
      "1e-100",
      "-1e131071",
      "1e-16383",
      "NaN",
    ],
    ...[
      "1.10",
      "1.00000000000000000000",
      "9999.9999",
      "-10000.0001",
      "12345678901234567890123456789012345678901234.5",
    ],
  ],
  random: fc.tuple(
    fc.bigInt({ min: -(10n ** 30n), max: 10n ** 30n }),
    fc.integer({ min: -40, max: 40 }),
    fc.boolean(),
  ).map(([digits, exponent, isSmall]) => `${isSmall ? digits % 1000n : digits}e${exponent}`),
};
const bytes = {
  edges: ["\\x", "\\x00", "\\xff00ff", "\\x5c78"],
  random: fc.uint8Array().map((value) => `\\x${Buffer.from(value).toString("hex")}`),
};
const json = {
  edges: ['""', "{}", "[]", "null", "1.10", '{"b": 1, "a": [1, 2, {"c": "ä\\n"}]}', '{"a":1,"a":2}', "1e5"],
  random: fc.json({ noUnicodeString: false }).filter((text) => !/\\u0000|\\ud[89a-f]/.test(text)),
};

/** Floats by their bits: all powers of two and their neighbours, short decimals, and any bits. */
const floats = (bits: 32 | 64) => {
  const [bytes, write] = bits === 32 ? [4, "writeUInt32BE"] as const : [8, "writeBigUInt64BE"] as const;
  const of = (pattern: bigint) => {
    const buffer = Buffer.alloc(bytes);
    if (write === "writeUInt32BE") buffer.writeUInt32BE(Number(pattern));
    else buffer.writeBigUInt64BE(pattern);
    return String(bits === 32 ? buffer.readFloatBE() : buffer.readDoubleBE());
  };
  const [mantissa, exponents] = bits === 32 ? [23n, 255] : [52n, 2047];
  const powers = Array.from({ length: exponents }, (_, i) => BigInt(i) << mantissa);
  const [first, last] = bits === 32 ? [-37, 37] : [-307, 307];
  const tens = Array.from({ length: last - first + 1 }, (_, i) => first + i);
  return {
    edges: [
      ...[
        "0",
        "-0",
        "NaN",
        "Infinity",
        "-Infinity",
        "1",
        "-1",
        "0.1",
        "1e-4",
        "1e-5",
        "123456",
        "1234567",
        "999999",
      ],
      ...[
        "9007199254740993",
        "9007199254740991",
        "4503599627370497.5",
        "123456789012345",
        "1234567890123456",
        "1.5",
      ],
      ...powers.flatMap((power) => [of(power + 1n), of(power), ...(power === 0n ? [] : [of(power - 1n)])]),
      ...tens.flatMap((exponent) => [1, 2, 5, 9].map((digit) => `${digit}e${exponent}`)),
    ],
    random: fc.oneof(
      fc.bigInt({ min: 0n, max: (1n << BigInt(bits)) - 1n }).map(of),
      fc.tuple(fc.integer({ min: -1e6, max: 1e6 }), fc.integer({ min: -12, max: 12 })).map(([n, e]) =>
        `${n}e${e}`
      ),
    ),
  };
};

const TYPES: Record<string, { edges: string[]; random: fc.Arbitrary<string> }> = {
  bool: { edges: ["t", "f"], random: fc.constant("t") },
  bytea: bytes,
  name: texts,
  int8: integers(64),
  int2: integers(16),
  int4: integers(32),
  text: texts,
  oid: { edges: ["0", "1", "4294967295"], random: fc.nat().map(String) },
  json,
  bpchar: texts,
  varchar: texts,
  float4: floats(32),
  float8: floats(64),
  date: { edges: [...DATE_EDGES, "5874897-12-31"], random: dates(5_000_000) },
  time: { edges: ["00:00", "24:00", "23:59:59.999999", "00:00:00.000001", "12:00:00.5"], random: time },
  timestamp: timestamps,
  timestamptz: timestamps,
  numeric: numbers,
  uuid: {
    edges: ["00000000-0000-0000-0000-000000000000", "FFFFFFFF-ffff-ffff-ffff-ffffffffffff"],
    random: fc.uuid(),
  },
  jsonb: json,
};
/** Rows of a sample; one query for each type. */
const SAMPLE = 2_000;

for (const major of [14, 18] as const) {
  Deno.test(`the text of a binary value is what PostgreSQL ${major} prints`, async (t) => {
    await using server = await startPostgres({ major });
    const target = await parsePostgresUrl(server.url(), {});
    const client = await openClient(target, { applicationName: "test", settings: VALUE_SETTINGS });
    const query = queryWith(client);
    const covered = new Set<number>();
    for (const [name, { edges, random }] of Object.entries(TYPES)) {
      await t.step(name, async () => {
        const special = name === "numeric" ? ["Infinity", "-Infinity"] : [];
        const sample = [...edges, ...special, ...fc.sample(random, SAMPLE)];
        const [{ oid, send, print }] = await query(
          "SELECT oid::text, typsend::text AS send, typoutput::text AS print FROM pg_catalog.pg_type WHERE oid = $1::regtype",
          [`pg_catalog.${name}`],
        );
        const rows = await query(
          `SELECT pg_catalog.${print}(v) AS text, encode(pg_catalog.${send}(v), 'hex') AS sent FROM
             (SELECT x::pg_catalog.${name} AS v FROM unnest($1::text[]) AS x OFFSET 0) AS s`,
          [sample],
        );
        assert.equal(rows.length, sample.length);
        covered.add(Number(oid));
        rows.forEach(({ text, sent }, i) => {
          const binary = Buffer.concat([
            Buffer.from("before"),
            Buffer.from(sent!, "hex"),
            Buffer.from("after"),
          ]);
          const found = binaryText(Number(oid), binary, 6, binary.length - 5);
          assert.equal(Buffer.from(found).toString("utf8"), text, `of ${sample[i]}`);
          const number = binaryInteger(Number(oid), binary, 6, binary.length - 11);
          if (number !== undefined) assert.equal(String(number), text);
        });
      });
    }
    assert.deepEqual([...covered].sort(), [...BINARY_TYPES].sort());
    await closeClient(client);
  });
}
