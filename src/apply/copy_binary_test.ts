import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import type { ColumnValue } from "../pgoutput/message.ts";
import { TupleScan } from "../pgoutput/tuple_scan.ts";
import { encodeMessage } from "../../tests/support/pgoutput_encode.ts";
import { CopyBinary } from "./copy_binary.ts";

type Row = (Uint8Array | null)[];

/** What COPY gets of rows of binary values, and the sizes of the pieces that it comes in. */
function copyOf(rows: Row[]): { sent: Buffer; pieces: number[] } {
  const copy = new CopyBinary();
  const pieces: Buffer[] = [];
  copy.begin((bytes, length) => void pieces.push(Buffer.from(bytes.subarray(0, length))));
  const scan = new TupleScan();
  for (const row of rows) {
    const newTuple = row.map((bytes): ColumnValue =>
      bytes === null ? { kind: "null" } : { kind: "binary", bytes }
    );
    const message = encodeMessage({ kind: "insert", relationId: 1, newTuple });
    assert.equal(scan.scan(message, 6, { start: 0, end: message.length }), message.length);
    copy.row(message, scan, row.map((_, i) => i));
  }
  copy.finish();
  return { sent: Buffer.concat(pieces), pieces: pieces.map(({ length }) => length) };
}

/** Reads rows as COPY does. */
function parseRows(sent: Buffer): (Buffer | null)[][] {
  assert.equal(sent.toString("latin1", 0, 19), "PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
  const rows: (Buffer | null)[][] = [];
  let at = 19;
  const field = () => {
    const length = sent.readInt32BE(at);
    at += 4;
    if (length === -1) return null;
    at += length;
    return sent.subarray(at - length, at);
  };
  for (;;) {
    const count = sent.readInt16BE(at);
    at += 2;
    if (count === -1) break;
    rows.push(Array.from({ length: count }, field));
  }
  assert.equal(at, sent.length);
  return rows;
}

Deno.test("any bytes come out of COPY's binary rows as they went in", () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 20 }),
    fc.tuple(fc.nat(255), fc.integer({ min: 90, max: 12_000 })).map(([byte, times]) =>
      new Uint8Array(times).fill(byte)
    ),
  );
  const row = fc.array(fc.option(bytes), { minLength: 1, maxLength: 5 });
  fc.assert(
    fc.property(fc.array(row, { maxLength: 12 }), (rows) => {
      const expected = rows.map((one) => one.map((value) => value && Buffer.from(value)));
      const { sent, pieces } = copyOf(rows);
      assert.deepEqual(parseRows(sent), expected);
      assert.ok(pieces.every((length) => length <= 0x1_0000));
    }),
    { numRuns: 200 },
  );
});

Deno.test("a row that is too long for a piece, or lacks a value, is refused", () => {
  const isRefused = { kind: "internal" };
  assert.throws(() => copyOf([[new Uint8Array(65_531)]]), isRefused);
  assert.doesNotThrow(() => copyOf([[new Uint8Array(65_530)]]));
  const message = encodeMessage({ kind: "insert", relationId: 1, newTuple: [{ kind: "unchanged" }] });
  const scan = new TupleScan();
  scan.scan(message, 6, { start: 0, end: message.length });
  const copy = new CopyBinary();
  copy.begin(() => {});
  assert.throws(() => copy.row(message, scan, [0]), isRefused);
});
