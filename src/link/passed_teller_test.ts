import assert from "node:assert/strict";
import { eventually, within } from "../../tests/support/poll.ts";
import { toLsn } from "../lsn.ts";
import { PassedTeller, TELL_INTERVAL_MS } from "./passed_teller.ts";

/** A running teller; `told` is what it told, and when. */
function runTeller() {
  const told: { walLsn: bigint; at: number }[] = [];
  const stop = new AbortController();
  const teller = new PassedTeller((walLsn) => {
    told.push({ walLsn, at: performance.now() });
    return Promise.resolve();
  });
  const running = teller.run(stop.signal);
  return {
    told,
    offer: (walLsn: bigint | undefined) => teller.offer(walLsn === undefined ? undefined : toLsn(walLsn)),
    hasTold: (walLsn: bigint) =>
      eventually(`${walLsn}`, () => told.at(-1)?.walLsn === walLsn, { intervalMs: 2 }),
    stop: async () => {
      stop.abort();
      await within("the teller to end", 5_000, running);
    },
  };
}

Deno.test("of positions that come close together the first is told at once, and the last a while later", async () => {
  const run = runTeller();
  run.offer(1n);
  await run.hasTold(1n);
  for (let walLsn = 2n; walLsn < 10n; walLsn++) run.offer(walLsn);
  await run.hasTold(9n);
  assert.deepEqual(run.told.map(({ walLsn }) => walLsn), [1n, 9n]);
  // Timers may be a millisecond early.
  assert(run.told[1].at - run.told[0].at >= TELL_INTERVAL_MS - 1);
  await run.stop();
});

Deno.test("a position that a transaction tells by itself is not told", async () => {
  const run = runTeller();
  run.offer(1n);
  await run.hasTold(1n);
  run.offer(2n);
  run.offer(undefined);
  run.offer(3n);
  await run.hasTold(3n);
  assert.deepEqual(run.told.map(({ walLsn }) => walLsn), [1n, 3n]);
  await run.stop();
});

Deno.test("it ends at once, whether it has something to tell or not", async () => {
  await runTeller().stop();
  const run = runTeller();
  run.offer(1n);
  await run.hasTold(1n);
  run.offer(2n);
  await run.stop();
  assert.equal(run.told.length, 1);
});
