import assert from "node:assert/strict";
import { PeerClock } from "./peer_clock.ts";

/** Not the getter, which the compiler takes for a constant. */
const problemOf = (clock: PeerClock) => clock.problem;

Deno.test("only clocks that are certainly too far apart are a problem", () => {
  const clock = new PeerClock("fra");
  assert.equal(clock.skew, null);
  assert(!problemOf(clock));
  clock.heard({ offsetMs: 2_000, uncertaintyMs: 1_500 });
  assert(!problemOf(clock));
  clock.heard({ offsetMs: 2_500, uncertaintyMs: 10 });
  const said = 'The PostgreSQL clock of peer "fra" is 2.5 s ahead of this node\'s';
  assert.equal(problemOf(clock)?.message, said);
  assert.equal(problemOf(clock)?.kind, "clock_skew");
  clock.heard({ offsetMs: -1_500, uncertaintyMs: 10 });
  assert.match(problemOf(clock)!.message, /1\.5 s behind/);
  clock.heard({ offsetMs: -900, uncertaintyMs: 10 });
  assert(!problemOf(clock));
  assert(Math.abs(clock.skew!.seconds + 0.9) < 0.001);
});
