import assert from "node:assert/strict";
import fc from "fast-check";
import { ClockOffset } from "./clock_offset.ts";

Deno.test("measurements narrow what is known of an offset, and time widens it", () => {
  const offset = new ClockOffset();
  assert.equal(offset.at(0), undefined);
  offset.add({ offsetMs: 100, uncertaintyMs: 20 }, 0);
  offset.add({ offsetMs: 130, uncertaintyMs: 20 }, 0);
  assert.deepEqual(offset.at(0), { offsetMs: 115, uncertaintyMs: 5 });
  assert.deepEqual(offset.at(10_000), { offsetMs: 115, uncertaintyMs: 6 });
});

Deno.test("a slow measurement does not spoil a fast one, and one that contradicts it replaces it", () => {
  const offset = new ClockOffset();
  offset.add({ offsetMs: 0, uncertaintyMs: 1 }, 0);
  offset.add({ offsetMs: 300, uncertaintyMs: 400 }, 0);
  assert.deepEqual(offset.at(0), { offsetMs: 0, uncertaintyMs: 1 });
  offset.add({ offsetMs: -2_000, uncertaintyMs: 3 }, 0);
  assert.deepEqual(offset.at(0), { offsetMs: -2_000, uncertaintyMs: 3 });
});

Deno.test("the true offset is within what is known, however slow and lopsided the ways are", () => {
  const way = fc.integer({ min: 0, max: 500 });
  const look = fc.record({ there: way, back: way, pause: fc.integer({ min: 0, max: 20_000 }) });
  fc.assert(fc.property(fc.array(look, { minLength: 1 }), fc.integer(), (looks, truth) => {
    const offset = new ClockOffset();
    let now = 0;
    for (const { there, back, pause } of looks) {
      now += pause + there + back;
      // The answer is made `there` after the question, and heard `back` later.
      const offsetMs = truth + there - (there + back) / 2;
      offset.add({ offsetMs, uncertaintyMs: (there + back) / 2 }, now);
      const known = offset.at(now)!;
      assert(Math.abs(known.offsetMs - truth) <= known.uncertaintyMs + 1e-6);
    }
  }));
});
