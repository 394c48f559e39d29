/**
 * What people, programs and strangers get wrong about a running node: each an RFC 9457 body with a remedy, or a
 * refusal in frames; nothing is lost by it, nothing stays behind, and replication goes on.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:http2";
import { parseLsn } from "../src/lsn.ts";
import { CONTENT_TYPE, FRAME_PATHS } from "../src/http/session_options.ts";
import { encodeFrame } from "../src/wire/codec.ts";
import { type Frame, type Hello, PROTOCOL_VERSION } from "../src/wire/frame.ts";
import { FrameDecoder } from "../src/wire/frame_decoder.ts";
import { httpRequest } from "./support/http_request.ts";
import { type ApiAnswer, connectAll, type Mmlite, startMmlite } from "./support/mmlite.ts";
import { eventually } from "./support/poll.ts";
import { type PostgresServer, type ServerSettings, startPostgres } from "./support/postgres.ts";
import { freePort } from "./support/scratch.ts";

const SCHEMA = `CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE keyless (v text);
  CREATE TABLE "o'd ""d" (id int PRIMARY KEY)`;
const ROW_VALUE = "rOw-value-3";

interface World extends AsyncDisposable {
  readonly server: PostgresServer;
  /** A node on a database of its own. */
  start(name: string, options?: { database?: string; args?: string[]; tables?: string[] }): Promise<Mmlite>;
}

async function openWorld(settings?: ServerSettings): Promise<World> {
  await using stack = new AsyncDisposableStack();
  const server = stack.use(await startPostgres({ major: 18, settings }));
  const owned = stack.move();
  return {
    server,
    start: async (name, { database = name, args, tables } = {}) => {
      await server.createDatabase(database);
      await server.sql(database, SCHEMA);
      const postgres = server.url(database);
      return owned.use(await startMmlite({ name, postgres, extraArgs: args, tables }));
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Fails unless the answer is a problem of this status and kind, with a remedy, that says this. */
function assertProblem({ status, json }: ApiAnswer, expected: [number, string], ...says: RegExp[]): void {
  const text = JSON.stringify(json);
  assert.deepEqual([status, json?.kind], expected, text);
  assert.deepEqual([json.type, json.status], [`urn:mmlite:problem:${json.kind}`, status]);
  assert.ok(json.title && json.detail && json.hint, text);
  for (const one of says) assert.match(`${json.detail}\n${json.hint}`, one);
}

const put = (node: Mmlite, name: string, url: unknown) => node.api("PUT", `/v1/peers/${name}`, { url });

/** The slots of a server and the peers of a database, removed ones too. */
async function leftOver(server: PostgresServer, database: string): Promise<unknown> {
  const [row] = await server.sql(
    database,
    `SELECT (SELECT json_agg(slot_name) FROM pg_replication_slots) AS slots,
      (SELECT json_agg(name) FROM mmlite.peer) AS peers`,
  );
  return row;
}

/** Fails unless a row written on one node arrives on the other. */
async function assertReplicates(server: PostgresServer, from: string, to: string): Promise<void> {
  const [{ id }] = await server.sql(
    from,
    "INSERT INTO t SELECT coalesce(max(id), 0) + 1, 'x' FROM t RETURNING id",
  );
  const look = async () => (await server.sql(to, "SELECT FROM t WHERE id = $1", [id])).length === 1;
  await eventually(`row ${id} of ${from} in ${to}`, look);
}

Deno.test("a peer that is this node, or a stranger, is refused, and nothing of it stays", async () => {
  await using world = await openWorld();
  const { server } = world;
  const [a, b, other, namesake] = await Promise.all([
    world.start("a"),
    world.start("b"),
    world.start("c", { args: ["--cluster", "other"] }),
    world.start("a", { database: "namesake" }),
  ]);
  assertProblem(await put(a, "a", b.peerUrl), [409, "conflict"], /that is this node itself/);
  assertProblem(await put(a, "x", a.peerUrl), [409, "conflict"], /is this node's own address/);
  const localhost = a.peerUrl.replace("127.0.0.1", "localhost");
  assertProblem(
    await put(a, "x", localhost),
    [409, "conflict"],
    /this node itself/,
    /address of the other node/,
  );
  assertProblem(await put(a, "c", other.peerUrl), [409, "fenced"], /cluster "other"/, /same --cluster/);
  assertProblem(await put(a, "x", b.peerUrl), [409, "fenced"], /it means node "x", and this is "b"/);
  assertProblem(await put(a, "x", namesake.peerUrl), [409, "fenced"], /both nodes are called "a"/);
  for (const database of ["a", "b", "c", "namesake"]) {
    assert.deepEqual(await leftOver(server, database), { slots: null, peers: null });
  }
  await connectAll([a, b]);
  assertProblem(await put(a, "x", b.peerUrl), [409, "conflict"], /is already peer "b"/);
  assert.equal((await put(a, "b", b.peerUrl)).status, 200);
  await assertReplicates(server, "a", "b");
});

Deno.test("an address where no mmlite answers is named in the peer's state, and can be corrected", async () => {
  await using world = await openWorld();
  const { server } = world;
  const [a, b] = await Promise.all([world.start("a", { args: ["--insecure"] }), world.start("b")]);
  await using web = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    () => new Response("hi"),
  );
  const cases: [url: string, says: RegExp][] = [
    [`http://127.0.0.1:${server.port}`, /(closed|HTTP\/2).*not its control API or another program/],
    [`http://127.0.0.1:${web.addr.port}`, /not mmlite.*not its control API or another program/],
    [b.apiUrl, /(closed|HTTP\/2).*not its control API or another program/],
    [`http://127.0.0.1:${freePort()}`, /nothing listens there/],
    ["http://no-such-host.invalid:7432", /host name is unknown/],
  ];
  for (const [url, says] of cases) {
    const { status, json } = await put(a, "b", url);
    assert.ok(status < 300, JSON.stringify(json));
    await eventually(`${url} to be explained`, async () => {
      const { state, last_error } = (await a.api("GET", "/v1/peers/b")).json;
      assert.deepEqual([state, last_error.kind], ["backoff", "unreachable"]);
      assert.match(`${last_error.message} ${last_error.hint}`, says);
      return true;
    });
  }
  const added = await a.cli("peers", "add", "b", "fra:7432");
  assert.equal(added.code, 64);
  assert.equal(added.stderr.match(/\/url/g)?.length, 1, added.stderr);
  await put(a, "b", b.peerUrl);
  await assertReplicates(server, "a", "b");
  await eventually("the table to show no old error", async () => {
    const { code, stdout } = await a.cli("status");
    assert.deepEqual([code, /hint/.test(stdout.split("PEER")[1])], [0, false], stdout);
    return true;
  });
});

Deno.test("a request that is wrong is told where", async () => {
  await using world = await openWorld();
  const node = await world.start("a");
  const bad = [422, "invalid_input"] as [number, string];
  for (const url of ["fra:7432", "http://", "http://u:p@h:1", "http://h:1/x", "http://h:99999", "", 7]) {
    assertProblem(await put(node, "b", url), bad, /\/url: /);
  }
  const https = await put(node, "b", "https://h:1");
  assertProblem(https, [422, "config"], /no certificate to speak TLS with/, /mmlite cert ca/);
  assertProblem(await node.api("PUT", "/v1/peers/b", []), bad, /expected object/);
  assertProblem(await node.api("PUT", "/v1/peers/b", { urll: "http://h:1" }), bad, /Did you mean "url"/);
  for (const name of ["B", "ü", "x".repeat(41), "x y", "x'y", "x\0", "x/y", "-x"]) {
    assertProblem(await put(node, encodeURIComponent(name), "http://h:1"), bad, /\/name: expected 1 to 40/);
  }
  for (const path of ["/v1/peers/zzz", "/v1/peers/zzz/pause", "/v1/peers/zzz/retry"]) {
    const answer = await node.api(path.endsWith("zzz") ? "DELETE" : "POST", path);
    assertProblem(answer, [404, "not_found"], /Cannot find peer "zzz"/, /mmlite peers list/);
  }
  const skip = await node.api("POST", "/v1/peers/zzz/skip", { lsn: "0/1" });
  assertProblem(skip, [404, "not_found"], /Cannot find peer "zzz"/, /mmlite peers list/);
  assertProblem(await node.api("POST", "/v1/peers/zzz/skip", { lsn: 1 }), bad, /\/lsn: /);
  for (const id of ["1", "x", "9".repeat(19), "0x1"]) {
    const answer = await node.api("POST", `/v1/quarantine/${id}/retry`);
    assertProblem(answer, [404, "not_found"], /in quarantine: there is none/, /mmlite quarantine list/);
  }
  assertProblem(await node.api("GET", "/v1/quarantine?limit=0"), bad, /limit/);
  assertProblem(await node.api("POST", "/v1/unknown"), [404, "not_found"], /no such path/, /openapi\.json/);
  assertProblem(await node.api("PATCH", "/v1/peers/b"), [405, "usage"], /takes GET, HEAD, PUT, DELETE/);
  assertProblem(await node.api("GET", "/v1/tables/public.zzz"), [404, "not_found"], /public\.zzz/);
  assertProblem(await node.api("GET", "/v1/tables/zzz"), [400, "invalid_input"], /expected SCHEMA\.TABLE/);
  assert.deepEqual(await leftOver(world.server, "a"), { slots: null, peers: null });

  const send = (headers: Record<string, string>, body = '{"url":"http://h:1"}') =>
    httpRequest({
      to: { port: Number(new URL(node.apiUrl).port) },
      method: "PUT",
      path: "/v1/peers/b",
      headers,
      body,
    });
  const json = { "content-type": "application/json" };
  const host = new URL(node.apiUrl).host;
  assertProblem(await send({ ...json, host }, "{"), [400, "invalid_input"], /it is not JSON/);
  assertProblem(
    await send({ host, "content-type": "text/plain" }),
    [415, "invalid_input"],
    /application\/json/,
  );
  assertProblem(await send({ ...json, host: "evil.example" }), [403, "forbidden"], /evil\.example/);
  assertProblem(
    await send({ ...json, host, origin: "http://evil.example" }),
    [403, "forbidden"],
    /evil\.example/,
  );
  assertProblem(await send({ ...json, host }, `{"url":"${"x".repeat(2_000_000)}"}`), [413, "invalid_input"]);
  assert.deepEqual(await leftOver(world.server, "a"), { slots: null, peers: null });
});

Deno.test("steering twice does no harm, and names that differ in - and _ alone are one", async () => {
  await using world = await openWorld();
  const [a, b] = await Promise.all([world.start("a"), world.start("b-1")]);
  await connectAll([a, b]);
  assertProblem(
    await put(a, "b_1", "http://127.0.0.1:1"),
    [409, "conflict"],
    /taken by "b-1"/,
    /more than - and _/,
  );
  for (const verb of ["retry", "pause", "pause", "retry"]) {
    assert.equal((await a.api("POST", `/v1/peers/b-1/${verb}`)).status, 202);
  }
  assert.equal((await a.api("GET", "/v1/peers/b-1")).json.state, "paused");
  for (const verb of ["resume", "resume"]) {
    assert.equal((await a.api("POST", `/v1/peers/b-1/${verb}`)).status, 202);
  }
  await assertReplicates(world.server, "a", "b-1");
});

Deno.test("tables that cannot be replicated whole are named, the application goes on, no value is shown", async () => {
  await using world = await openWorld({ track_commit_timestamp: "off" });
  const { server } = world;
  const [a, b, none] = await Promise.all([
    world.start("a"),
    world.start("b"),
    world.start("c", { tables: ["sales.*", "public.nothing"] }),
  ]);
  await connectAll([a, b]);
  const keyless =
    `INSERT INTO keyless VALUES ('${ROW_VALUE}'); UPDATE keyless SET v = 'y'; DELETE FROM keyless`;
  await server.sql("a", keyless);
  await eventually(
    "the insert to arrive",
    async () => (await server.sql("b", "SELECT FROM keyless")).length === 1,
  );

  const { json: status } = await a.api("GET", "/v1/status");
  const problems = status.problems.map(({ message }: { message: string }) => message).join("\n");
  assert.match(
    problems,
    /^Cannot settle conflicts by version, as track_commit_timestamp is off: .*apply_remote/m,
  );
  assert.match(problems, /^Table public\.keyless has no usable key: only its inserts/m);
  const tables = await a.cli("tables", "list");
  assert.match(tables.stdout, /^public\.keyless +insert_only +- .*Add a primary key/m);
  assert.match(tables.stdout, /^public\."o'd ""d" +replicated +id/m);
  assert.match(
    (await none.cli("status")).stdout,
    /! Cannot replicate anything: no table matches sales\.\*, public\.nothing/,
  );

  await server.sql("b", `ALTER TABLE t ADD CHECK (v <> '${ROW_VALUE}')`);
  await server.sql("a", `INSERT INTO t VALUES (1, '${ROW_VALUE}')`);
  await eventually(
    "the link to be blocked",
    async () => (await a.api("GET", "/v1/peers/b")).json.state === "blocked",
  );
  const shown = [
    (await a.cli("-v", "status")).stdout,
    JSON.stringify((await b.api("GET", "/v1/status")).json),
    await a.log(),
    await b.log(),
  ];
  assert.match(shown[0], /Cannot insert into "public\.t"[^]*mmlite peers retry/);
  for (const text of shown) assert.doesNotMatch(text, new RegExp(ROW_VALUE));
  await server.sql("b", "ALTER TABLE t DROP CONSTRAINT t_v_check");
  await a.api("POST", "/v1/peers/b/retry");
  await assertReplicates(server, "a", "b");
});

Deno.test("a server without room for another slot says which setting, and the peer is not there", async () => {
  await using world = await openWorld({ max_replication_slots: "1" });
  const node = await world.start("a");
  await put(node, "b", "http://127.0.0.1:1");
  assertProblem(
    await put(node, "c", "http://127.0.0.1:2"),
    [503, "transient"],
    /mmlite_c/,
    /max_replication_slots/,
  );
  assert.deepEqual(await leftOver(world.server, "a"), { slots: ["mmlite_b"], peers: ["b"] });
});

Deno.test("a server without room for origins or walsenders says so, and goes on once there is", async () => {
  await using world = await openWorld({ max_active_replication_origins: "0", max_wal_senders: "1" });
  const { server } = world;
  const [a, b] = await Promise.all([world.start("a"), world.start("b")]);
  await connectAll([a, b]);
  await eventually("both limits to be told", async () => {
    const { json } = await a.api("GET", "/v1/status");
    const text = JSON.stringify(json.peers) + JSON.stringify((await b.api("GET", "/v1/status")).json.peers);
    assert.match(text, /max_active_replication_origins/);
    return true;
  });
  await server.stop();
  await eventually("the database to be away", async () => {
    const { stdout } = await a.cli("status");
    assert.equal(stdout.match(/^! Cannot connect/gm)?.length, 1, stdout);
    return true;
  });
  const away = await put(a, "c", "http://127.0.0.1:1");
  assertProblem(away, [503, "unreachable"], /Cannot add peer "c"/, /Check that the server runs/);
  await server.start({ max_active_replication_origins: "10", max_wal_senders: "10" });
  for (const node of [a, b]) {
    await eventually(`${node.name} to go on`, async () => {
      for (const { name } of (await node.api("GET", "/v1/peers")).json.items) {
        await node.api("POST", `/v1/peers/${name}/retry`);
      }
      return (await node.api("GET", "/v1/peers")).json.items[0].state === "streaming";
    }, { intervalMs: 500 });
  }
  await assertReplicates(server, "a", "b");
  await assertReplicates(server, "b", "a");
});

/** Sends bytes to a peer port as one push; the frames that come back until it is over. */
async function push(node: Mmlite, bytes: Uint8Array, end = false): Promise<Frame[]> {
  const session = connect(node.peerUrl);
  session.on("error", () => {});
  const stream = session.request({
    ":method": "POST",
    ":path": FRAME_PATHS.push,
    "content-type": CONTENT_TYPE,
  });
  stream.on("error", () => {});
  const decoder = new FrameDecoder();
  const frames: Frame[] = [];
  stream.on("data", (chunk: Uint8Array) => {
    frames.push(...decoder.push(chunk));
    if (frames.some(({ kind }) => kind === "refusal")) stream.end();
  });
  const closed = once(stream, "close");
  stream.write(bytes);
  if (end) stream.end();
  await closed;
  session.destroy();
  return frames.filter(({ kind }) => kind !== "heartbeat");
}

function helloOf(changes: Partial<Hello> = {}): Hello {
  const identity = {
    cluster: "mmlite",
    node: "stranger",
    incarnation: crypto.randomUUID(),
    systemIdentifier: "1",
    timeline: 1,
    serverVersion: 180000,
    program: "0",
  };
  const zero = { slotLsn: parseLsn("0/1"), ackedLsn: null, walLsn: parseLsn("0/1") };
  return {
    kind: "hello",
    protocol: PROTOCOL_VERSION,
    identity,
    receiver: "a",
    url: null,
    ...zero,
    compression: [],
    policies: null,
    ...changes,
  };
}

Deno.test("whatever a stranger sends to the peer port is refused in a frame, and replication goes on", async () => {
  await using world = await openWorld();
  const [a, b] = await Promise.all([world.start("a"), world.start("b")]);
  await connectAll([a, b]);
  await assertReplicates(world.server, "b", "a");
  const hello = encodeFrame(helloOf());
  const tooLong = Uint8Array.of(0xff, 0xff, 0xff, 0xff, 4);
  const cases: [bytes: Uint8Array, kind: string, says: RegExp][] = [
    [new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"), "protocol", /^Cannot/],
    [crypto.getRandomValues(new Uint8Array(5000)).fill(0x7f, 0, 5), "protocol", /^Cannot/],
    [tooLong, "protocol", /4294967295|4294967294|too long|at most/],
    [Uint8Array.of(0, 0, 0, 3, 1, 0x7b, 0x7d), "protocol", /^Cannot/],
    [encodeFrame({ kind: "ack", endLsn: parseLsn("0/1") }), "protocol", /began with a ack frame/],
    [encodeFrame(helloOf({ protocol: 99 })), "refused", /speaks protocol 99, this node/],
    [encodeFrame(helloOf({ receiver: "z" })), "fenced", /means node "z", and this is "a"/],
  ];
  for (const [bytes, kind, says] of cases) {
    const [frame] = await push(a, bytes);
    assert.equal(frame?.kind, "refusal", String(says));
    if (frame.kind !== "refusal") continue;
    assert.equal(frame.errorKind, kind, frame.message);
    assert.match(frame.message, says);
    assert.ok(frame.hint);
  }
  const [chopped] = await push(a, hello.subarray(0, 20), true);
  assert.equal(chopped?.kind, "refusal");
  const peers = (await a.api("GET", "/v1/peers")).json.items.map(({ name }: { name: string }) => name);
  assert.deepEqual(peers, ["b"]);
  await assertReplicates(world.server, "b", "a");
  await assertReplicates(world.server, "a", "b");
});
