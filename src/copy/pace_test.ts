import assert from "node:assert/strict";
import { paceOf } from "./pace.ts";

Deno.test("several that take bytes are held to the rate together", async () => {
  const pace = paceOf(100_000, new AbortController().signal);
  const began = performance.now();
  await Promise.all([1, 2, 3].map(async () => {
    for (let i = 0; i < 5; i++) await pace(10_000);
  }));
  // The last is taken when all before it have had their time: 140,000 bytes.
  const took = performance.now() - began;
  assert(took > 1_390 && took < 5_000, `${took} ms`);
});

Deno.test("what waits for its turn ends with the signal, and nothing waits without a rate", async () => {
  const stop = new AbortController();
  const pace = paceOf(1, stop.signal);
  await pace(1_000_000);
  const waiting = pace(1);
  stop.abort();
  await waiting;
  await paceOf(undefined, stop.signal)(2 ** 40);
});
