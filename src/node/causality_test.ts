import assert from "node:assert/strict";
import { toLsn } from "../lsn.ts";
import { SeenVersions } from "../seen_versions.ts";
import { within } from "../../tests/support/poll.ts";
import { Causality } from "./causality.ts";

const seen = (...positions: [string, bigint][]) =>
  SeenVersions.NOTHING.with(
    positions.map(([node, position]) => ({ node, position: toLsn(position), timestamp: 0n })),
  );

function start({ waitMs = 10_000, consistency = "causal" as "causal" | "eventual" } = {}) {
  const late: string[] = [];
  const senders = new Set(["a", "d"]);
  const causality = new Causality({
    consistency,
    isSender: (node) => senders.has(node),
    timedOut: (node) => void late.push(node),
    waitMs,
  });
  return { causality, late, senders };
}

const { signal } = new AbortController();

Deno.test("causes that are applied, of unknown nodes, or not wanted are not waited for", () => {
  const { causality } = start();
  causality.committed("a", toLsn(10n));
  assert(causality.areMet(seen(["a", 10n], ["removed", 99n])));
  assert(!causality.areMet(seen(["a", 11n])));
  assert(!causality.areMet(seen(["d", 1n])));
  assert(start({ consistency: "eventual" }).causality.areMet(seen(["a", 11n])));
});

Deno.test("a wait ends with the last of its causes, with their node, or with the signal", async () => {
  const { causality, late, senders } = start();
  const both = causality.wait(seen(["a", 10n], ["d", 20n]), signal);
  causality.committed("a", toLsn(12n));
  assert(!causality.areMet(seen(["a", 10n], ["d", 20n])));
  causality.committed("d", toLsn(20n));
  await within("both", 5_000, both);
  const removed = causality.wait(seen(["a", 100n]), signal);
  senders.delete("a");
  causality.forget("a");
  await within("the removed one", 5_000, removed);
  const stop = new AbortController();
  const stopped = causality.wait(seen(["d", 100n]), stop.signal);
  stop.abort();
  await within("the stopped one", 5_000, stopped);
  assert.deepEqual(late, []);
});

Deno.test("the time runs out once, until the node has caught up", async () => {
  const { causality, late } = start({ waitMs: 20 });
  await within("the time to run out", 5_000, causality.wait(seen(["a", 10n]), signal));
  assert.deepEqual(late, ["a"]);
  assert(causality.areMet(seen(["a", 50n])));
  causality.committed("a", toLsn(9n));
  assert(causality.areMet(seen(["a", 50n])));
  causality.committed("a", toLsn(10n));
  assert(!causality.areMet(seen(["a", 50n])));
});
