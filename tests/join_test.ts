/** Nodes that join by a token: from nothing to a mesh, and on through kills at every step. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createPrivateKey, X509Certificate } from "node:crypto";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { requestJoin } from "../src/http/join_client.ts";
import { decodeToken } from "../src/node/invite_token.ts";
import { createRequest } from "../src/pki/authority.ts";
import {
  type JoinPlace,
  makeDatabase,
  printedRunLine,
  runJoin,
  slotsOf,
  startJoinBed,
  startJoining,
  streaming,
} from "./support/join_bed.ts";
import { mmliteProgram } from "./support/mmlite.ts";
import { eventually, within } from "./support/poll.ts";
import { type PostgresServer, startPostgres } from "./support/postgres.ts";

/** Writes a row at each place, and waits until every place has all of them. */
async function converge(places: readonly JoinPlace[], firstId: number): Promise<void> {
  for (const [index, { server, database }] of places.entries()) {
    await server.sql(database, `INSERT INTO t VALUES (${firstId + index}, '${database}')`);
  }
  for (const { server, database } of places) {
    await eventually(`${database} to have every row`, async () => {
      const rows = await server.sql(database, `SELECT id FROM t WHERE id >= ${firstId} ORDER BY id`);
      return rows.length === places.length;
    });
  }
}

Deno.test("three nodes become a mesh by two invites, also while one of them is away", async () => {
  await using first = await startPostgres({ major: 18 });
  await using second = await startPostgres({ major: 14 });
  await using third = await startPostgres({ major: 10 });
  const [ams, fra, nyc] = [
    { server: first, database: "ams" },
    { server: second, database: "fra" },
    { server: third, database: "nyc" },
  ];
  await using bed = await startJoinBed({ server: first, name: "ams", cluster: "shop" });
  await makeDatabase(fra);
  await makeDatabase(nyc);
  await first.sql("ams", "CREATE TABLE s (id int); ALTER TABLE s REPLICA IDENTITY FULL");

  const tokenForFra = await bed.invite("--name", "fra");
  let command: readonly string[] = ["join", tokenForFra];
  await using joined = await startJoining(fra, () => command);
  for (const node of [bed.member, joined]) await streaming(node, 1);
  await converge([ams, fra], 1);
  const { json: { node } } = await joined.api("GET", "/v1/status");
  assert.deepEqual([node.name, node.cluster, node.insecure], ["fra", "shop", false]);
  const { json: { items: [invite] } } = await bed.member.api("GET", "/v1/invites");
  assert.deepEqual([invite.state, invite.name, invite.used_by], ["used", "fra", "fra"]);

  await joined.stop();
  const again = await runJoin(fra, [tokenForFra], { state: joined.stateDir });
  assert.deepEqual([again.code, again.stdout], [1, ""]);
  assert.match(again.stderr, /^error: Cannot join: this database is node "fra" of cluster "shop" already$/m);
  assert.match(again.stderr, /^hint: .*`mmlite run`/m);

  await first.sql("ams", "TRUNCATE t");
  const tokenForNyc = await bed.invite("--ttl", "10m");
  const state = join(bed.directory, "nyc");
  const refused = await runJoin(nyc, [tokenForNyc], { state });
  assert.equal(refused.code, 1, refused.stderr);
  assert.match(refused.stderr, /^Node "fra" does not keep yet .*: Cannot reach the peer .*ECONNREFUSED/m);
  assert.match(refused.stderr, /^error: Cannot join: what is committed on "fra" until this node is a peer/m);
  assert.match(refused.stderr, /^hint: .*join with --without fra$/m);
  assert.deepEqual([await slotsOf(first), await slotsOf(third)], [["mmlite_fra"], []]);
  await using last = await startJoining(nyc, () => ["join", "--without", "fra"], {
    extraArgs: ["--state", state],
  });
  command = await printedRunLine(joined);
  await joined.start();
  for (const node of [bed.member, joined, last]) await streaming(node, 2);
  await converge([ams, fra, nyc], 10);
  await last.stop();
  const line = await printedRunLine(last);
  assert.deepEqual(line.slice(0, 3), ["run", "--name", "nyc"]);
  assert.deepEqual(line.slice(line.indexOf("--cluster"), line.indexOf("--cluster") + 2), [
    "--cluster",
    "shop",
  ]);
  assert.deepEqual(line.slice(line.indexOf("--tables"), line.indexOf("--tables") + 2), [
    "--tables",
    "public.*",
  ]);
});

Deno.test("a host that nobody can dial joins, and both directions ride on its connection", async () => {
  await using first = await startPostgres({ major: 18 });
  await using second = await startPostgres({ major: 12 });
  const [ams, edge] = [{ server: first, database: "ams" }, { server: second, database: "edge-9" }];
  await using bed = await startJoinBed({ server: first, name: "ams" });
  await makeDatabase(edge);
  const token = await bed.invite("--name", "edge-9");
  await using joined = await startJoining(edge, () => ["join", token], {
    extraArgs: ["--advertise", "none"],
  });
  for (const node of [bed.member, joined]) await streaming(node, 1);
  assert.equal((await bed.member.api("GET", "/v1/peers/edge-9")).json.url, null);
  await converge([ams, edge], 1);

  await using third = await startPostgres({ major: 17 });
  const fra = { server: third, database: "fra" };
  await makeDatabase(fra);
  const refused = await runJoin(fra, [await bed.invite()], { state: join(bed.directory, "fra") });
  assert.equal(refused.code, 1, refused.stderr);
  assert.match(refused.stderr, /^Node "edge-9" cannot be dialled: run `mmlite peers add fra https:/m);
  assert.match(refused.stderr, /^error: Cannot join: what is committed on "edge-9" until/m);
  assert.deepEqual([await slotsOf(first), await slotsOf(third)], [["mmlite_edge_9"], []]);
});

Deno.test("a token in a file or on standard input joins, and is found nowhere afterwards", async () => {
  const settings = { log_statement: "all", log_min_messages: "debug1" };
  await using first = await startPostgres({ major: 18, settings });
  await using second = await startPostgres({ major: 18, settings });
  await using bed = await startJoinBed({ server: first, name: "ams" });
  const fra = { server: second, database: "fra" };
  await makeDatabase(fra);
  const token = await bed.invite();
  const file = join(bed.directory, "token");
  await Deno.writeTextFile(file, `${token}\n`, { mode: 0o644 });
  const readable = await runJoin(fra, ["--invite-file", file], { state: join(bed.directory, "fra") });
  assert.match(readable.stderr, /^error: Cannot use secret file .*every user may read/m);
  await Deno.chmod(file, 0o600);
  const both = await runJoin(fra, [token, "--invite-file", file], { state: join(bed.directory, "fra") });
  assert.deepEqual([both.code, both.stderr.includes(token)], [64, false]);
  // The first start reads the token that the shell hands it, the second one that of the file.
  let command: readonly string[] = ["join", "-"];
  await using joined = await startJoining(fra, () => command, { awaitReady: false });
  await joined.exit();
  assert.match(await joined.log(), /^error: Cannot read the token: it does not begin with mmlite1_$/m);
  command = ["join", "--invite-file", file];
  await joined.start();
  for (const node of [bed.member, joined]) await streaming(node, 1);

  const everything = [
    ...await Promise.all([bed.member.log(), joined.log(), first.log(), second.log()]),
    ...await Promise.all(
      [bed.member, joined].flatMap((node) =>
        ["/v1/status", "/v1/invites", "/v1/peers", "/metrics"].map(async (path) =>
          JSON.stringify((await node.api("GET", path)).json)
        )
      ),
    ),
    ...await Promise.all(
      [["ams", first], ["fra", second]].map(([database, server]) =>
        dump(server as PostgresServer, database as string)
      ),
    ),
    (await joined.cli("config", "show", "-o", "json")).stdout,
  ];
  const { secret } = decodeToken(token);
  const bytes = Buffer.from(secret, "base64url");
  const key = (await Deno.readTextFile(join(joined.stateDir, "tls/node-key.pem"))).split("\n")[1];
  for (const needle of [token, secret, bytes.toString("hex"), bytes.toString("base64"), key]) {
    assert.deepEqual(everything.filter((text) => text.includes(needle)), []);
  }
  for (const name of ["node-key.pem", "node.pem", "ca.pem"]) {
    const { mode } = await Deno.stat(join(joined.stateDir, "tls", name));
    assert.equal((mode! & 0o777).toString(8), name === "node-key.pem" ? "600" : "644");
  }
});

Deno.test("a token is read from standard input", async () => {
  await using first = await startPostgres({ major: 18 });
  await using bed = await startJoinBed({ server: first, name: "ams" });
  const [program, ...words] = mmliteProgram();
  const child = new Deno.Command(program, {
    args: [...words, "join", "-", "--name", "fra", "--postgres", "postgres:///nowhere?host=/nowhere"],
    stdin: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  // Not closed: the line's end is enough.
  await writer.write(new TextEncoder().encode(`${await bed.invite()}\n`));
  const { stderr } = await within("the join to fail", 20_000, child.output());
  await writer.close().catch(() => {});
  assert.match(new TextDecoder().decode(stderr), /^error: Cannot connect to nowhere at \/nowhere/m);
});

Deno.test("a certificate whose answer was lost is issued again, to the same key alone", async () => {
  await using first = await startPostgres({ major: 18 });
  await using bed = await startJoinBed({ server: first, name: "ams" });
  const { id, secret, urls } = decodeToken(await bed.invite());
  const authority = await Deno.readTextFile(join(bed.tls, "ca.pem"));
  const [one, other] = [await createRequest(), await createRequest()];
  const issue = (request: string, name = "fra") =>
    requestJoin(new URL(urls[0]), {
      material: { authorities: [authority] },
      peer: { cluster: "mmlite", node: "ams" },
      body: { step: "issue", id, secret, name, request },
      signal: new AbortController().signal,
    });
  for (let time = 0; time < 2; time++) {
    const { certificate } = await issue(one.request) as { certificate: string };
    assert.ok(new X509Certificate(certificate).checkPrivateKey(createPrivateKey(one.key)));
  }
  await assert.rejects(issue(other.request), {
    kind: "refused",
    message: /the invite was used by node "fra" at 20/,
  });
  await assert.rejects(issue(one.request, "nyc"), { kind: "refused", message: /was used by node "fra"/ });
  assert.deepEqual((await bed.member.api("GET", "/v1/peers")).json.items, []);
});

Deno.test("a join that is stopped on the way takes back what it registered", async () => {
  await using first = await startPostgres({ major: 18 });
  await using second = await startPostgres({ major: 18 });
  await using bed = await startJoinBed({ server: first, name: "ams" });
  const fra = { server: second, database: "fra" };
  await makeDatabase(fra);
  const token = await bed.invite();
  // The slot on this side waits for it.
  const holder = await second.connect("postgres");
  await holder.query("BEGIN; SELECT txid_current()");
  await using joined = await startJoining(fra, () => ["join", token], { awaitReady: false });
  await eventually("it to be registered", async () => (await joined.log()).includes("keeps from now on"));
  assert.deepEqual(await slotsOf(first), ["mmlite_fra"]);
  joined.signal("SIGTERM");
  await holder.end();
  assert.equal(await joined.exit(), 75);
  assert.deepEqual([await slotsOf(first), await slotsOf(second)], [[], []]);
  await joined.start();
  for (const node of [bed.member, joined]) await streaming(node, 1);
});

/** Every row of schema `mmlite`, as text. */
async function dump(server: PostgresServer, database: string): Promise<string> {
  const tables = await server.sql(
    database,
    "SELECT query_to_xml(format('SELECT * FROM mmlite.%I', tablename), true, true, '')::text AS rows " +
      "FROM pg_tables WHERE schemaname = 'mmlite'",
  );
  assert.ok(tables.length >= 5);
  return tables.map(({ rows }) => rows).join("\n");
}

/** What a join says when it has done one step more. */
const STEPS = [
  "shows the CA that the token names",
  "has signed the certificate",
  "keeps from now on",
  "tables are published",
  "Comparing",
  "They are equal",
  "has joined",
];

Deno.test("a join that is killed at any step goes on when it is run again", async (t) => {
  const rows = "INSERT INTO t SELECT g, 'before' FROM generate_series(1, 1000) g";
  await using first = await startPostgres({ major: 18 });
  await using bed = await startJoinBed({ server: first, name: "ams" });
  const ams = { server: first, database: "ams" };
  await first.sql("ams", rows);
  for (const [index, step] of STEPS.entries()) {
    await t.step(`after it said: ${step}`, async () => {
      await using second = await startPostgres({ major: 16 });
      const fra = { server: second, database: `fra${index}` };
      await makeDatabase(fra);
      await copyRows(ams, fra);
      const token = await bed.invite();
      let command: readonly string[] = ["join", token];
      await using joined = await startJoining(fra, () => command, { awaitReady: false });
      await eventually(`it to say "${step}"`, async () => (await joined.log()).includes(step), {
        intervalMs: 1,
      });
      await joined.kill();
      if (!existsSync(join(joined.stateDir, "join.json"))) command = await printedRunLine(joined);
      else {
        command = ["run", "--tables", "public.*"];
        await assert.rejects(joined.start(), /Cannot run node .*: its join through "ams" has not ended/);
        command = ["join", token];
      }
      await joined.start();
      for (const node of [bed.member, joined]) await streaming(node, 1);
      await converge([ams, fra], 10_000 + 10 * index);
      assert.equal((await bed.member.cli("peers", "remove", joined.name, "--force")).code, 0);
    });
  }
});

/** Makes table `t` of one place equal to that of another. */
async function copyRows(from: JoinPlace, to: JoinPlace): Promise<void> {
  const rows = await from.server.sql(from.database, "SELECT json_agg(t)::text AS rows FROM t");
  await to.server.sql(to.database, "TRUNCATE t");
  const insert = "INSERT INTO t SELECT * FROM json_populate_recordset(NULL::t, $1)";
  await to.server.sql(to.database, insert, [rows[0].rows]);
}

Deno.test("a host whose tables are empty gets the members' rows, in one command", async () => {
  await using first = await startPostgres({ major: 16 });
  await using second = await startPostgres({ major: 11 });
  const [ams, fra] = [{ server: first, database: "ams" }, { server: second, database: "fra" }];
  await using bed = await startJoinBed({ server: first, name: "ams" });
  await first.sql("ams", "INSERT INTO t SELECT g, 'before ' || g FROM generate_series(1, 20000) g");
  await makeDatabase(fra);
  const token = await bed.invite("--name", "fra");
  await using joined = await startJoining(fra, () => ["join", token]);
  await streaming(joined, 1);
  assert.match(await joined.log(), /The rows of "ams" are copied next/);
  const rows = async ({ server, database }: JoinPlace) =>
    await server.sql(
      database,
      "SELECT count(*)::int AS count, md5(string_agg(v, ',' ORDER BY id)) AS sum FROM t",
    );
  const expected = await rows(ams);
  await eventually(
    "all rows to be there",
    async () => JSON.stringify(await rows(fra)) === JSON.stringify(expected),
  );
  await streaming(bed.member, 1);
  await eventually("the new node to go live", async () => {
    const { json: { items } } = await joined.api("GET", "/v1/jobs");
    return items.some(({ state }: { state: string }) => state === "succeeded");
  });
  await converge([ams, fra], 100_000);
});
