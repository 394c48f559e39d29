import assert from "node:assert/strict";
import { Path, type PathOptions } from "./path.ts";

const IDEAL: PathOptions = { delayMs: 0, megabits: Infinity, loss: 0, queueBytes: 1e9, seed: 1 };

function send(options: Partial<PathOptions>, packets: readonly [bytes: number, now: number][]) {
  const path = new Path({ ...IDEAL, ...options });
  return packets.map(([bytes, now]) => path.send(bytes, now));
}

Deno.test("every packet travels for the delay", () => {
  assert.deepEqual(send({ delayMs: 50 }, [[1500, 0], [40, 0.5], [1500, 1000]]), [50, 50.5, 1050]);
});

Deno.test("packets wait for those before them, at the link's rate", () => {
  // 12 Mbit/s are 1,500 bytes a millisecond.
  const arrivals = send({ megabits: 12, delayMs: 10 }, [[1500, 0], [1500, 0], [750, 0.5], [1500, 100]]);
  assert.deepEqual(arrivals, [11, 12, 12.5, 111]);
});

Deno.test("a packet that finds the queue full is lost, and room comes back with time", () => {
  const options = { megabits: 12, queueBytes: 3000 };
  assert.deepEqual(send(options, [[1500, 0], [1500, 0], [1500, 0], [1500, 1]]), [1, 2, null, 3]);
});

Deno.test("the share that is lost is the loss, and the same packets with the same seed", () => {
  const packets = Array.from({ length: 20_000 }, (_, now): [number, number] => [100, now]);
  const lost = (seed: number) => send({ loss: 0.02, seed }, packets).map((arrival) => arrival === null);
  const share = lost(7).filter(Boolean).length / packets.length;
  assert(share > 0.015 && share < 0.025, `${share}`);
  assert.deepEqual(lost(7), lost(7));
  assert.notDeepEqual(lost(7), lost(8));
});
