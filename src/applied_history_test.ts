import assert from "node:assert/strict";
import fc from "fast-check";
import { AppliedHistory, SeenCursor } from "./applied_history.ts";
import { toLsn } from "./lsn.ts";
import { NEVER } from "./seen_versions.ts";
import { MAX_STEPS, Steps } from "./steps.ts";

const NEW = { position: toLsn(0n), timestamp: undefined };

Deno.test("a transaction that is being applied may be a cause, and is certain once it is visible", () => {
  const history = new AppliedHistory();
  history.begin("a", { position: toLsn(5n), timestamp: 50n });
  history.reached(toLsn(100n));
  history.committing("a", toLsn(10n), 60n);
  const at = (lsn: bigint) => {
    const [{ position, timestamp }] = history.before(toLsn(lsn)).nodes;
    return [position, timestamp];
  };
  assert.deepEqual(at(99n), [5n, 50n]);
  assert.deepEqual(at(150n), [10n, 50n]);
  history.visible("a", toLsn(10n), toLsn(200n));
  assert.deepEqual(at(99n), [5n, 50n]);
  assert.deepEqual(at(199n), [10n, 50n]);
  assert.deepEqual(at(200n), [10n, 60n]);
});

Deno.test("what was read from a slot before is never caused by what is applied later", () => {
  const history = new AppliedHistory();
  history.begin("b", NEW);
  // Read for one peer; what comes back because of it is applied before it is read for another.
  const [commitLsn, endLsn] = [toLsn(100n), toLsn(120n)];
  history.reached(endLsn);
  history.committing("b", toLsn(10n), 60n);
  history.visible("b", toLsn(10n), toLsn(200n));
  assert.deepEqual(history.before(commitLsn).nodes, [{ node: "b", position: 0n, timestamp: NEVER }]);
});

Deno.test("what was undone counts for nothing, and time goes on with what a node says of its own", () => {
  const history = new AppliedHistory();
  history.begin("a", NEW);
  history.committing("a", toLsn(10n), 60n);
  history.begin("a", NEW);
  history.visible("a", toLsn(0n), toLsn(100n));
  assert.equal(history.before(toLsn(1000n)).nodes[0].timestamp, NEVER);
  history.committing("a", toLsn(10n), 60n);
  history.visible("a", toLsn(10n), toLsn(200n));
  history.caughtUp("a", 90n);
  assert.equal(history.before(toLsn(1000n)).nodes[0].timestamp, 60n);
  history.visible("a", toLsn(10n), toLsn(300n));
  assert.equal(history.before(toLsn(299n)).nodes[0].timestamp, 60n);
  assert.equal(history.before(toLsn(300n)).nodes[0].timestamp, 90n);
  history.forget("a");
  assert.deepEqual(history.before(toLsn(300n)).nodes, []);
});

Deno.test("both bounds hold, whatever the order of commits and looks", () => {
  const event = fc.constantFrom("local", "write", "commit", "look", "read" as const);
  fc.assert(fc.property(fc.array(event, { maxLength: 200 }), (events) => {
    const history = new AppliedHistory();
    history.begin("a", NEW);
    let [wal, written, committed] = [0n, 0n, 0n];
    const locals: { at: bigint; committed: bigint; visible: bigint }[] = [];
    let visible = 0n;
    for (const event of events) {
      if (event === "local") locals.push({ at: wal++, committed, visible });
      else if (event === "write") history.committing("a", toLsn(++written), written);
      else if (event === "commit" && committed < written) [wal, committed] = [wal + 1n, committed + 1n];
      else if (event === "look") {
        history.visible("a", toLsn(committed), toLsn(wal));
        visible = committed;
      } else if (event === "read") history.reached(toLsn(wal));
    }
    for (const local of locals) {
      const [{ position, timestamp }] = history.before(toLsn(local.at)).nodes;
      assert(position >= local.committed, `${position} ${local.committed}`);
      assert(timestamp === NEVER ? local.visible === 0n : timestamp >= local.visible);
      assert(timestamp <= local.committed);
    }
  }));
});

Deno.test("a stream is told what has changed, and only that", () => {
  const history = new AppliedHistory();
  history.begin("a", NEW);
  history.begin("b", { position: toLsn(7n), timestamp: 70n });
  const cursor = new SeenCursor(history);
  assert.equal(cursor.next(toLsn(1n))?.length, 2);
  assert.equal(cursor.next(toLsn(2n)), undefined);
  history.reached(toLsn(100n));
  history.committing("a", toLsn(10n), 60n);
  assert.equal(cursor.next(toLsn(99n)), undefined);
  assert.deepEqual(cursor.next(toLsn(101n)), [{ node: "a", position: 10n, timestamp: NEVER }]);
  assert.equal(cursor.next(toLsn(102n)), undefined);
  history.visible("a", toLsn(10n), toLsn(200n));
  assert.equal(cursor.next(toLsn(150n)), undefined);
  assert.deepEqual(cursor.next(toLsn(200n)), [{ node: "a", position: 10n, timestamp: 60n }]);
});

Deno.test("steps that are too many are off in one direction only", () => {
  const [upper, lower] = [new Steps<bigint>("upper"), new Steps<bigint>("lower")];
  for (let i = 1n; i <= BigInt(MAX_STEPS * 5); i++) {
    upper.add(toLsn(i * 10n), i);
    lower.add(toLsn(i * 10n), i);
  }
  for (let i = 1n; i <= BigInt(MAX_STEPS * 5); i += 7n) {
    assert((upper.at(toLsn(i * 10n)).value ?? 0n) >= i);
    assert((lower.at(toLsn(i * 10n)).value ?? 0n) <= i);
  }
  assert.equal(upper.last, BigInt(MAX_STEPS * 5));
  assert.equal(lower.last, BigInt(MAX_STEPS * 5));
});
