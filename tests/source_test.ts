/** The source over real servers: what passes, what moves the slot, and how it behaves when read slowly or stopped. */
import assert from "node:assert/strict";
import type { MmliteError } from "../src/errors.ts";
import { type Lsn, parseLsn } from "../src/lsn.ts";
import { isShutdown } from "../src/pg/errors.ts";
import { readSlots } from "../src/pg/slots.ts";
import { openLock } from "../src/pg/lock.ts";
import { messagesOf } from "./support/message_batch.ts";
import { startPostgres } from "./support/postgres.ts";
import { eventually, within } from "./support/poll.ts";
import { drain, makeSlotBed, type SlotBed, transactionsOf } from "./support/slot_bed.ts";

const MAJORS = [10, 12, 13, 15, 16, 18] as const;
const SCHEMA =
  "CREATE TABLE t (id text PRIMARY KEY, filler text); CREATE TABLE foreign_first (id text PRIMARY KEY)";

const TIMEOUTS = [
  "transaction_timeout",
  "statement_timeout",
  "idle_in_transaction_session_timeout",
  "idle_session_timeout",
];

const asForeign = (origin: string, statements: string) => `
  SELECT pg_replication_origin_session_setup('${origin}');
  BEGIN; ${statements}; COMMIT;
  SELECT pg_replication_origin_session_reset()`;

async function confirmedFlushLsn({ query, slot }: SlotBed): Promise<Lsn> {
  return (await readSlots(query, slot))[0].confirmedFlushLsn!;
}

async function walLsn({ query }: SlotBed): Promise<Lsn> {
  return parseLsn((await query("SELECT pg_current_wal_flush_lsn()::text AS lsn"))[0].lsn!);
}

/** Settings of every later session on the database, as far as the server has them. */
async function setForDatabase({ query }: SlotBed, names: readonly string[], value: string): Promise<void> {
  const statements = await query(
    `SELECT format('ALTER DATABASE %I SET %I = %L', current_database(), name, $2::text) AS statement
       FROM pg_settings WHERE name = ANY ($1)`,
    [names, value],
  );
  for (const { statement } of statements) await query(statement!);
}

/** Each on its own database of one server, in this order: the last one stops it. */
const CASES: Readonly<Record<string, (bed: SlotBed) => Promise<void>>> = {
  "only local transactions pass": async (bed) => {
    const major = Math.floor(bed.serverVersion / 10_000);
    const { query } = bed;
    await query("SELECT pg_replication_origin_create('mmlite_c')");
    await bed.ensureSlot();
    const ended = { local: 0, foreign: 0, empty: 0 };
    const source = await bed.source({
      observer: ({ local, foreign, empty }) => {
        ended.local += local;
        ended.foreign += foreign;
        ended.empty += empty;
      },
    });
    await query(asForeign("mmlite_c", "INSERT INTO foreign_first VALUES ('foreign')"));
    // An origin that the transaction cannot see: the empty payload up to 13, nothing at all on 14 and 15 (which is
    // why origins are created and committed before anything is applied under them).
    const unseen = major < 14 || major >= 16;
    if (unseen) {
      await query(
        `BEGIN; INSERT INTO t VALUES ('before'); SELECT pg_replication_origin_create('mmlite_d');
         SELECT pg_replication_origin_session_setup('mmlite_d'); INSERT INTO t VALUES ('after'); COMMIT;
         SELECT pg_replication_origin_session_reset()`,
      );
    }
    await query("CREATE TABLE unpublished (id int); INSERT INTO unpublished VALUES (1)");
    await query("INSERT INTO foreign_first VALUES ('first')");
    await query("BEGIN; INSERT INTO t VALUES ('a'); INSERT INTO t VALUES ('b'); COMMIT");
    await query(asForeign("mmlite_c", "INSERT INTO t VALUES ('foreign')"));
    await query("UPDATE t SET id = 'c' WHERE id = 'a'; DELETE FROM t WHERE id = 'b'");
    if (major >= 11) await query("TRUNCATE t");

    const transactions = transactionsOf(source);
    const next = async () => (await within("a transaction", 10_000, transactions.next())).value!;
    const first = await next();
    assert.deepEqual(first.inserted, ["first"]);
    // Its relation was announced within the foreign transaction, and only there (up to 15).
    assert.match(first.kinds, /^BR+IC$/);
    const second = await next();
    assert.deepEqual(second.inserted, ["a", "b"]);
    assert.match(second.kinds, /^BR*I+C$/);
    assert.match((await next()).kinds, /^BR*UDC$/);
    if (major >= 11) assert.match((await next()).kinds, /^BR*TC$/);
    assert.equal(ended.local, major >= 11 ? 4 : 3);
    // From 16 on the server keeps foreign transactions to itself, from 15 on the empty ones.
    assert.equal(ended.foreign, major >= 16 ? 0 : unseen ? 3 : 2);
    if (major < 15) assert.ok(ended.empty > 0);
    await source.close();
  },

  "an idle slot follows other databases, and waits for an ack": async (bed) => {
    await bed.ensureSlot();
    const source = await bed.source();
    const seen: Lsn[] = [];
    const ended = drain(source, { seen: ({ endLsn }) => endLsn !== null && seen.push(endLsn) });
    const writeElsewhere = async () => {
      await bed.server.sql("postgres", "CREATE TABLE x AS SELECT generate_series(1, 1000); DROP TABLE x");
      return await walLsn(bed);
    };
    const before = await writeElsewhere();
    await eventually("the idle slot to follow", async () => await confirmedFlushLsn(bed) >= before);

    await bed.query("INSERT INTO t VALUES ('a')");
    await eventually("the transaction to arrive", () => seen.length === 1);
    const beyond = await writeElsewhere();
    assert.ok(await confirmedFlushLsn(bed) < seen[0]);
    source.confirm(seen[0]);
    await eventually("the slot to follow again", async () => await confirmedFlushLsn(bed) >= beyond);
    await source.close();
    assert.equal((await ended as MmliteError).kind, "aborted");
  },

  "a reader paused for longer than every timeout loses nothing": async (bed) => {
    await bed.ensureSlot();
    await setForDatabase(bed, TIMEOUTS, "1s");
    await bed.query("INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 10000) i");
    const source = await bed.source();
    const transactions = transactionsOf(source);
    const [{ started }] = await bed.query("SELECT clock_timestamp()::text AS started");
    await eventually("twice the timeout to pass", async () => {
      const [row] = await bed.query("SELECT (clock_timestamp() > $1::timestamptz + '5s')::text AS over", [
        started,
      ]);
      return row.over === "true";
    });
    const { value } = await within("the transaction", 30_000, transactions.next());
    assert.equal(value!.inserted.length, 10_000);
    assert.doesNotMatch(await bed.server.log(), /replication timeout/);
    await source.close();
  },

  "a source starts at its position, and below the slot's own at that": async (bed) => {
    const slotLsn = await bed.ensureSlot();
    for (const id of ["a", "b", "c"]) await bed.query("INSERT INTO t VALUES ($1)", [id]);
    const readAll = async (startLsn: Lsn, last: string) => {
      const source = await bed.source({ startLsn });
      const seen = [];
      for await (const transaction of transactionsOf(source)) {
        seen.push(transaction);
        if (transaction.inserted[0] === last) break;
      }
      return { source, seen };
    };
    const all = await readAll(slotLsn, "c");
    assert.equal(all.seen.length, 3);
    await all.source.close();

    const rest = await readAll(all.seen[0].endLsn, "c");
    assert.deepEqual(rest.seen.map(({ inserted }) => inserted), [["b"], ["c"]]);
    rest.source.confirm(rest.seen[0].endLsn);
    await rest.source.close();

    assert.equal(await confirmedFlushLsn(bed), rest.seen[0].endLsn);
    const below = await readAll(slotLsn, "c");
    assert.deepEqual(below.seen.map(({ inserted }) => inserted), [["c"]]);
    await below.source.close();
  },

  "what keeps a slot from being read is named": async (bed) => {
    await bed.ensureSlot();
    const source = await bed.source();
    const ended = drain(source);
    const [{ pid }] = await bed.query(
      "SELECT active_pid::text AS pid FROM pg_replication_slots WHERE slot_name = $1",
      [
        bed.slot,
      ],
    );
    await assert.rejects(bed.source(), (error: MmliteError) => {
      assert.equal(error.kind, "transient");
      assert.match(error.message, new RegExp(`^Cannot read replication slot "${bed.slot}": .*\\b${pid}\\b`));
      return true;
    });
    await bed.query("SELECT pg_terminate_backend($1)", [pid]);
    assert.equal((await within("the source to end", 10_000, ended) as MmliteError).kind, "unreachable");

    await setForDatabase(bed, ["client_min_messages"], "error");
    await bed.query("DROP PUBLICATION mmlite_inserts");
    await bed.query("INSERT INTO t VALUES ('a')");
    // The server may say so before the source counts as open.
    const orphan = bed.source().then((opened) => drain(opened), (error: Error) => error);
    const lost = await within("the source to end", 10_000, orphan) as MmliteError;
    assert.equal(lost.kind, "slot_lost");
    assert.match(lost.message, /publication "mmlite_inserts"/);

    await eventually(
      "the slot to be free",
      () => bed.query("SELECT pg_drop_replication_slot($1)", [bed.slot]),
    );
    await assert.rejects(bed.source(), {
      kind: "slot_lost",
      message: /replication slot "mmlite_case_\d" does not exist/,
    });
  },

  "the server stops at once although a transaction is un-acked": async (bed) => {
    await bed.ensureSlot();
    await bed.query("INSERT INTO t VALUES ('a')");
    const lock = await openLock(bed.target, new AbortController().signal);
    const source = await bed.source({ signal: lock.lost });
    let arrived = false;
    const ended = drain(source, { seen: ({ endLsn }) => arrived ||= endLsn !== null });
    await eventually("the transaction to arrive", () => arrived);
    await within("the server to stop", 10_000, bed.server.stop("fast"));
    assert.ok(isShutdown(lock.lost.reason), String(lock.lost.reason));
    assert.match(
      lock.lost.reason.message,
      /^Cannot stay connected to case_\d at .*: PostgreSQL is shutting down/,
    );
    await ended;
    await lock.close();
    await bed.server.start();
  },
};

for (const major of MAJORS) {
  Deno.test(`the source over PostgreSQL ${major}`, async (t) => {
    await using server = await startPostgres({ major, settings: { wal_sender_timeout: "2s" } });
    for (const [index, [title, body]] of Object.entries(CASES).entries()) {
      await t.step(title, async () => {
        await using bed = await makeSlotBed(server, { name: `case_${index}`, schema: SCHEMA });
        await body(bed);
      });
    }
  });
}

Deno.test("a stream abort that PostgreSQL 18 sends with streaming off is passed over", async () => {
  await using server = await startPostgres({ major: 18, settings: { logical_decoding_work_mem: "64kB" } });
  await using bed = await makeSlotBed(server, { name: "app", schema: SCHEMA });
  await bed.ensureSlot();
  await bed.query("BEGIN; INSERT INTO t SELECT i::text FROM generate_series(1, 20000) i; ROLLBACK");
  await bed.query("INSERT INTO t VALUES ('a')");
  const source = await bed.source();
  const { value } = await within("the transaction", 10_000, transactionsOf(source).next());
  assert.deepEqual(value!.inserted, ["a"]);
  await source.close();
});

Deno.test("a value of 100 MB comes whole and costs little more memory than itself", async () => {
  const size = 100_000_000;
  await using server = await startPostgres({ major: 18 });
  await using bed = await makeSlotBed(server, {
    name: "app",
    schema: "CREATE TABLE big (id int PRIMARY KEY, v text)",
  });
  await bed.ensureSlot();
  await bed.query(`INSERT INTO big SELECT 1, repeat(md5('x'), ${size} / 32)`);
  const before = Deno.memoryUsage().rss;
  let peak = before;
  const source = await bed.source();
  const sampler = setInterval(() => peak = Math.max(peak, Deno.memoryUsage().rss), 5);
  let longest = 0;
  await within(
    "the value",
    60_000,
    new Promise<void>((resolve) => {
      void drain(source, {
        seen: ({ messages, endLsn }) => {
          for (const message of messagesOf(messages)) longest = Math.max(longest, message.length);
          if (endLsn !== null) resolve();
        },
      });
    }),
  );
  clearInterval(sampler);
  assert.ok(longest > size && longest < size + 100);
  assert.ok(peak - before < 2 * size, `${peak - before} bytes on top`);
  await source.close();
});
