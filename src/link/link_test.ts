import assert from "node:assert/strict";
import { eventually, within } from "../../tests/support/poll.ts";
import { type ErrorKind, MmliteError } from "../errors.ts";
import {
  type AttemptReport,
  Link,
  type LinkState,
  MENDED_ELSEWHERE_RETRY_MS,
  OPERATOR_RETRY_MS,
} from "./link.ts";

type Attempt = (signal: AbortSignal, report: AttemptReport) => Promise<void>;

/** Goes on until it is stopped, as a session does. */
const goesOn: Attempt = (signal) =>
  new Promise((resolve) => {
    if (signal.aborted) return resolve();
    signal.addEventListener("abort", () => resolve(), { once: true });
  });

const streams: Attempt = (signal, report) => {
  report.entered("streaming");
  return goesOn(signal, report);
};

function fails(kind: ErrorKind, message = "Cannot go on"): Attempt {
  return () => Promise.reject(new MmliteError(kind, message));
}

/** A started link whose attempts are the given ones in turn, and the last of them for ever. */
function startLink(...script: Attempt[]) {
  const startedAt: number[] = [];
  const link = new Link({
    peer: "fra",
    attempt: (signal, report) => {
      startedAt.push(performance.now());
      return script[Math.min(startedAt.length, script.length) - 1](signal, report);
    },
  });
  link.start();
  return {
    link,
    startedAt,
    reaches: (name: LinkState["name"]) =>
      eventually(`the link to be ${name}`, () => link.state.name === name, { intervalMs: 2 }),
    attempts: (count: number) =>
      eventually(`${count} attempts`, () => startedAt.length >= count, { intervalMs: 2 }),
    [Symbol.asyncDispose]: () => link.stop(),
  };
}

/** Makes every backoff this share of its ceiling. */
function backoffShare(share: number): Disposable {
  const random = Math.random;
  Math.random = () => share;
  return { [Symbol.dispose]: () => void (Math.random = random) };
}

function errorOf(link: Link): MmliteError {
  assert("error" in link.state, link.state.name);
  return link.state.error;
}

Deno.test("a link whose attempt broke waits, and streams once one gets through", async () => {
  using _ = backoffShare(1);
  await using run = startLink(fails("unreachable", "Cannot reach it"), streams);
  await run.reaches("backoff");
  assert.equal(errorOf(run.link).message, "Cannot reach it");
  await run.reaches("streaming");
  assert(run.startedAt[1] - run.startedAt[0] >= 199);
  assert.equal(run.link.lastError?.error.message, "Cannot reach it");
});

Deno.test("a foreign error is retried as an internal one", async () => {
  using _ = backoffShare(1);
  await using run = startLink(() => Promise.reject(new TypeError("x is undefined")), streams);
  await run.reaches("backoff");
  assert.equal(errorOf(run.link).kind, "internal");
});

for (const [kind, state] of [["apply_failed", "blocked"], ["fenced", "fenced"]] as const) {
  Deno.test(`a link that is ${state} waits for retry()`, async () => {
    using _ = backoffShare(0);
    await using waiting = startLink(fails(kind), streams);
    await waiting.reaches(state);
    {
      await using retrying = startLink(fails("unreachable"));
      await retrying.attempts(20);
    }
    assert.equal(waiting.link.state.name, state);
    assert.equal(waiting.startedAt.length, 1);
    waiting.link.retry();
    await waiting.reaches("streaming");
  });
}

for (
  const [kind, waitMs] of [
    ["schema_mismatch", MENDED_ELSEWHERE_RETRY_MS],
    ["clock_skew", MENDED_ELSEWHERE_RETRY_MS],
    ["apply_failed", OPERATOR_RETRY_MS],
    ["permission", OPERATOR_RETRY_MS],
  ] as const
) {
  Deno.test(`a link that is blocked by ${kind} looks again by itself`, async () => {
    await using run = startLink(fails(kind), streams);
    await run.reaches("blocked");
    await run.reaches("streaming");
    assert(run.startedAt[1] - run.startedAt[0] >= waitMs - 1);
  });
}

Deno.test("a blocked link stays shown as blocked while it looks again", async () => {
  const blocked = Promise.withResolvers<void>();
  await using run = startLink(fails("schema_mismatch", "First"), () => blocked.promise, streams);
  await run.reaches("blocked");
  const since = run.link.since;
  run.link.retry();
  await run.attempts(2);
  assert.equal(run.link.state.name, "blocked");
  blocked.reject(new MmliteError("schema_mismatch", "Second"));
  await eventually("the newer error", () => errorOf(run.link).message === "Second", { intervalMs: 2 });
  assert.equal(run.link.since, since);
  run.link.retry();
  await run.reaches("streaming");
});

Deno.test("stop ends an attempt and every wait at once, and start begins again", async () => {
  using _ = backoffShare(1);
  const starts: [Attempt, LinkState["name"]][] = [
    [streams, "streaming"],
    [fails("unreachable"), "backoff"],
    [fails("apply_failed"), "blocked"],
    [fails("schema_mismatch"), "blocked"],
    [fails("fenced"), "fenced"],
  ];
  for (const [attempt, state] of starts) {
    await using run = startLink(attempt, streams);
    await run.reaches(state);
    await within(`a ${state} link to stop`, 2_000, run.link.stop());
    assert.equal(run.link.state.name, "paused");
    assert.equal(run.startedAt.length, 1);
    run.link.start();
    await run.reaches("streaming");
  }
});

Deno.test("a second start does nothing", async () => {
  await using run = startLink(streams);
  run.link.start();
  await run.reaches("streaming");
  assert.equal(run.startedAt.length, 1);
});

Deno.test("interrupt breaks the attempt off, and the link goes on after a wait", async () => {
  using _ = backoffShare(1);
  await using run = startLink(streams, streams);
  await run.reaches("streaming");
  run.link.interrupt();
  await run.reaches("backoff");
  assert.equal(errorOf(run.link).kind, "aborted");
  await run.reaches("streaming");
  assert.equal(run.startedAt.length, 2);
});

Deno.test("waits grow though data flowed, as long as the peer comes no further", async () => {
  using _ = backoffShare(0.05);
  await using run = startLink((signal, report) => {
    report.entered("streaming");
    return fails("transient")(signal, report);
  });
  await run.attempts(6);
  // 10 + 20 + 40 + 80 + 160 ms, each a millisecond less by the clock's rounding.
  assert(run.startedAt[5] - run.startedAt[0] >= 305);
});

Deno.test("waits begin anew once the peer has come further", async () => {
  using _ = backoffShare(0.05);
  await using run = startLink((signal, report) => {
    report.progressed();
    return fails("transient")(signal, report);
  });
  await run.attempts(11);
  // Ten waits of 10 ms; growing ones would take 2,630 ms.
  assert(run.startedAt[10] - run.startedAt[0] < 2_000);
});
