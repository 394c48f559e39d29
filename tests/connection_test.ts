/** Connecting to real servers and keeping slots on them: what is refused, and what it says. */
import assert from "node:assert/strict";
import type { ErrorKind, MmliteError } from "../src/errors.ts";
import { closeClient, openClient } from "../src/pg/client.ts";
import { openControl } from "../src/pg/control.ts";
import { type Query, queryWith } from "../src/pg/query.ts";
import { createSlot, dropSlot, readSlots, requireSlot } from "../src/pg/slots.ts";
import { preferSocket, preferTcp } from "../src/pg/socket.ts";
import { parsePostgresUrl } from "../src/pg/target.ts";
import { eventually } from "./support/poll.ts";
import { freePort } from "./support/scratch.ts";
import { startPostgres } from "./support/postgres.ts";
import { drain, makeSlotBed } from "./support/slot_bed.ts";

async function refusal(url: string, { replication = false } = {}): Promise<MmliteError> {
  const target = await parsePostgresUrl(url, {});
  try {
    await closeClient(await openClient(target, { applicationName: "mmlite test", replication }));
  } catch (error) {
    assert.doesNotMatch((error as Error).message, /hush/);
    return error as MmliteError;
  }
  throw new Error(`connected to ${url}`);
}

Deno.test("a connection that is refused says why and what to do", async () => {
  await using server = await startPostgres({ major: 18, authMethod: "scram-sha-256" });
  await server.sql("postgres", "CREATE ROLE app LOGIN PASSWORD 'right'; CREATE ROLE \"no login\"");
  const tcp = (password?: string) => server.url("postgres", { tcp: true, user: "app", password });
  const cases: [string, ErrorKind, RegExp][] = [
    [`postgres://app:hush@127.0.0.1:${freePort()}/postgres`, "unreachable", /connection refused/],
    [`postgres:///app?host=/nonexistent`, "unreachable", /app at \/nonexistent:5432: no such socket/],
    [`postgres://app:hush@no-such-host.invalid/app`, "unreachable", /no-such-host.invalid:5432/],
    [tcp("hush"), "permission", /password authentication failed for user "app"/],
    [tcp(), "permission", /the server asks user "app" for a password/],
    [server.url("nowhere"), "config", /database "nowhere" does not exist/],
    [`${tcp("right")}?sslmode=require`, "config", /the server does not speak TLS/],
  ];
  for (const [url, kind, message] of cases) {
    const error = await refusal(url);
    assert.equal(error.kind, kind, error.message);
    assert.match(error.message, message);
  }
  const error = await refusal(tcp("right"), { replication: true });
  assert.equal(error.kind, "permission");
  assert.match(error.hint, /ALTER ROLE … REPLICATION/);
});

Deno.test("values come as the text that the server sent, under the session's settings", async () => {
  await using server = await startPostgres({ major: 10 });
  const target = await parsePostgresUrl(server.url(), {});
  const client = await openClient(target, {
    applicationName: "mmlite test",
    settings: { application_name: "with blank \\ and backslash", datestyle: "SQL, DMY" },
  });
  const [row] = await queryWith(client)(
    "SELECT 1.50::numeric AS n, true AS b, date '2020-01-31' AS d, NULL AS z, '\\x00ff'::bytea AS y, $1::text AS p",
    ["é"],
  );
  assert.deepEqual({ ...row }, { n: "1.50", b: "t", d: "31/01/2020", z: null, y: "\\x00ff", p: "é" });
  await closeClient(client);
});

Deno.test("a loopback address gives way to the socket of the same server", async () => {
  await using server = await startPostgres({ major: 18 });
  const tcp = await parsePostgresUrl(server.url("postgres", { tcp: true }), {});
  assert.deepEqual(await preferSocket(tcp), { ...tcp, host: server.host });
  const socket = await parsePostgresUrl(server.url(), {});
  assert.equal(await preferSocket(socket), socket);
  await server.restart({ unix_socket_directories: "" });
  assert.equal(await preferSocket(tcp), tcp);
});

Deno.test("a socket gives way to the loopback of the same server, if that lets the same role in", async () => {
  await using server = await startPostgres({ major: 18 });
  const socket = await parsePostgresUrl(server.url(), {});
  assert.deepEqual(await preferTcp(socket), { ...socket, host: "127.0.0.1" });
  const tcp = await parsePostgresUrl(server.url("postgres", { tcp: true }), {});
  assert.equal(await preferTcp(tcp), tcp);
  await server.restart({ listen_addresses: "" });
  assert.equal(await preferTcp(socket), socket);
});

for (const major of [10, 18] as const) {
  Deno.test(`PostgreSQL ${major} asks whether the other end of a connection lives`, async () => {
    await using server = await startPostgres({ major });
    const asks = async (tcp: boolean) => {
      const target = await parsePostgresUrl(server.url("postgres", { tcp }), {});
      const client = await openClient(target, { applicationName: "mmlite test" });
      const control = openControl(target, "mmlite test");
      const sql = `SELECT concat_ws(' ', current_setting('tcp_keepalives_idle'),
        current_setting('tcp_keepalives_interval'), current_setting('tcp_keepalives_count')) AS seconds`;
      const rows = [...await queryWith(client)(sql), ...await control.run("look", sql)];
      await closeClient(client);
      await control.close();
      return rows.map(({ seconds }) => seconds);
    };
    assert.deepEqual(await asks(true), ["10 5 3", "10 5 3"]);
    assert.deepEqual(await asks(false), ["0 0 0", "0 0 0"]);
  });
}

Deno.test("functions that users made are never called in place of PostgreSQL's own", async () => {
  await using server = await startPostgres({ major: 18 });
  await server.sql(
    "postgres",
    `CREATE TABLE called (function text);
     CREATE FUNCTION public.concat_ws(text, text, timestamptz, bigint) RETURNS text LANGUAGE sql
       AS $$ INSERT INTO public.called VALUES ('concat_ws'); SELECT 'x'::text $$;
     CREATE FUNCTION public.to_jsonb(pg_catalog.pg_replication_slots) RETURNS jsonb LANGUAGE sql
       AS $$ INSERT INTO public.called VALUES ('to_jsonb'); SELECT '{}'::jsonb $$;
     CREATE FUNCTION public.pg_backend_pid() RETURNS int LANGUAGE sql
       AS $$ INSERT INTO public.called VALUES ('pid'); SELECT 1 $$`,
  );
  const tcp = await parsePostgresUrl(server.url("postgres", { tcp: true }), {});
  assert.equal((await preferSocket(tcp)).host, server.host);
  const client = await openClient(tcp, { applicationName: "mmlite test" });
  const query = queryWith(client);
  await createSlot(query, { target: tcp, name: "mmlite_x" });
  await requireSlot(query, "mmlite_x");
  await closeClient(client);
  assert.deepEqual(await server.sql("postgres", "SELECT * FROM called"), []);
});

for (const major of [10, 13, 18] as const) {
  Deno.test(`slots of PostgreSQL ${major} are made, made anew, looked at, and dropped while in use`, async () => {
    await using server = await startPostgres({ major, settings: { max_replication_slots: "2" } });
    await using bed = await makeSlotBed(server, {
      name: "app",
      schema: "CREATE TABLE t (id int PRIMARY KEY)",
    });
    const { query, slot, target } = bed;
    const create = (name = slot) => createSlot(query, { target, name });
    await assert.rejects(requireSlot(query, slot), { kind: "slot_lost" });
    await bed.publish();
    const made = await create();
    assert.equal(await requireSlot(query, slot), made);
    // One that is left over holds transactions that are in the tables already.
    await query("INSERT INTO t VALUES (1)");
    const madeAnew = await create();
    assert.ok(madeAnew > made);
    assert.equal(await requireSlot(query, slot), madeAnew);

    const ended = drain(await bed.source());
    const [state] = await readSlots(query, "mmlite_");
    assert.equal(state.lost, false);
    assert.ok(state.activePid !== null && state.retainedBytes >= 0n);
    const inUse = { kind: "transient", message: new RegExp(`PID ${state.activePid}`) } as const;
    await assert.rejects(create(), inUse);
    assert.equal(state.walStatus, major >= 13 ? "reserved" : null);
    await dropSlot(query, slot);
    await dropSlot(query, slot);
    assert.equal((await ended as MmliteError).kind, "unreachable");
    assert.deepEqual(await readSlots(query, "mmlite_"), []);

    await query("SELECT pg_create_physical_replication_slot('mmlite_x')");
    await assert.rejects(create("mmlite_x"), { kind: "conflict", message: /physical/ });
    await create();
    await assert.rejects(create("mmlite_y"), { kind: "transient", hint: /max_replication_slots/ });
  });
}

Deno.test("a slot that lost its WAL is named so, before and while it is read", async () => {
  const settings = { max_slot_wal_keep_size: "1MB", min_wal_size: "32MB", max_wal_size: "32MB" };
  await using server = await startPostgres({ major: 18, settings });
  await using bed = await makeSlotBed(server, { name: "app", schema: "CREATE TABLE t (id int PRIMARY KEY)" });
  await bed.ensureSlot();
  await bed.query(
    "SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000000)) FROM generate_series(1, 40)",
  );
  for (let round = 0; round < 3; round++) {
    await bed.query("SELECT pg_switch_wal()");
    await bed.query("CHECKPOINT");
  }
  assert.equal((await readSlots(bed.query, bed.slot))[0].lost, true);
  await assert.rejects(requireSlot(bed.query, bed.slot), { kind: "slot_lost", message: /removed the WAL/ });
  await assert.rejects(bed.source(), { kind: "slot_lost" });
});

Deno.test("a slot that is still being created is not taken for a lost one", async () => {
  await using server = await startPostgres({ major: 18 });
  await using bed = await makeSlotBed(server, { name: "app", schema: "CREATE TABLE t (id int PRIMARY KEY)" });
  const writer = await server.connect("app");
  await writer.query("BEGIN; INSERT INTO t VALUES (1)");
  const maker = await openClient(bed.target, { applicationName: "mmlite test" });
  const create = (query: Query) => createSlot(query, { target: bed.target, name: bed.slot });
  const made = create(queryWith(maker));
  await eventually("the slot to show", async () => (await readSlots(bed.query, bed.slot)).length === 1);
  for (const look of [() => requireSlot(bed.query, bed.slot), () => create(bed.query)]) {
    await assert.rejects(look(), {
      kind: "transient",
      message: /process \d+ is creating it/,
    });
  }
  await writer.query("ROLLBACK");
  assert.equal(await made, await requireSlot(bed.query, bed.slot));
  await writer.end();
  await closeClient(maker);
});

for (const major of [10, 18] as const) {
  Deno.test(`a slot of PostgreSQL ${major} begins with no transaction that ran, though another slot is read`, async () => {
    await using server = await startPostgres({ major });
    await using bed = await makeSlotBed(server, {
      name: "app",
      schema: "CREATE TABLE t (id int PRIMARY KEY)",
    });
    const { query, target } = bed;
    await bed.ensureSlot();
    const reading = drain(await bed.source());
    const writer = await server.connect("app");
    for (let round = 0; round < 8; round++) {
      await writer.query(`BEGIN; INSERT INTO t VALUES (${2 * round})`);
      const made = createSlot(query, { target, name: "other" });
      await eventually("the slot to show", async () => (await readSlots(bed.query, "other")).length === 1);
      await writer.query(`INSERT INTO t VALUES (${2 * round + 1}); COMMIT`);
      await made;
      const { rows: [{ inserts }] } = await writer.query(
        `SELECT count(*)::int AS inserts FROM pg_logical_slot_get_binary_changes('other', NULL, NULL,
           'proto_version', '1', 'publication_names', 'mmlite') WHERE get_byte(data, 0) = ascii('I')`,
      );
      assert.equal(inserts, 0, "it was made before the transaction ended");
      await dropSlot(query, "other");
    }
    await writer.end();
    await dropSlot(query, bed.slot);
    await reading;
  });
}

Deno.test("a slot that waits too long for a transaction is given up", async () => {
  await using server = await startPostgres({ major: 13 });
  await using bed = await makeSlotBed(server, { name: "app", schema: "CREATE TABLE t (id int PRIMARY KEY)" });
  const writer = await server.connect("app");
  await writer.query("BEGIN; INSERT INTO t VALUES (1)");
  await assert.rejects(createSlot(bed.query, { target: bed.target, name: bed.slot, timeoutMs: 500 }), {
    kind: "transient",
    message: /running transactions did not end within 0.5 s/,
  });
  assert.deepEqual(await readSlots(bed.query, bed.slot), []);
  await writer.end();
});

Deno.test("a server without logical decoding says which setting to change", async () => {
  await using server = await startPostgres({ major: 18, settings: { wal_level: "replica" } });
  await using bed = await makeSlotBed(server, { name: "app", schema: "CREATE TABLE t (id int PRIMARY KEY)" });
  await assert.rejects(bed.ensureSlot(), { kind: "server_setting", hint: /wal_level = logical/ });
});
