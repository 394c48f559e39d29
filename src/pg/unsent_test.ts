/** Rows as other nodes ask for them, and those that are awaited, on the oldest server and the newest. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { eventually } from "../../tests/support/poll.ts";
import { type PostgresMajor, startPostgres } from "../../tests/support/postgres.ts";
import { queryWith } from "./query.ts";
import { ensureSchema } from "./schema.ts";
import { openClient } from "./client.ts";
import { parsePostgresUrl } from "./target.ts";
import { countUnsent, forgetUnsent, giveUpUnsent, readPublishedRow, readUnsent } from "./unsent.ts";

for (const major of [10, 18] satisfies PostgresMajor[]) {
  Deno.test(`rows are read as they are asked for, on PostgreSQL ${major}`, async () => {
    await using server = await startPostgres({ major });
    await server.createDatabase("app");
    const client = await openClient(await parsePostgresUrl(server.url("app"), {}), {
      applicationName: "test",
    });
    const query = queryWith(client);
    await ensureSchema(query);
    await query(`INSERT INTO mmlite.node (cluster, name, incarnation)
        VALUES ('test', 'fra', '00000000-0000-0000-0000-000000000000');
      CREATE TABLE public.t ("Größe" text, id int, v bytea, n int, PRIMARY KEY (id, "Größe"));
      CREATE TABLE public.hidden (id int PRIMARY KEY);
      CREATE PUBLICATION mmlite FOR TABLE public.t`);
    await query("INSERT INTO public.t VALUES ('ü', 1, '\\xff00', NULL)");
    const serverVersion = major * 10_000;
    const read = (value: string, { name = "t", maxBytes = 1_000 } = {}) =>
      readPublishedRow(query, {
        schema: "public",
        name,
        key: [{ column: "id", value: Buffer.from("1") }, { column: "Größe", value: Buffer.from(value) }],
      }, { serverVersion, maxBytes });
    const row = await read("ü");
    assert(row.kind === "row");
    assert.deepEqual(row.columns, ["Größe", "id", "v", "n"]);
    assert.deepEqual(row.values.map((value) => value && Buffer.from(value).toString()), [
      "ü",
      "1",
      "\\xff00",
      null,
    ]);
    assert.equal(row.node, "fra");
    const [{ at }] = await query("SELECT pg_xact_commit_timestamp(xmin)::text AS at FROM public.t");
    assert.equal(Date.parse(at!) - 946_684_800_000, Number(row.at / 1000n));
    assert.equal((await read("u")).kind, "none");
    assert.equal((await read("ü", { maxBytes: 5 })).kind, "withheld");
    assert.equal((await read("ü", { name: "hidden" })).kind, "withheld");

    // What waits for a standby is on its way to the others already.
    await query("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    await query("SELECT pg_reload_conf()");
    const waiting = await server.connect("app");
    const change = waiting.query(`UPDATE public.t SET "Größe" = 'ö'`);
    change.catch(() => {});
    const waiter = await eventually("a commit to wait for a standby", async () => {
      const [found] = await query(
        "SELECT backend_xid, pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'",
      );
      return found;
    });
    const [committed] = await query(
      `SELECT ((extract(epoch FROM pg_xact_commit_timestamp('${waiter.backend_xid}') - timestamptz '2000-01-01 00:00:00Z')
        * 1000000)::bigint)::text AS at`,
    );
    // Long enough for what has its time, and is not waiting yet.
    await eventually("some time to pass", async () => {
      const [{ passed }] = await query(
        `SELECT clock_timestamp() > pg_xact_commit_timestamp('${waiter.backend_xid}') + interval '3 s' AS passed`,
      );
      return passed === "t";
    });
    const unseen = await read("ö");
    assert.equal(unseen.kind, "none");
    assert.ok(unseen.at < BigInt(committed.at!), "what it does not know of");
    await query(`SELECT pg_cancel_backend(${waiter.pid})`);
    await change;
    assert.equal((await read("ö")).kind, "row");
    const gone = await read("ü");
    assert.ok(gone.kind === "none" && gone.at > BigInt(committed.at!), "what it knows of");
    await query("ALTER SYSTEM RESET synchronous_standby_names");
    await query("SELECT pg_reload_conf()");
    await eventually("the setting to be read", async () => {
      const [{ none }] = await query("SELECT current_setting('synchronous_standby_names') = '' AS none");
      return none === "t";
    });

    await query(`SELECT mmlite.note_unsent('ams', 'public', 't', '{id,Größe}', '{1,ü}', hash, '2026-01-01Z'),
        mmlite.note_unsent('ams', 'public', 't', '{id,Größe}', '{1,ü}', hash, '2026-01-02Z')
      FROM mmlite.key_hash('public.t', '{ü,1}') hash`);
    assert.deepEqual(await readUnsent(query, "par", 10), []);
    assert.deepEqual([...await countUnsent(query)], [["ams", 1]]);
    const [wanted, ...others] = await readUnsent(query, "ams", 10);
    assert.deepEqual(others, []);
    assert.deepEqual(wanted.key.map(({ column, value }) => [column, Buffer.from(value).toString()]), [
      ["id", "1"],
      ["Größe", "ü"],
    ]);
    const until = BigInt(Date.UTC(2026, 0, 1) - 946_684_800_000) * 1000n;
    await forgetUnsent(query, "ams", { ...wanted, until, isLost: false });
    assert.equal((await readUnsent(query, "ams", 10)).length, 1, "a later version is awaited");
    await giveUpUnsent(query, "ams");
    assert.deepEqual(await readUnsent(query, "ams", 10), []);
    assert.equal((await query("SELECT 1 AS one FROM mmlite.diverged")).length, 1);
    await waiting.end();
    await client.end();
  });
}

Deno.test("a server that keeps no commit timestamps gives no row away", async () => {
  await using server = await startPostgres({ major: 18, settings: { track_commit_timestamp: "off" } });
  const client = await openClient(await parsePostgresUrl(server.url("postgres"), {}), {
    applicationName: "test",
  });
  const query = queryWith(client);
  await ensureSchema(query);
  await query("CREATE TABLE public.t (id int PRIMARY KEY)");
  await query("INSERT INTO public.t VALUES (1)");
  await query("CREATE PUBLICATION mmlite FOR TABLE public.t");
  const want = { schema: "public", name: "t", key: [{ column: "id", value: Buffer.from("1") }] };
  const answer = await readPublishedRow(query, want, { serverVersion: 180_000, maxBytes: 1_000 });
  assert.equal(answer.kind, "withheld");
  await client.end();
});

Deno.test("a partition's row is of the version that is noted under the name of the root", async () => {
  await using server = await startPostgres({ major: 12 });
  const client = await openClient(await parsePostgresUrl(server.url("postgres"), {}), {
    applicationName: "test",
  });
  const query = queryWith(client);
  await ensureSchema(query);
  await query("CREATE TABLE public.r (a int, b int, PRIMARY KEY (a, b)) PARTITION BY RANGE (a)");
  await query("CREATE TABLE public.r1 (b int NOT NULL, a int NOT NULL)");
  await query("ALTER TABLE public.r ATTACH PARTITION public.r1 FOR VALUES FROM (0) TO (9)");
  await query("CREATE PUBLICATION mmlite FOR TABLE public.r1");
  await query(`WITH row AS (INSERT INTO public.r VALUES (1, 2))
    INSERT INTO mmlite.apply_group SELECT txid_current(), 'ams', '2026-01-01Z', '2026-01-02Z',
      int8send(mmlite.key_hash('public.r', '{1,2}')) || timestamptz_send('2026-01-01Z')`);
  const key = [["a", "1"], ["b", "2"]].map(([column, text]) => ({ column, value: Buffer.from(text) }));
  const want = { schema: "public", name: "r1", key };
  const answer = await readPublishedRow(query, want, { serverVersion: 120_000, maxBytes: 1_000 });
  assert.equal(answer.at, BigInt(Date.UTC(2026, 0, 1) - 946_684_800_000) * 1000n);
  await client.end();
});
