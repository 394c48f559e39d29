/** Transactions from a clock that is ahead, written into a real database. */
import assert from "node:assert/strict";
import { MmliteError } from "../errors.ts";
import { toLsn } from "../lsn.ts";
import { SeenVersions } from "../seen_versions.ts";
import { ApplyPair, pushAll, Seen } from "../../tests/support/apply_pair.ts";
import { eventually } from "../../tests/support/poll.ts";
import { startPostgres } from "../../tests/support/postgres.ts";
import type { Applier } from "./applier.ts";
import { Gate } from "./gate.ts";

/** Microseconds since 2000-01-01 UTC. */
function postgresNow(): bigint {
  return BigInt(Date.now() - 946_684_800_000) * 1000n;
}

/** A clock that is behind the one that commits are stamped by. */
function clockBehind(ms: () => number) {
  return { untilPassed: (timestamp: bigint) => Number(timestamp - postgresNow()) / 1000 + ms() };
}

/** Moves the commit times of recorded transactions. */
function shifted(messages: readonly Uint8Array[], ms: number): Uint8Array[] {
  return messages.map((message) => {
    const kind = String.fromCharCode(message[0]);
    if (kind !== "B" && kind !== "C") return message;
    const copy = message.slice();
    // Begin: final LSN, time. Commit: flags, commit LSN, end LSN, time.
    const view = new DataView(copy.buffer);
    const at = kind === "B" ? 9 : 18;
    view.setBigInt64(at, view.getBigInt64(at) + BigInt(Math.round(ms * 1000)));
    return copy;
  });
}

const TABLE = "CREATE TABLE t (id int PRIMARY KEY, v text)";

Deno.test("a transaction waits for the clock, and no more than is allowed", async (t) => {
  await using server = await startPostgres({ major: 18 });
  const step = (
    { name, says }: { name: string; says: string },
    options: { behindMs?: () => number; maxClockWaitMs?: number },
    body: (pair: ApplyPair, applier: Applier, seen: Seen) => Promise<void>,
  ) =>
    t.step(says, async () => {
      await using pair = await ApplyPair.open({ source: server, target: server, name, schema: TABLE });
      const { behindMs = () => 0, maxClockWaitMs = 10_000 } = options;
      const seen = new Seen();
      const applier = await pair.openApplier(seen, { clock: clockBehind(behindMs), maxClockWaitMs });
      try {
        await body(pair, applier, seen);
      } finally {
        await applier.close();
      }
    });

  await step(
    {
      name: "near",
      says: "one from the near future is committed, not earlier than its time",
    },
    {},
    async (pair, applier) => {
      await pushAll(applier, await pair.record("INSERT INTO t VALUES (1, 'now')"));
      const later = shifted(await pair.record("INSERT INTO t VALUES (2, 'later')"), 300);
      const started = performance.now();
      await pushAll(applier, later);
      assert(performance.now() - started > 100, `${performance.now() - started} ms`);
      assert.deepEqual(
        await pair.rows("SELECT id, pg_xact_commit_timestamp(xmin) <= clock_timestamp() FROM t ORDER BY id"),
        ["(1,t)", "(2,t)"],
      );
      // A local write is newer than what it replaces.
      await pair.target.query(
        "CREATE TABLE was AS SELECT pg_xact_commit_timestamp(xmin) AS at FROM t WHERE id = 2",
      );
      await pair.target.query("UPDATE t SET v = 'local' WHERE id = 2");
      assert.deepEqual(
        await pair.rows("SELECT pg_xact_commit_timestamp(t.xmin) > at FROM t, was WHERE id = 2"),
        ["(t)"],
      );
    },
  );

  await step(
    {
      name: "held",
      says: "what comes meanwhile is held up to a bound, and then the sender waits",
    },
    {},
    async (pair, applier, seen) => {
      const inserts = Array.from({ length: 20 }, (_, i) => i * 3000).map((from) =>
        `INSERT INTO t SELECT ${from} + n, 'x' FROM generate_series(1, 2000) n`
      );
      const messages = await pair.record("INSERT INTO t VALUES (0, 'first')", ...inserts);
      let waited = 0;
      for (const message of shifted(messages, 2_000)) {
        const pushed = performance.now();
        await applier.push(message);
        waited = Math.max(waited, performance.now() - pushed);
      }
      await applier.idle();
      assert(waited > 500, `${waited} ms`);
      assert.equal(seen.transactions, 21);
    },
  );

  await step(
    {
      name: "large",
      says: "one too large to be held waits too",
    },
    {},
    async (pair, applier) => {
      const large = await pair.record("INSERT INTO t SELECT n, 'x' FROM generate_series(1, 20000) n");
      await pushAll(applier, shifted(large, 1_500));
      assert.deepEqual(
        await pair.rows("SELECT max(pg_xact_commit_timestamp(xmin)) <= clock_timestamp() FROM t"),
        ["(t)"],
      );
    },
  );

  let behindMs = 0;
  await step(
    {
      name: "far",
      says: "one from too far ahead fails, what came before it is committed, and it goes once the clocks fit",
    },
    { behindMs: () => behindMs, maxClockWaitMs: 2_000 },
    async (pair, applier) => {
      const good = await pair.record("INSERT INTO t VALUES (1, 'a')");
      const far = shifted(await pair.record("INSERT INTO t VALUES (2, 'b')"), 60_000);
      for (const message of good) await applier.push(message);
      applier.flush();
      const failure = pushAll(applier, far);
      await assert.rejects(failure, (error) => {
        assert(error instanceof MmliteError);
        assert.equal(error.kind, "clock_skew");
        assert.match(
          error.message,
          /transaction of "ams" at .* (59|60)\.\d s ahead .* 2 s are waited for at most$/,
        );
        return true;
      });
      await applier.close();
      assert.deepEqual(await pair.rows("SELECT id FROM t"), ["(1)"]);
      behindMs = -60_000;
      const again = await pair.openApplier(new Seen(), { clock: clockBehind(() => behindMs) });
      await pushAll(again, [...good, ...far]).finally(() => again.close());
      assert.deepEqual(await pair.rows("SELECT id FROM t ORDER BY id"), ["(1)", "(2)"]);
    },
  );
});

Deno.test("what waits for its causes does not take along what came before it", async () => {
  await using server = await startPostgres({ major: 18 });
  await using pair = await ApplyPair.open({ source: server, target: server, name: "causes", schema: TABLE });
  const released = Promise.withResolvers<void>();
  let isReleased = false;
  const ofNode = (seen: SeenVersions) => [...seen.causes()].some(({ node }) => node === "nyc");
  const causes = {
    areMet: (seen: SeenVersions) => isReleased || !ofNode(seen),
    wait: () => released.promise,
  };
  const seen = new Seen();
  const applier = await pair.openApplier(seen, { causes });
  try {
    const before = await pair.record("INSERT INTO t VALUES (1, 'a')", "INSERT INTO t VALUES (2, 'b')");
    const behind = await pair.record("INSERT INTO t VALUES (3, 'c')");
    for (const message of before) await applier.push(message);
    const room = applier.seen([{ node: "nyc", position: toLsn(7n), timestamp: 0n }]);
    await room;
    const pushed = pushAll(applier, behind);
    await eventually("what came before", async () => (await pair.rows("SELECT id FROM t")).length === 2);
    assert.equal(seen.transactions, 2);
    isReleased = true;
    released.resolve();
    await pushed;
    assert.deepEqual(await pair.rows("SELECT id FROM t ORDER BY id"), ["(1)", "(2)", "(3)"]);
    applier.push(behind[0]);
    assert.throws(() => applier.seen([]), { kind: "protocol" });
  } finally {
    await applier.close();
  }
});

Deno.test("closing ends a wait", async () => {
  const causes = { areMet: () => true, wait: () => Promise.resolve() };
  const clock = { untilPassed: () => 5_000 };
  const gate = new Gate({ origin: "ams", clock, causes, maxClockWaitMs: 10_000 });
  const waiting = gate.pass({ commitTimestamp: 0n, commitLsn: toLsn(1n), seen: SeenVersions.NOTHING });
  gate.close();
  await assert.rejects(waiting!, { kind: "aborted" });
});
