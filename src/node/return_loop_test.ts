import assert from "node:assert/strict";
import { memoryPair } from "../../tests/support/channel_pair.ts";
import { eventually, within } from "../../tests/support/poll.ts";
import { type ErrorKind, MmliteError } from "../errors.ts";
import { ReturnLoop } from "./return_loop.ts";

type Outcome = ErrorKind | "ends" | "lives";

/** A started loop whose streams fare as told, in turn, and the last way for ever; `log` is what it did. */
function startLoop(...script: Outcome[]) {
  const log: string[] = [];
  let dials = 0;
  const outcome = () => script[Math.min(dials, script.length) - 1];
  const loop = new ReturnLoop("ams", {
    dial: async () => {
      dials++;
      const told = outcome();
      log.push("dial");
      if (told !== "ends" && told !== "lives") throw new MmliteError(told, "Cannot reach it");
      return await Promise.resolve(memoryPair().dialling);
    },
    receive: async (_channel, signal) => {
      log.push("receive");
      if (outcome() === "ends") return;
      await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
      log.push("stopped");
    },
    failed: ({ kind }) => void log.push(kind),
  });
  loop.start();
  return {
    loop,
    log,
    did: (entry: string, times = 1) =>
      eventually(`${entry} ${times} times`, () => log.filter((one) => one === entry).length >= times, {
        intervalMs: 2,
      }),
    [Symbol.asyncDispose]: () => within("the loop to stop", 5_000, loop.stop()),
  };
}

Deno.test("a stream that cannot be opened is shown, and opened again after a wait", async () => {
  await using run = startLoop("unreachable", "refused", "lives");
  await run.did("receive");
  assert.deepEqual(run.log, ["dial", "unreachable", "dial", "refused", "dial", "receive"]);
});

Deno.test("a stream that ends is opened again", async () => {
  await using run = startLoop("ends", "ends", "lives");
  await run.did("receive", 3);
});

Deno.test("waits between streams that fail at once grow", async () => {
  const random = Math.random;
  Math.random = () => 1;
  try {
    await using run = startLoop("ends", "unreachable", "lives");
    const startedAt = performance.now();
    await run.did("receive", 2);
    assert(performance.now() - startedAt >= 200 + 400 - 5);
  } finally {
    Math.random = random;
  }
});

Deno.test("a loop that is stopped ends its stream, and can be started again at once", async () => {
  await using run = startLoop("lives");
  await run.did("receive");
  const stopped = run.loop.stop();
  run.loop.start();
  await within("the loop to stop", 5_000, stopped);
  await run.did("receive", 2);
  assert.deepEqual(run.log, ["dial", "receive", "stopped", "dial", "receive"]);
  run.loop.start();
  await within("the loop to stop", 5_000, run.loop.stop());
  await within("the loop to stop again", 5_000, run.loop.stop());
  assert.equal(run.log.length, 6);
});
