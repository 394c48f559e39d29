/** Transactions that cannot be applied: ten kinds, what is said of them, and how they are set aside and applied. */
import assert from "node:assert/strict";
import {
  inboundOf,
  openPoisonBed,
  plainArrives,
  type PoisonBed,
  POISONS,
  SECRET,
  tryPoison,
  writePlain,
} from "./support/poison.ts";
import { eventually } from "./support/poll.ts";
import { startPostgres } from "./support/postgres.ts";

Deno.test("ten kinds of poison block or heal, are kept whole when skipped, and applied when retried", async (t) => {
  await using servers = new AsyncDisposableStack();
  const sender = servers.use(await startPostgres({ major: 16 }));
  const receiver = servers.use(await startPostgres({ major: 18 }));
  await using bed = await openPoisonBed("poison", { sender, receiver });
  for (const poison of POISONS) await t.step(poison.kind, async () => void await tryPoison(bed, poison));
});

const SCHEMA = `CREATE TABLE p (id int PRIMARY KEY, v text);
  CREATE TABLE q (id int PRIMARY KEY, t text, n text);
  ALTER TABLE q ALTER t SET STORAGE EXTERNAL;
  CREATE TABLE f (id int PRIMARY KEY, t text, n text);
  ALTER TABLE f ALTER t SET STORAGE EXTERNAL;
  ALTER TABLE f REPLICA IDENTITY FULL;
  CREATE TABLE r (id int PRIMARY KEY)`;
const REFUSE = `ALTER TABLE p ADD CONSTRAINT sane CHECK (v <> '${SECRET}') NOT VALID`;
const ALLOW = "ALTER TABLE p DROP CONSTRAINT sane";
/** Transactions that are set aside one after another. */
const KEPT = 12;
const POISON = (id: number) => `INSERT INTO p VALUES (${id}, '${SECRET}')`;

/** Waits until a transaction is blocked, another one than before, and returns its LSN. */
async function blockedAt(bed: PoisonBed, before?: string): Promise<string> {
  return await eventually("another transaction to be blocked", async () => {
    const inbound = await inboundOf(bed);
    if (inbound.blocked_lsn === null || inbound.blocked_lsn === before) {
      throw new Error(JSON.stringify(inbound));
    }
    assert.equal(inbound.state, "blocked");
    return inbound.blocked_lsn;
  });
}

// deno-lint-ignore no-explicit-any
async function quarantineOf({ to }: PoisonBed): Promise<any[]> {
  return (await to.node.api("GET", "/v1/quarantine")).json.items;
}

/** Writes a transaction at the sender between two others, and returns what `plain` gets of them. */
async function writeBetween(bed: PoisonBed, sql: string): Promise<{ before: number; after: number }> {
  const before = await writePlain(bed);
  await bed.from.client.query(`BEGIN; ${sql}; COMMIT`);
  return { before, after: await writePlain(bed) };
}

async function sameTables({ from, to }: PoisonBed, ...tables: string[]): Promise<void> {
  for (const table of tables) {
    const read = `SELECT *, pg_xact_commit_timestamp(xmin) AS committed FROM ${table} ORDER BY id`;
    const [at, there] = [await to.client.query(read), await from.client.query(read)];
    assert.deepEqual(at.rows, there.rows, table);
  }
}

for (const [senderMajor, receiverMajor] of [[18, 10], [12, 17]] as const) {
  Deno.test(`one transaction is skipped, whole, from PostgreSQL ${senderMajor} to ${receiverMajor}`, async (t) => {
    await using servers = new AsyncDisposableStack();
    const sender = servers.use(await startPostgres({ major: senderMajor }));
    const receiver = servers.use(await startPostgres({ major: receiverMajor }));
    await using bed = await openPoisonBed("skip", { sender, receiver, schema: SCHEMA });
    const { from, to } = bed;
    const skip = (lsn: string) => to.node.api("POST", "/v1/peers/ams/skip", { lsn });
    const retry = (id: string) => to.node.api("POST", `/v1/quarantine/${id}/retry`);

    await t.step("nothing is skipped where nothing is blocked", async () => {
      const { status, json } = await skip("0/1");
      assert.deepEqual([status, json.kind], [409, "conflict"]);
      assert.match(json.detail, /no transaction of it is blocked here/);
      assert.equal((await to.node.api("POST", "/v1/peers/nyc/skip", { lsn: "0/1" })).status, 404);
      const command = await to.node.cli("peers", "skip", "ams");
      assert.deepEqual([command.code, command.stdout], [1, ""]);
      assert.match(command.stderr, /none is blocked here/);
    });

    await t.step("of two only the one that is named, and none by another name", async () => {
      await to.client.query(REFUSE);
      const { before } = await writeBetween(bed, `${POISON(1)}; INSERT INTO r VALUES (1); ${POISON(2)}`);
      const { before: between, after } = await writeBetween(bed, POISON(3));
      const first = await blockedAt(bed);
      await plainArrives(bed, before);
      const other = await skip("0/1");
      assert.equal(other.status, 409);
      assert.ok(other.json.detail.includes(`the one that is blocked is at ${first}`), other.json.detail);
      const { rows: [{ end_lsn: end }] } = await to.client.query("SELECT end_lsn::text FROM mmlite.blocked");
      assert.notEqual(end, first);
      assert.equal((await skip(end)).status, 202);
      await plainArrives(bed, between);
      const second = await blockedAt(bed, first);
      assert.deepEqual(
        (await quarantineOf(bed)).map((entry) => [entry.commit_lsn, entry.end_lsn, entry.changes]),
        [
          [first, end, 3],
        ],
      );
      const command = await to.node.cli("peers", "skip", "ams", "--lsn", second);
      assert.equal(command.code, 0, command.stderr);
      await plainArrives(bed, after);
      assert.equal((await quarantineOf(bed)).length, 2);
      assert.equal((await to.client.query("SELECT FROM r")).rowCount, 0);
    });

    await t.step("status and metrics count them until they are applied or discarded", async () => {
      const { json: status } = await to.node.api("GET", "/v1/status");
      assert.deepEqual(status.quarantine, { transactions: 2 });
      assert.ok(
        status.problems.some(({ message }: { message: string }) => /^2 transactions are/.test(message)),
      );
      assert.match((await to.node.api("GET", "/metrics")).json, /^mmlite_quarantined_transactions 2$/m);
      const listed = await to.node.cli("quarantine", "list");
      assert.equal(listed.stdout.trim().split("\n").length, 3, listed.stdout);
      assert.ok(!listed.stdout.includes(SECRET));
      const [first, second] = await quarantineOf(bed);
      const shown = await to.node.cli("quarantine", "show", first.id);
      assert.equal(shown.stdout.split(SECRET).length, 3, shown.stdout);
      await to.client.query(ALLOW);
      assert.equal((await retry(first.id)).status, 200);
      assert.equal((await retry(first.id)).status, 404);
      assert.equal((await to.node.cli("quarantine", "discard", second.id)).code, 0);
      assert.equal((await to.node.api("DELETE", `/v1/quarantine/${second.id}`)).status, 404);
      assert.deepEqual(await quarantineOf(bed), []);
      const { rows } = await to.client.query("SELECT count(*)::int AS kept FROM mmlite.quarantine_change");
      assert.deepEqual(rows, [{ kept: 0 }]);
      await from.client.query("DELETE FROM p WHERE id = 3");
      await plainArrives(bed, await writePlain(bed));
      await sameTables(bed, "p", "r");
    });

    await t.step("old rows, nulls, unchanged values, keys and truncated tables are kept", async () => {
      const long = "x".repeat(10_000);
      for (const table of ["q", "f"]) {
        await from.client.query(`INSERT INTO ${table} VALUES (1, $1, 'a'), (2, $1, 'b')`, [long]);
      }
      await plainArrives(bed, await writePlain(bed));
      await to.client.query(REFUSE);
      const { after } = await writeBetween(
        bed,
        `UPDATE q SET n = NULL WHERE id = 1; UPDATE q SET id = 3 WHERE id = 2; DELETE FROM q WHERE id = 3;
         UPDATE f SET n = 'c' WHERE id = 1; DELETE FROM f WHERE id = 2; TRUNCATE r; ${POISON(4)}`,
      );
      await skip(await blockedAt(bed));
      await plainArrives(bed, after);
      const [{ id }] = await quarantineOf(bed);
      const { json } = await to.node.api("GET", `/v1/quarantine/${id}`);
      const short = JSON.parse(JSON.stringify(json.rows.items).replaceAll(long, "long"));
      // deno-lint-ignore no-explicit-any
      assert.deepEqual(short.map(({ number: _, ...change }: any) => change), [
        { table: "public.q", kind: "update", old: null, new: { id: "1", n: null }, unchanged: ["t"] },
        { table: "public.q", kind: "update", old: { id: "2" }, new: { id: "3", n: "b" }, unchanged: ["t"] },
        { table: "public.q", kind: "delete", old: { id: "3" }, new: null, unchanged: [] },
        {
          ...{ table: "public.f", kind: "update", old: { id: "1", t: "long", n: "a" } },
          ...{ new: { id: "1", n: "c" }, unchanged: ["t"] },
        },
        { table: "public.f", kind: "delete", old: { id: "2", t: "long", n: "b" }, new: null, unchanged: [] },
        { table: "public.r", kind: "truncate", old: null, new: null, unchanged: [] },
        { table: "public.p", kind: "insert", old: null, new: { id: "4", v: SECRET }, unchanged: [] },
      ]);
      const { rows } = await to.client.query(
        `SELECT kind, table_name, column_names, left(old_row::text, 20) AS old_row, new_row, unchanged_columns
           FROM mmlite.quarantine_row WHERE table_name IN ('public.q', 'public.r') ORDER BY number`,
      );
      const q = { table_name: "public.q", column_names: ["id", "t", "n"] };
      assert.deepEqual(rows, [
        { ...q, kind: "update", old_row: null, new_row: ["1", null, null], unchanged_columns: [2] },
        { ...q, kind: "update", old_row: "{2,NULL,NULL}", new_row: ["3", null, "b"], unchanged_columns: [2] },
        { ...q, kind: "delete", old_row: "{3,NULL,NULL}", new_row: null, unchanged_columns: null },
        {
          ...{ kind: "truncate", table_name: "public.r", column_names: null },
          ...{ old_row: null, new_row: null, unchanged_columns: null },
        },
      ]);
      await to.client.query(ALLOW);
      assert.equal((await retry(id)).status, 200);
      await sameTables(bed, "p", "q", "f", "r");
    });

    await t.step("one that is long goes by without being held", async () => {
      await to.client.query(REFUSE);
      const rows = 6_000;
      const { after } = await writeBetween(
        bed,
        `INSERT INTO p SELECT g, repeat('y', 300) FROM generate_series(1001, ${1000 + rows}) g; ${POISON(5)}`,
      );
      const lsn = await blockedAt(bed);
      assert.equal((await skip(lsn)).status, 202);
      await plainArrives(bed, after);
      const [entry, ...others] = await quarantineOf(bed);
      assert.deepEqual([entry.commit_lsn, entry.changes, others], [lsn, rows + 1, []]);
      const shown = await to.node.cli("quarantine", "show", entry.id, "-o", "json");
      assert.equal(JSON.parse(shown.stdout).rows.items.length, rows + 1);
      assert.equal((await retry(entry.id)).status, 409);
      assert.equal((await to.client.query("SELECT FROM p WHERE id > 1000")).rowCount, 0);
      await to.client.query(ALLOW);
      assert.equal((await retry(entry.id)).status, 200);
      await sameTables(bed, "p");
      const { rows: [written] } = await to.client.query(
        "SELECT count(DISTINCT xmin::text)::int AS transactions FROM p WHERE id > 1000 OR id = 5",
      );
      assert.deepEqual(written, { transactions: 1 });
    });

    await t.step(
      "what was asked survives a kill of the receiver before the transaction comes again",
      async () => {
        await to.client.query(REFUSE);
        const { after } = await writeBetween(bed, POISON(6));
        const lsn = await blockedAt(bed);
        from.node.signal("SIGSTOP");
        assert.equal((await skip(lsn)).status, 202);
        await to.node.kill();
        await to.node.start();
        assert.deepEqual(await quarantineOf(bed), []);
        assert.equal((await inboundOf(bed)).blocked_lsn, lsn);
        from.node.signal("SIGCONT");
        await plainArrives(bed, after);
        const [entry, ...others] = await quarantineOf(bed);
        assert.deepEqual([entry.commit_lsn, entry.changes, others], [lsn, 1, []]);
        await to.node.restart();
        await to.client.query(ALLOW);
        assert.equal((await retry(entry.id)).status, 200);
        await sameTables(bed, "p");
      },
    );

    await t.step("a retry on the receiver wakes the sender's link", async () => {
      await to.client.query(REFUSE);
      const { after } = await writeBetween(bed, POISON(7));
      await blockedAt(bed);
      await to.client.query(ALLOW);
      await eventually("the link back to stream", async () => {
        const { json } = await to.node.api("GET", "/v1/peers/ams");
        return json.state === "streaming";
      });
      const startedAt = performance.now();
      assert.equal((await to.node.api("POST", "/v1/peers/ams/retry")).status, 202);
      await plainArrives(bed, after);
      assert.ok(performance.now() - startedAt < 4_000, "before it looks again by itself");
    });

    await t.step(
      "nothing that was applied out of quarantine has been sent on, and no log holds a value",
      async () => {
        await plainArrives(bed, await writePlain(bed));
        const { json } = await from.node.api("GET", "/v1/peers/fra");
        assert.equal(json.inbound.transactions, 0);
        for (const { node } of [from, to]) assert.ok(!(await node.log()).includes(SECRET), node.name);
      },
    );
  });
}

Deno.test("a node that is told so sets aside by itself what an operator would have to see to, and nothing else", async (t) => {
  await using servers = new AsyncDisposableStack();
  const sender = servers.use(await startPostgres({ major: 14 }));
  const receiver = servers.use(await startPostgres({ major: 15 }));
  const extraArgs = ["--on-error", "quarantine"];
  await using bed = await openPoisonBed("alone", { sender, receiver, schema: SCHEMA, extraArgs });
  const { to } = bed;

  await t.step("a violated constraint", async () => {
    await to.client.query(REFUSE);
    for (let id = 1; id <= KEPT; id++) await bed.from.client.query(POISON(id));
    await plainArrives(bed, await writePlain(bed));
    const ids = (await quarantineOf(bed)).map(({ id }) => Number(id));
    assert.equal(ids.length, KEPT);
    assert.deepEqual(ids, ids.toSorted((a, b) => a - b));
  });

  await t.step("a list in pages", async () => {
    const ids: string[] = [];
    for (let query = "?limit=5"; query !== "";) {
      const { json } = await to.node.api("GET", `/v1/quarantine${query}`);
      ids.push(...json.items.map(({ id }: { id: string }) => id));
      query = json.next_cursor === null ? "" : `?limit=5&cursor=${json.next_cursor}`;
    }
    assert.deepEqual(ids, (await quarantineOf(bed)).map(({ id }) => id));
  });

  await t.step("not a table that is missing", async () => {
    await to.client.query("ALTER TABLE r RENAME TO away");
    const { after } = await writeBetween(bed, "INSERT INTO r VALUES (1)");
    await blockedAt(bed);
    await to.client.query("ALTER TABLE away RENAME TO r");
    await plainArrives(bed, after);
    assert.equal((await quarantineOf(bed)).length, KEPT);
  });

  await t.step("not what passes by itself", async () => {
    await to.client.query(`CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '53100'; END $$;
      CREATE TRIGGER no_room BEFORE INSERT ON r FOR EACH ROW EXECUTE PROCEDURE no_room();
      ALTER TABLE r ENABLE ALWAYS TRIGGER no_room`);
    const { after } = await writeBetween(bed, "INSERT INTO r VALUES (2)");
    await eventually(
      "the error to be met",
      async () => (await inboundOf(bed)).last_error?.kind === "transient",
    );
    await to.client.query("DROP TRIGGER no_room ON r");
    await plainArrives(bed, after);
    assert.equal((await quarantineOf(bed)).length, KEPT);
    await sameTables(bed, "r");
  });
});
