import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createHash, randomUUID } from "node:crypto";
import fc from "fast-check";
import { toLsn } from "../lsn.ts";
import {
  decodeToken,
  encodeToken,
  lifeOf,
  MAX_TOKEN_LENGTH,
  type NodePosition,
  type PositionToken,
} from "./position_token.ts";

const AMS: NodePosition = { node: "ams", life: "0123456789ab", lsn: toLsn(0x16B374D848n) };
const FRA: NodePosition = { node: "fra", life: "cdef01234567", lsn: toLsn(1n) };
const NYC: NodePosition = { node: "nyc", life: "89abcdef0123", lsn: toLsn(0n) };
const TOKEN: PositionToken = { cluster: "mmlite", positions: [AMS, FRA, NYC] };

/** Plain objects, as a decoder makes them. */
const record = <T>(model: { [Key in keyof T]: fc.Arbitrary<T[Key]> }) =>
  fc.record(model, { noNullPrototype: true });
const name = fc.stringMatching(/^[a-z0-9][a-z0-9_-]{0,39}$/);
const position: fc.Arbitrary<NodePosition> = record({
  node: name,
  life: fc.uint8Array({ minLength: 6, maxLength: 6 }).map((bytes) => Buffer.from(bytes).toString("hex")),
  lsn: fc.bigInt(0n, 0xffff_ffff_ffff_ffffn).map(toLsn),
});
const token: fc.Arbitrary<PositionToken> = record({
  cluster: name,
  positions: fc.uniqueArray(position, { minLength: 1, maxLength: 12, selector: ({ node }) => node })
    .map(([first, ...others]) => [first, ...others] as const),
});

/** A token of any bytes, with the right checksum. */
function tokenOf(...parts: (Uint8Array | string)[]): string {
  const payload = Buffer.concat(parts.map((part) => typeof part === "string" ? Buffer.from(part) : part));
  const sum = createHash("sha256").update(payload).digest().subarray(0, 4);
  return `mmpos1_${Buffer.concat([payload, sum]).toString("base64url")}`;
}

Deno.test("a token says what was put into it, in one word for a URL", () => {
  fc.assert(fc.property(token, (one) => {
    const text = encodeToken(one);
    assert.match(text, /^mmpos1_[A-Za-z0-9_-]+$/);
    assert.equal(encodeURIComponent(text), text);
    assert.deepEqual(decodeToken(text), { cluster: one.cluster, positions: [...one.positions] });
  }));
});

Deno.test("the token of three nodes is short, and stays what it is", () => {
  const text = encodeToken(TOKEN);
  assert.equal(
    text,
    tokenOf(
      "\x06mmlite\x03",
      ...["\x03ams", Buffer.from("0123456789ab00000016b374d848", "hex")],
      ...["\x03fra", Buffer.from("cdef012345670000000000000001", "hex")],
      ...["\x03nyc", Buffer.from("89abcdef01230000000000000000", "hex")],
    ),
  );
  assert(text.length < 100, `${text.length}`);
});

Deno.test("of an incarnation what is random stands in a token", () => {
  assert.equal(lifeOf("01234567-89ab-4def-8123-456789abcdef"), "0123456789ab");
  assert.notEqual(lifeOf(randomUUID()), lifeOf(randomUUID()));
});

Deno.test("a token that lost or changed a character is told from a whole one", () => {
  const text = encodeToken(TOKEN);
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  fc.assert(
    fc.property(fc.integer({ min: 7, max: text.length - 1 }), fc.constantFrom(...alphabet), (at, letter) => {
      fc.pre(text[at] !== letter);
      const mangled = text.slice(0, at) + letter + text.slice(at + 1);
      assert.throws(() => decodeToken(mangled), { kind: "invalid_input", message: /missing or changed$/ });
    }),
    { numRuns: 1_000 },
  );
  for (
    const mangled of [text.slice(0, -1), text.slice(0, 40), `${text}A`, `${text} `, `${text}=`, "mmpos1_"]
  ) {
    assert.throws(() => decodeToken(mangled), { kind: "invalid_input", message: /missing or changed$/ });
  }
});

Deno.test("what is no token, or another version's, is said to be that", () => {
  const cases: [string, RegExp][] = [
    ["", /does not begin with mmpos1_$/],
    ["mmlite1_eyJ2Ijox", /does not begin with mmpos1_$/],
    ["0/16B374D8", /does not begin with mmpos1_$/],
    [encodeToken(TOKEN).replace("mmpos1_", "mmpos2_"), /another version of mmlite has made it$/],
    [`mmpos1_${"A".repeat(MAX_TOKEN_LENGTH)}`, /longer than 8192 characters$/],
  ];
  for (const [text, message] of cases) {
    assert.throws(() => decodeToken(text), { kind: "invalid_input", message });
  }
});

Deno.test("a whole token that says anything else than it must is refused", () => {
  const position = Buffer.from("0123456789ab00000016b374d848", "hex");
  const cases: Parameters<typeof tokenOf>[] = [
    [],
    ["\x06mmlite"],
    ["\x06mmlite\x00"],
    ["\x06mmlite\x02\x03ams", position],
    ["\x06mmlite\x01\x03ams", position, "x"],
    ["\x06mmlite\x01\x03ams", position.subarray(1)],
    ["\x06mmlite\x02\x03ams", position, "\x03ams", position],
    ["\x00\x01\x03ams", position],
    ["\x06mmlite\x01\x00", position],
    ["\x06mmlite\x01\x03AMS", position],
    ["\x06mml\nte\x01\x03ams", position],
    ["\xff"],
  ];
  assert.equal(decodeToken(tokenOf("\x06mmlite\x01\x03ams", position)).positions[0].lsn, AMS.lsn);
  for (const parts of cases) {
    assert.throws(() => decodeToken(tokenOf(...parts)), { message: /does not say what it must$/ });
  }
  fc.assert(fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
    assert.throws(() => decodeToken(tokenOf(bytes)), { kind: "invalid_input" });
  }));
});
