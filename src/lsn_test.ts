import assert from "node:assert/strict";
import fc from "fast-check";
import { MmliteError } from "./errors.ts";
import { formatLsn, type Lsn, maxLsn, parseLsn, toLsn, ZERO_LSN } from "./lsn.ts";

const MAX_LSN = 0xffff_ffff_ffff_ffffn;
const lsn = fc.bigInt(0n, MAX_LSN).map(toLsn);

Deno.test("every position survives its text form", () => {
  fc.assert(fc.property(lsn, (position) => {
    assert.equal(parseLsn(formatLsn(position)), position);
    assert.equal(parseLsn(formatLsn(position).toLowerCase()), position);
  }));
});

Deno.test("formatLsn prints as PostgreSQL does", () => {
  const texts: [bigint, string][] = [
    [0n, "0/0"],
    [0x16_B374_D848n, "16/B374D848"],
    [0x1_0000_0001n, "1/1"],
    [MAX_LSN, "FFFFFFFF/FFFFFFFF"],
  ];
  for (const [value, text] of texts) assert.equal(formatLsn(toLsn(value)), text);
});

Deno.test("parseLsn refuses everything that is not one", () => {
  const texts = [
    "",
    "0",
    "/",
    "0/",
    "/0",
    "0/0/0",
    "123456789/0",
    "0/123456789",
    "g/0",
    " 0/0",
    "0/0\n",
    "-1/0",
  ];
  for (const text of texts) {
    assert.throws(
      () => parseLsn(text),
      (error) => error instanceof MmliteError && error.kind === "invalid_input",
      JSON.stringify(text),
    );
  }
});

Deno.test("toLsn takes unsigned 64-bit integers and no others", () => {
  assert.equal(toLsn(0n), ZERO_LSN);
  assert.equal(toLsn(MAX_LSN), MAX_LSN);
  assert.throws(() => toLsn(-1n), RangeError);
  assert.throws(() => toLsn(MAX_LSN + 1n), RangeError);
});

Deno.test("maxLsn is the later of two, whichever comes first", () => {
  fc.assert(fc.property(lsn, lsn, (a: Lsn, b: Lsn) => {
    const later = maxLsn(a, b);
    assert(later >= a && later >= b && (later === a || later === b));
    assert.equal(maxLsn(b, a), later);
  }));
});
