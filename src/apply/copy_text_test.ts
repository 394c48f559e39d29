import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import type { ColumnValue } from "../pgoutput/message.ts";
import { TupleScan } from "../pgoutput/tuple_scan.ts";
import { encodeMessage } from "../../tests/support/pgoutput_encode.ts";
import { CopyText } from "./copy_text.ts";

const BACKSLASH = 0x5c;

/** The lines of rows of text values, and the sizes of the pieces that they came in. */
function linesOf(rows: (Uint8Array | null)[][]): { text: Buffer; pieces: number[] } {
  const copy = new CopyText();
  const pieces: Buffer[] = [];
  copy.begin((bytes, length) => void pieces.push(Buffer.from(bytes.subarray(0, length))));
  const scan = new TupleScan();
  for (const row of rows) {
    const newTuple = row.map((bytes): ColumnValue =>
      bytes === null ? { kind: "null" } : { kind: "text", bytes }
    );
    const message = encodeMessage({ kind: "insert", relationId: 1, newTuple });
    assert.equal(scan.scan(message, 6, { start: 0, end: message.length }), message.length);
    copy.row(message, scan, row.map((_, i) => i));
  }
  copy.finish();
  return { text: Buffer.concat(pieces), pieces: pieces.map(({ length }) => length) };
}

/** Reads lines as COPY does (https://www.postgresql.org/docs/current/sql-copy.html). */
function parseLines(text: Buffer): (Buffer | null)[][] {
  const unescaped: Record<string, string> = { t: "\t", n: "\n", r: "\r", "\\": "\\" };
  return text.toString("latin1").split("\n").slice(0, -1).map((line) =>
    line.split("\t").map((value) =>
      value === "\\N" ? null : Buffer.from(value.replace(/\\(.)/g, (_, c) => unescaped[c]!), "latin1")
    )
  );
}

Deno.test("any bytes come out of COPY's lines as they went in", () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 20 }),
    fc.constantFrom("\\N", "\\.", "\t", "a\r\nb").map((text) => new Uint8Array(Buffer.from(text))),
    // Four of them have room in a piece, if every byte becomes two.
    fc.tuple(fc.uint8Array({ minLength: 1, maxLength: 8 }), fc.integer({ min: 1, max: 1_000 }))
      .map(([part, times]) => new Uint8Array(Buffer.alloc(part.length * times, part))),
  );
  const row = fc.array(fc.option(bytes), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(fc.array(row, { maxLength: 5 }), (rows) => {
      const expected = rows.map((one) => one.map((value) => value && Buffer.from(value)));
      assert.deepEqual(parseLines(linesOf(rows).text), expected);
    }),
    { numRuns: 200 },
  );
});

Deno.test("lines come whole, in pieces of at most 64 KiB", () => {
  const value = new Uint8Array(30_000).fill(BACKSLASH);
  const { text, pieces } = linesOf(Array.from({ length: 5 }, () => [value]));
  assert.equal(text.length, 5 * 60_001);
  assert.deepEqual(pieces, [60_001, 60_001, 60_001, 60_001, 60_001]);
  const { pieces: filled } = linesOf(Array.from({ length: 9 }, () => [value.subarray(0, 10_000)]));
  assert.deepEqual(filled, [60_003, 60_003, 60_003]);
});

Deno.test("a row that is too long for a piece, or lacks a value, is refused", () => {
  const isRefused = { kind: "internal" };
  assert.throws(() => linesOf([[new Uint8Array(40_000)]]), isRefused);
  const message = encodeMessage({ kind: "insert", relationId: 1, newTuple: [{ kind: "unchanged" }] });
  const scan = new TupleScan();
  scan.scan(message, 6, { start: 0, end: message.length });
  const copy = new CopyText();
  copy.begin(() => {});
  assert.throws(() => copy.row(message, scan, [0]), isRefused);
});
