import assert from "node:assert/strict";
import { eventually, within } from "../../tests/support/poll.ts";
import { type Lsn, toLsn } from "../lsn.ts";
import { AckKeeper } from "./ack_keeper.ts";

/** A running keeper over a disk whose writes each wait to be let through; `log` is what it did, in order. */
function runKeeper() {
  const log: string[] = [];
  const writes: PromiseWithResolvers<void>[] = [];
  const stop = new AbortController();
  const keeper = new AckKeeper({
    store: async (endLsn: Lsn) => {
      log.push(`store ${endLsn}`);
      const write = Promise.withResolvers<void>();
      writes.push(write);
      await write.promise;
      log.push(`stored ${endLsn}`);
    },
    confirm: (endLsn) => void log.push(`confirm ${endLsn}`),
  });
  return {
    log,
    offer: (lsn: bigint) => keeper.offer(toLsn(lsn)),
    running: keeper.run(stop.signal),
    stop: () => stop.abort(),
    write: (index: number) =>
      eventually(`write ${index + 1} to begin`, () => writes[index], { intervalMs: 2 }),
    logged: (entry: string) => eventually(entry, () => log.includes(entry), { intervalMs: 2 }),
  };
}

Deno.test("an ack is confirmed after it is stored, and not before", async () => {
  const run = runKeeper();
  run.offer(7n);
  const write = await run.write(0);
  assert.deepEqual(run.log, ["store 7"]);
  write.resolve();
  await run.logged("confirm 7");
  assert.deepEqual(run.log, ["store 7", "stored 7", "confirm 7"]);
  run.stop();
  await run.running;
});

Deno.test("of the acks that arrive during a write only the last is stored", async () => {
  const run = runKeeper();
  run.offer(1n);
  const first = await run.write(0);
  for (const lsn of [2n, 3n, 4n]) run.offer(lsn);
  first.resolve();
  (await run.write(1)).resolve();
  await run.logged("confirm 4");
  assert.deepEqual(run.log.filter((entry) => entry.startsWith("confirm")), ["confirm 1", "confirm 4"]);
  assert.deepEqual(run.log.filter((entry) => entry.startsWith("store ")), ["store 1", "store 4"]);
  run.stop();
  await run.running;
});

Deno.test("an ack that cannot be stored is not confirmed and ends the keeper", async () => {
  const run = runKeeper();
  const ended = assert.rejects(run.running, /disk is full/);
  run.offer(1n);
  (await run.write(0)).reject(new Error("disk is full"));
  await ended;
  assert.deepEqual(run.log, ["store 1"]);
});

Deno.test("an abort ends a keeper that waits for an ack, and one that rests after one", async () => {
  const idle = runKeeper();
  idle.stop();
  await within("an idle keeper to end", 5_000, idle.running);
  const resting = runKeeper();
  resting.offer(1n);
  (await resting.write(0)).resolve();
  await resting.logged("confirm 1");
  resting.stop();
  await within("a resting keeper to end", 5_000, resting.running);
});
