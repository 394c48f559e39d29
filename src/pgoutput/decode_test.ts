import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { encodeMessage } from "../../tests/support/pgoutput_encode.ts";
import { MmliteError } from "../errors.ts";
import { toLsn } from "../lsn.ts";
import { decodeMessage } from "./decode.ts";
import type { ColumnValue, Message, RelationColumn } from "./message.ts";

/** Bytes from hexadecimal digits and 'quoted ASCII', white space ignored. */
function bytesOf(text: string): Uint8Array {
  const parts = text.match(/'[^']*'|[0-9a-f]{2}|\S/g) ?? [];
  return Buffer.concat(
    parts.map((part) => part[0] === "'" ? Buffer.from(part.slice(1, -1)) : Buffer.from(part, "hex")),
  );
}

function text(value: string): ColumnValue {
  return { kind: "text", bytes: Buffer.from(value) };
}

const NULL: ColumnValue = { kind: "null" };

/** One message of each kind and shape, written by hand from the documentation. */
const EXAMPLES: Record<string, [string, Message]> = {
  "begin": [
    "'B' 00000016b374d848 0002e2d7f21cc0f0 fffffffe",
    {
      kind: "begin",
      commitLsn: toLsn(0x16b374d848n),
      commitTimestamp: 0x2e2d7f21cc0f0n,
      xid: 0xfffffffe,
    },
  ],
  "begin before the year 2000, at the end of the WAL": [
    "'B' fffffffffffffff8 ffffffffffffffff 00000003",
    { kind: "begin", commitLsn: toLsn(0xfffffffffffffff8n), commitTimestamp: -1n, xid: 3 },
  ],
  "commit": [
    "'C' 00 0000000001000028 0000000001000058 0000000000000001",
    {
      kind: "commit",
      commitLsn: toLsn(0x1000028n),
      endLsn: toLsn(0x1000058n),
      commitTimestamp: 1n,
    },
  ],
  "origin": [
    "'O' 0000000100000002 'mmlite_fra' 00",
    { kind: "origin", originLsn: toLsn(0x100000002n), name: "mmlite_fra" },
  ],
  "relation": [
    "'R' 00004001 'public' 00 'user' 00 'd' 0002" +
    "01 'id' 00 00000014 ffffffff  00 'n" + "\u00e4" + "me' 00 00000413 00000024",
    {
      kind: "relation",
      relationId: 16385,
      schema: "public",
      name: "user",
      replicaIdentity: "default",
      columns: [
        { name: "id", key: true, typeOid: 20, typeModifier: -1 },
        { name: "n\u00e4me", key: false, typeOid: 1043, typeModifier: 36 },
      ],
    },
  ],
  "relation of pg_catalog without columns, with an OID above 2^31": [
    "'R' f0000001 00 'x' 00 'n' 0000",
    {
      kind: "relation",
      relationId: 0xf0000001,
      schema: "pg_catalog",
      name: "x",
      replicaIdentity: "nothing",
      columns: [],
    },
  ],
  "type": [
    "'Y' 00004010 'app' 00 'mood' 00",
    { kind: "type", typeOid: 16400, schema: "app", name: "mood" },
  ],
  "type of pg_catalog": [
    "'Y' 00004010 00 'text' 00",
    { kind: "type", typeOid: 16400, schema: "pg_catalog", name: "text" },
  ],
  "insert": [
    "'I' 00004001 'N' 0004  't' 00000001 '7'  'n'  't' 00000000  'b' 00000002 00ff",
    {
      kind: "insert",
      relationId: 16385,
      newTuple: [text("7"), NULL, text(""), { kind: "binary", bytes: Buffer.of(0, 255) }],
    },
  ],
  "insert of a row without columns": [
    "'I' 00004001 'N' 0000",
    { kind: "insert", relationId: 16385, newTuple: [] },
  ],
  "update": [
    "'U' 00004001 'N' 0002  't' 00000001 '7'  'u'",
    { kind: "update", relationId: 16385, newTuple: [text("7"), { kind: "unchanged" }] },
  ],
  "update of the key": [
    "'U' 00004001 'K' 0002 't' 00000001 '7' 'n'  'N' 0002 't' 00000001 '8' 't' 00000001 'x'",
    {
      kind: "update",
      relationId: 16385,
      oldKey: [text("7"), NULL],
      newTuple: [text("8"), text("x")],
    },
  ],
  "update with the old row": [
    "'U' 00004001 'O' 0001 't' 00000001 '7'  'N' 0001 't' 00000001 '8'",
    { kind: "update", relationId: 16385, oldTuple: [text("7")], newTuple: [text("8")] },
  ],
  "delete by key": [
    "'D' 00004001 'K' 0002 't' 00000001 '7' 'n'",
    { kind: "delete", relationId: 16385, oldKey: [text("7"), NULL] },
  ],
  "delete with the old row": [
    "'D' 00004001 'O' 0001 't' 00000001 '7'",
    { kind: "delete", relationId: 16385, oldTuple: [text("7")] },
  ],
  "truncate": [
    "'T' 00000002 03 00004001 f0000002",
    { kind: "truncate", relationIds: [16385, 0xf0000002], cascade: true, restartIdentity: true },
  ],
  "truncate without options": [
    "'T' 00000001 00 00004001",
    { kind: "truncate", relationIds: [16385], cascade: false, restartIdentity: false },
  ],
  "logical message": [
    "'M' 01 00000000010000a8 'p' 00 00000003 000102",
    {
      kind: "message",
      transactional: true,
      lsn: toLsn(0x10000a8n),
      prefix: "p",
      content: Buffer.of(0, 1, 2),
    },
  ],
  "stream abort": ["'A' 000002f1 000002f2", { kind: "stream_abort" }],
  "stream abort with position": [
    "'A' 000002f1 000002f2 0000000001000028 0000000000000001",
    { kind: "stream_abort" },
  ],
  "empty payload": ["", { kind: "unnamed_origin" }],
};

/** Asserts that `bytes` throw a `protocol` error whose message matches. */
function assertRefused(bytes: Uint8Array, message: RegExp) {
  assert.throws(() => decodeMessage(bytes), (error) => {
    assert.ok(error instanceof MmliteError, `not an MmliteError: ${error}`);
    assert.equal(error.kind, "protocol");
    assert.match(error.message, message);
    return true;
  });
}

/** Asserts that `bytes` decode, or throw a `protocol` error and nothing else. */
function assertTotal(bytes: Uint8Array) {
  try {
    decodeMessage(bytes);
  } catch (error) {
    assert.ok(error instanceof MmliteError && error.kind === "protocol", `unexpected: ${error}`);
  }
}

for (const [title, [hex, expected]] of Object.entries(EXAMPLES)) {
  const bytes = bytesOf(hex);

  Deno.test(`decodes: ${title}`, () => {
    assert.deepEqual(decodeMessage(bytes), expected);
  });

  Deno.test(`refuses every prefix and any longer form: ${title}`, () => {
    for (let length = 1; length < bytes.length; length++) {
      // A stream abort is whole with and without its position.
      if (expected.kind === "stream_abort" && length === 9) continue;
      assertRefused(bytes.subarray(0, length), /^Cannot decode pgoutput message ".+" at byte \d+: /);
    }
    // The empty payload plus a zero byte is an unknown message.
    assertRefused(Buffer.concat([bytes, Buffer.of(0)]), /follow|unknown message type|abort LSN/);
  });

  Deno.test(`survives every corrupted byte: ${title}`, () => {
    const corrupt = Uint8Array.from(bytes);
    for (let at = 0; at < bytes.length; at++) {
      for (let value = 0; value < 256; value++) {
        corrupt[at] = value;
        assertTotal(corrupt);
      }
      corrupt[at] = bytes[at];
    }
  });
}

Deno.test("names what is wrong and where, without values", () => {
  const cases: [string, RegExp][] = [
    ["'X' 00", /^Cannot decode pgoutput message "X" at byte 0: unknown message type$/],
    ["00", /^Cannot decode pgoutput message "0x00" at byte 0: unknown message type$/],
    ["'S' 0000000001", /message "S" at byte 0: unknown message type/],
    ["'C' 01 0000000001000028 0000000001000058 0000000000000001", /"C" at byte 1: flags must be 0/],
    ["'I' 00004001 'K' 0000", /"I" at byte 5: expected tuple marker "N", not "K"/],
    ["'U' 00004001 'K' 0000 'O' 0000", /"U" at byte 8: expected tuple marker "N", not "O"/],
    ["'D' 00004001 'N' 0000", /"D" at byte 5: expected tuple marker "K" or "O", not "N"/],
    ["'I' 00004001 'N' 0001 'x'", /"I" at byte 8: unknown value kind "x"/],
    ["'I' 00004001 'N' ffff 'n'", /"I" at byte 8: 65535 columns cannot fit into the 1 bytes left/],
    ["'I' 00004001 'N' 0001 't' ffffffff 'secret'", /at byte 13: value needs 4294967295 bytes, 6 are left$/],
    ["'T' ffffffff 00 00004001", /"T" at byte 6: 4294967295 relations cannot fit/],
    ["'T' 00000000 04", /"T" at byte 5: unknown flags 0x04/],
    ["'R' 00004001 00 'x' 00 'd' 0002 00 'a' 00 00000014 ffffffff", /2 columns cannot fit into the 11/],
    ["'R' 00004001 00 'x' 00 'q' 0000", /"R" at byte 8: unknown replica identity "q"/],
    ["'R' 00004001 00 'x' 00 'd' 0001 02 'a' 00 00000014 ffffffff", /"R" at byte 11: unknown flags 0x02/],
    ["'Y' 00004001 'a' 00 ff 00", /"Y" at byte 7: type name is not UTF-8/],
    ["'O' 0000000100000002 'abc'", /"O" at byte 9: origin name has no end/],
    ["'A' 000002f1 000002f2 00", /"A" at byte 9: abort LSN needs 8 bytes, 1 are left/],
  ];
  for (const [hex, message] of cases) assertRefused(bytesOf(hex), message);
});

Deno.test("values are views into the message", () => {
  const backing = Buffer.concat([Buffer.from("....."), bytesOf("'I' 00004001 'N' 0001 't' 00000001 '7'")]);
  for (const bytes of [backing.subarray(5), new Uint8Array(backing.buffer, backing.byteOffset + 5)]) {
    const view = bytes.subarray(0, backing.length - 5);
    const message = decodeMessage(view);
    assert.ok(message.kind === "insert" && message.newTuple[0].kind === "text");
    const value = message.newTuple[0].bytes;
    assert.equal(value.buffer, backing.buffer);
    assert.equal(value.byteOffset, view.byteOffset + 13);
    assert.equal(value.length, 1);
  }
});

Deno.test("names keep a byte order mark and characters beyond the basic plane", () => {
  const name = "\ufeff\u{1f600}";
  const type: Message = { kind: "type", typeOid: 1, schema: name, name };
  assert.deepEqual(decodeMessage(encodeMessage(type)), type);
});

const uint32 = fc.nat({ max: 0xffff_ffff });
const lsn = fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn }).map(toLsn);
const timestamp = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
const name = fc.string({ unit: "binary", maxLength: 20 }).filter((text) => !text.includes("\0"));
const schema = name.filter((text) => text !== "");
const content = fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes));
const value: fc.Arbitrary<ColumnValue> = fc.oneof(
  fc.constant<ColumnValue>({ kind: "null" }),
  fc.constant<ColumnValue>({ kind: "unchanged" }),
  content.map((bytes): ColumnValue => ({ kind: "text", bytes })),
  content.map((bytes): ColumnValue => ({ kind: "binary", bytes })),
);
const tuple = fc.array(value, { maxLength: 8 });
function record<T>(fields: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> {
  return fc.record(fields, { noNullPrototype: true }) as fc.Arbitrary<T>;
}
const column: fc.Arbitrary<RelationColumn> = record({
  name,
  key: fc.boolean(),
  typeOid: uint32,
  typeModifier: fc.integer(),
});
const message: fc.Arbitrary<Message> = fc.oneof(
  record({ kind: fc.constant("begin"), commitLsn: lsn, commitTimestamp: timestamp, xid: uint32 }),
  record({ kind: fc.constant("commit"), commitLsn: lsn, endLsn: lsn, commitTimestamp: timestamp }),
  record({ kind: fc.constant("origin"), originLsn: lsn, name }),
  record({
    kind: fc.constant("relation"),
    relationId: uint32,
    schema,
    name,
    replicaIdentity: fc.constantFrom("default", "nothing", "full", "index"),
    columns: fc.array(column, { maxLength: 8 }),
  }),
  record({ kind: fc.constant("type"), typeOid: uint32, schema, name }),
  record({ kind: fc.constant("insert"), relationId: uint32, newTuple: tuple }),
  record({ kind: fc.constant("update"), relationId: uint32, newTuple: tuple }),
  record({ kind: fc.constant("update"), relationId: uint32, oldKey: tuple, newTuple: tuple }),
  record({ kind: fc.constant("update"), relationId: uint32, oldTuple: tuple, newTuple: tuple }),
  record({ kind: fc.constant("delete"), relationId: uint32, oldKey: tuple }),
  record({ kind: fc.constant("delete"), relationId: uint32, oldTuple: tuple }),
  record({
    kind: fc.constant("truncate"),
    relationIds: fc.array(uint32, { maxLength: 8 }),
    cascade: fc.boolean(),
    restartIdentity: fc.boolean(),
  }),
  record({ kind: fc.constant("message"), transactional: fc.boolean(), lsn, prefix: name, content }),
  fc.constant({ kind: "unnamed_origin" }),
  fc.constant({ kind: "stream_abort" }),
);

Deno.test("gives back every message that was encoded", () => {
  fc.assert(
    fc.property(message, (message) => {
      assert.deepEqual(decodeMessage(encodeMessage(message)), message);
    }),
    { numRuns: 2000 },
  );
});

Deno.test("refuses every chopped and every lengthened message", () => {
  const whole = message.filter(({ kind }) => kind !== "unnamed_origin" && kind !== "stream_abort");
  fc.assert(fc.property(whole, fc.nat(), (message, cut) => {
    const bytes = encodeMessage(message);
    assertRefused(bytes.subarray(0, 1 + cut % (bytes.length - 1)), /at byte/);
    assertRefused(Buffer.concat([bytes, Buffer.of(cut)]), /follow/);
  }));
});

Deno.test("any bytes either decode or are refused", () => {
  const types = fc.constantFrom(..."BCORYIUDTMA").map((type) => Buffer.from(type));
  fc.assert(
    fc.property(types, fc.uint8Array({ maxLength: 64 }), (type, rest) => {
      assertTotal(Buffer.concat([type, rest]));
      assertTotal(rest);
    }),
    { numRuns: 2000 },
  );
});
