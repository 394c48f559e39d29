import assert from "node:assert/strict";
import { ClockExchange, type SenderClock } from "./clock_exchange.ts";

/** A clock that a test sets, microseconds. */
class TestClock implements SenderClock {
  uncertaintyMs = 0;
  readonly #ahead: bigint;
  static now = 1_000_000_000n;

  constructor(ahead: bigint) {
    this.#ahead = ahead;
  }

  read() {
    return { time: TestClock.now + this.#ahead, uncertaintyMs: this.uncertaintyMs };
  }
}

Deno.test("the offset of two clocks is known within half the time under way, less what was waited", () => {
  const [here, there] = [new TestClock(0n), new TestClock(5_000_000n)];
  const [a, b] = [new ClockExchange(here), new ClockExchange(there)];
  const first = a.beat();
  TestClock.now += 10_000n;
  assert.equal(b.hear(first), undefined);
  TestClock.now += 8_000_000n;
  const second = b.beat();
  TestClock.now += 30_000n;
  // Under way for 10 and 30 ms: the offset looks 10 ms smaller than it is, and may be off by 20.
  assert.deepEqual(a.hear(second), { offsetMs: 4_990, uncertaintyMs: 20 });
  TestClock.now += 1_000n;
  const third = a.beat();
  TestClock.now += 10_000n;
  assert.deepEqual(b.hear(third), { offsetMs: -4_990, uncertaintyMs: 20 });
});

Deno.test("how well both ends know their clocks counts too", () => {
  const [here, there] = [new TestClock(0n), new TestClock(0n)];
  [here.uncertaintyMs, there.uncertaintyMs] = [0.5, 0.25];
  const [a, b] = [new ClockExchange(here), new ClockExchange(there)];
  b.hear(a.beat());
  assert.deepEqual(a.hear(b.beat()), { offsetMs: 0, uncertaintyMs: 0.75 });
});

Deno.test("a heartbeat from before the handshake, and one whose clock was set meanwhile, tell nothing", () => {
  const [here, there] = [new TestClock(0n), new TestClock(0n)];
  const [a, b] = [new ClockExchange(here), new ClockExchange(there)];
  assert.equal(a.hear({ kind: "heartbeat", sentAt: 1n }), undefined);
  assert.equal(a.beat().clock.echo, null);
  b.hear(a.beat());
  const answer = b.beat();
  TestClock.now -= 60_000_000n;
  assert.equal(a.hear(answer), undefined);
});
