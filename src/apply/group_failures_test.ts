import assert from "node:assert/strict";
import { setImmediate as turn } from "node:timers/promises";
import { type ApplyPair, errorOf, pushAll, Seen, stepsOn, TABLE } from "../../tests/support/apply_pair.ts";
import { eventually, within } from "../../tests/support/poll.ts";
import { startPostgres } from "../../tests/support/postgres.ts";
import { type Client, clientConnection, destroyClient } from "../pg/client.ts";
import { sqlState } from "../pg/errors.ts";
import { MESSAGE_TYPE } from "../pgoutput/peek.ts";
import { Applier } from "./applier.ts";
import { openApplySession } from "./session.ts";
import { Trust } from "./trust.ts";

const PUSH_TIMEOUT_MS = 10_000;

/** Inserts of the rows from 1 to `count`, a transaction each. */
function inserts(count: number, table = "t"): string[] {
  return Array.from({ length: count }, (_, i) => `INSERT INTO ${table} VALUES (${i + 1}, 'ins')`);
}

/** Closes an applier at the end of a block, so that the next finds the origin free. */
function closing(applier: Applier): AsyncDisposable {
  return { [Symbol.asyncDispose]: () => applier.close() };
}

/** Ends a connection at the end of a block: the next test's slot waits for transactions that are open. */
function ending(client: { end(): Promise<void> }): AsyncDisposable {
  return { [Symbol.asyncDispose]: () => client.end() };
}

/** Pushes messages of relations that are known, which need no wait. */
function pushNow(applier: Applier, messages: readonly Uint8Array[]): void {
  for (const message of messages) assert.equal(applier.push(message), undefined);
}

/** A recorded transaction without its announcements, whose inserts are cut off in the middle of their rows. */
function cutOff(messages: readonly Uint8Array[]): Uint8Array[] {
  return messages.filter((bytes) => bytes[0] !== MESSAGE_TYPE.relation)
    .map((bytes) => bytes[0] === MESSAGE_TYPE.insert ? bytes.slice(0, 9) : bytes);
}

const APPLY_SESSIONS =
  "pg_stat_activity WHERE application_name = 'mmlite apply ams' AND datname = current_database()";

/** Waits until the apply session is in a state, as pg_stat_activity has it. */
async function sessionIs(pair: ApplyPair, condition: string): Promise<void> {
  await eventually(
    `the apply session to be found by ${condition}`,
    async () => (await pair.rows(`SELECT 1 FROM ${APPLY_SESSIONS} AND ${condition}`)).length === 1,
    { intervalMs: 10 },
  );
}

/** Waits until the server has noticed that the session is over. */
async function sessionIsOver(pair: ApplyPair): Promise<void> {
  await eventually(
    "the apply session to end",
    async () => (await pair.rows(`SELECT 1 FROM ${APPLY_SESSIONS}`)).length === 0,
  );
}

/** Ways to lose the session, each named by what happens to it. */
const LOSSES: readonly [string, (pair: ApplyPair, client: Client) => Promise<unknown>][] = [
  [
    "its server process is ended",
    (pair) => pair.target.query(`SELECT pg_terminate_backend(pid) FROM ${APPLY_SESSIONS}`),
  ],
  ["its socket is closed", (_, client) => Promise.resolve(destroyClient(client))],
];

Deno.test("groups of transactions that meet something", async (t) => {
  await using server = await startPostgres({ major: 18 });
  const step = stepsOn(t, server);

  await step("changes before and after a relation is announced anew stay in their order", {
    name: "anew",
  }, async (pair) => {
    const messages = await pair.record(
      ...inserts(20),
      "ALTER TABLE t REPLICA IDENTITY FULL",
      // Each is written by itself, and finds what waits of the relation as it was before.
      "UPDATE t SET id = 100 WHERE id = 1",
      "UPDATE t SET v = repeat('long', 5000) WHERE id = 2",
      "DELETE FROM t WHERE id = 3",
      "INSERT INTO t VALUES (3, 'again')",
    );
    const seen = await pair.apply(messages);
    assert.equal(seen.commits, 1);
    assert.deepEqual(seen.conflicts, []);
    const [source, target] = await pair.both("SELECT id, md5(v) FROM t ORDER BY id");
    assert.deepEqual(target, source);
  });

  await step("a table that sets can no longer take in the middle of a long transaction keeps its order", {
    name: "leaves",
  }, async (pair) => {
    const messages = await pair.record(
      // More than are held, and more than are written at a time. Of another type, a key may have another text.
      `BEGIN; INSERT INTO t SELECT g, 'ins' FROM generate_series(1, 20000) g;
       ALTER TABLE t ALTER id TYPE bigint; UPDATE t SET v = 'upd' WHERE id > 19990; COMMIT`,
    );
    const seen = await pair.apply(messages);
    assert.deepEqual(seen.conflicts, []);
    assert.deepEqual(await pair.rows("SELECT v, count(*) FROM t GROUP BY v ORDER BY v"), [
      "(ins,19990)",
      "(upd,10)",
    ]);
  });

  await step("a table that is met while sets fail is read on after it", {
    name: "catalog",
    schema: `${TABLE}; CREATE TABLE u (id int PRIMARY KEY, v text, of_another_type uuid)`,
    targetSchema: "INSERT INTO t VALUES (103, 'in the way')",
  }, async (pair) => {
    const seen = new Seen();
    const options = await pair.applierOptions(seen);
    const session = await openApplySession(options);
    const applier = new Applier(session, options);
    await using _applier = closing(applier);
    const { stream } = clientConnection(session.client);
    await pushAll(applier, await pair.record(...inserts(5)));
    const conflicting = await pair.record("INSERT INTO t SELECT g, 'ins' FROM generate_series(101, 120) g");
    const met = await pair.record(...inserts(3, "u"));
    const change = met.findIndex((bytes) => bytes[0] === MESSAGE_TYPE.insert);

    for (const message of [...conflicting, ...met.slice(0, change)]) await applier.push(message);
    // The replies to the first query of the catalog, which leads to a second, and to the sets behind it come at once.
    stream.pause();
    const waiting = applier.push(met[change])!;
    await turn();
    applier.flush();
    await sessionIs(pair, "state = 'idle in transaction (aborted)'");
    stream.resume();
    await within("the table to be read", PUSH_TIMEOUT_MS, waiting);
    await within("the rest to be applied", PUSH_TIMEOUT_MS, pushAll(applier, met.slice(change + 1)));
    assert.deepEqual(seen.conflicts, ["insert_exists"]);
    for (const table of ["t", "u"]) {
      const [source, target] = await pair.both(`SELECT id, v FROM ${table} ORDER BY id`);
      assert.deepEqual(target, source);
    }
  });

  await step("what cannot be written once its turn has come ends the session", {
    name: "turn",
  }, async (pair) => {
    const seen = new Seen();
    const applier = await pair.openApplier(seen);
    await using _applier = closing(applier);
    await pushAll(applier, await pair.record("INSERT INTO t VALUES (1, 'a')"));
    const good = await pair.record("INSERT INTO t VALUES (2, 'b')");
    const bad = cutOff(await pair.record("INSERT INTO t VALUES (3, 'c')"));
    pushNow(applier, good.filter((bytes) => bytes[0] !== MESSAGE_TYPE.relation));
    applier.flush();
    pushNow(applier, bad);
    const error = await within("the session to fail", PUSH_TIMEOUT_MS, errorOf(applier.failed));
    assert.equal(error.kind, "protocol");
    assert.throws(() => applier.push(good[0]), error);
    assert.equal(seen.transactions, 2);
    assert.deepEqual(await pair.rows("SELECT id FROM t ORDER BY id"), ["(1)", "(2)"]);
  });

  await step("what cannot be written at a pause ends the session", { name: "pause" }, async (pair) => {
    const applier = await pair.openApplier(new Seen());
    await using _applier = closing(applier);
    await pushAll(applier, await pair.record("INSERT INTO t VALUES (1, 'a')"));
    pushNow(applier, cutOff(await pair.record("INSERT INTO t VALUES (2, 'b')")));
    applier.flush();
    const error = await within("the session to fail", PUSH_TIMEOUT_MS, errorOf(applier.failed));
    assert.equal(error.kind, "protocol");
    assert.equal(await errorOf(applier.idle()), error);
    assert.deepEqual(await pair.rows("SELECT id FROM t"), ["(1)"]);
  });

  await step("who waits for room is told when applying fails", { name: "room" }, async (pair) => {
    const applier = await pair.openApplier(new Seen());
    await using _applier = closing(applier);
    await pushAll(applier, await pair.record("INSERT INTO t VALUES (0, 'a')"));
    // Two of them are full. Two units are under way, and one waits.
    const messages = await pair.record(
      ...[1, 2, 3, 4, 5, 6].map((i) => `INSERT INTO t SELECT ${i}00000 + g FROM generate_series(1, 16000) g`),
    );
    const holder = await server.connect("room_dst");
    await using _holder = ending(holder);
    await holder.query("BEGIN; LOCK TABLE t");
    const [last, ...before] = messages.filter((bytes) => bytes[0] !== MESSAGE_TYPE.relation).toReversed();
    pushNow(applier, before.reverse());
    const waiting = errorOf(Promise.resolve(applier.push(last)));
    await sessionIs(pair, "wait_event_type = 'Lock'");
    await pair.target.query(`SELECT pg_terminate_backend(pid) FROM ${APPLY_SESSIONS}`);
    const error = await within("whoever pushes to be told", PUSH_TIMEOUT_MS, waiting);
    assert.equal(error.kind, "unreachable");
  });

  await step("after a deadlock transactions are applied one by one", {
    name: "deadlock",
    schema: ["x", "y", "z"].map((name) => `CREATE TABLE ${name} (id int PRIMARY KEY, v text)`).join(";"),
  }, async (pair) => {
    const messages = await pair.record(...inserts(1, "x"), ...inserts(1, "y"), ...inserts(1, "z"));
    const trust = new Trust();
    const applier = await pair.openApplier(new Seen(), { trust });
    await using _applier = closing(applier);
    const [holder, rival] = [await server.connect("deadlock_dst"), await server.connect("deadlock_dst")];
    await using _holder = ending(holder);
    await using _rival = ending(rival);
    await rival.query("SET deadlock_timeout = '10min'; BEGIN; LOCK TABLE z");
    await holder.query("BEGIN; LOCK TABLE y");
    const pushing = errorOf(pushAll(applier, messages));
    await sessionIs(pair, "wait_event_type = 'Lock'");
    // The rival waits before the group does, which then finds the deadlock.
    const waiting = rival.query("LOCK TABLE x");
    await eventually(
      "the rival to wait",
      async () =>
        (await pair.rows("SELECT 1 FROM pg_locks WHERE relation = 'x'::regclass AND NOT granted")).length > 0,
    );
    await holder.query("ROLLBACK");
    const error = await within("the deadlock to be found", PUSH_TIMEOUT_MS, pushing);
    assert.equal(error.kind, "transient");
    assert.equal(sqlState(error), "40P01");
    await waiting;
    await rival.query("ROLLBACK");
    const seen = new Seen();
    const again = await pair.openApplier(seen, { trust });
    await using _again = closing(again);
    await pushAll(again, messages);
    assert.equal(seen.transactions, 3);
    assert.equal(seen.commits, 3);
  });

  for (const [how, lose] of LOSSES) {
    const name = `lost_${how.split(" ").at(-1)}`;
    await step(`a session that is lost as ${how} is not mended, and sets are still trusted`, {
      name,
    }, async (pair) => {
      const messages = await pair.record(...inserts(10));
      const trust = new Trust();
      const options = await pair.applierOptions(new Seen(), { trust });
      const session = await openApplySession(options);
      const applier = new Applier(session, options);
      await using _applier = closing(applier);
      const holder = await server.connect(`${name}_dst`);
      await using _holder = ending(holder);
      await holder.query("BEGIN; LOCK TABLE t");
      const pushing = errorOf(pushAll(applier, messages));
      await sessionIs(pair, "wait_event_type = 'Lock'");
      await lose(pair, session.client);
      const error = await within("the session to fail", PUSH_TIMEOUT_MS, pushing);
      assert.equal(error.kind, "unreachable");
      // Else it would go on with what it has read already.
      await sessionIsOver(pair);
      await holder.query("ROLLBACK");
      const seen = new Seen();
      const again = await pair.openApplier(seen, { trust });
      await using _again = closing(again);
      await pushAll(again, messages);
      assert.equal(seen.transactions, 10);
      assert.equal(seen.commits, 1);
    });
  }
});
