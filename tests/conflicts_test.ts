/** What operators see and set of conflicts, on whole nodes. */
import assert from "node:assert/strict";
import { arrived, startCluster } from "./support/cluster.ts";
import { type Mmlite, startMmlite } from "./support/mmlite.ts";
import { eventually, within } from "./support/poll.ts";
import { type PostgresServer, startPostgres } from "./support/postgres.ts";

const SECRET = "a row's value";

/** Notes a conflict as an apply session would, and returns its id. */
async function note(server: PostgresServer, type = "update_missing"): Promise<string> {
  const [{ id }] = await server.sql(
    "app",
    `INSERT INTO mmlite.conflict (table_schema, table_name, type, resolution, change, key, local_row, local_origin,
       local_timestamp, remote_row, remote_origin, remote_timestamp, remote_lsn)
     VALUES ('public', 't', $1, 'skipped', 'update', '{"id": 9007199254740993}', $2, 'a',
       '2026-01-02 03:04:05.678901+00', $3, 'b', '2026-01-02 03:04:06+00', '1/A') RETURNING id::text`,
    [
      type,
      JSON.stringify({ id: 1, v: SECRET }),
      String.raw`{"id": 9007199254740993, "v": 1.5, "w": 1e999, "z": "\u0000"}`,
    ],
  );
  return id;
}

/** A listener of `/v1/events`; `seen` grows as events come. */
function listen(node: Mmlite, lastEventId?: string) {
  const seen: { event: string; id?: string; data: Record<string, string> }[] = [];
  const stop = new AbortController();
  const ended = (async () => {
    const headers: Record<string, string> = lastEventId === undefined ? {} : { "last-event-id": lastEventId };
    const response = await fetch(`${node.apiUrl}/v1/events`, { headers, signal: stop.signal });
    let text = "";
    for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
      const blocks = (text + chunk).split("\n\n");
      text = blocks.pop()!;
      for (const block of blocks.filter((block) => !block.startsWith(":"))) {
        const lines = block.split("\n").map((line) => line.split(/: (.*)/s).slice(0, 2));
        const { data, ...rest } = Object.fromEntries(lines);
        seen.push({ ...rest, data: JSON.parse(data) });
      }
    }
  })();
  return { seen, ended, stop: () => stop.abort() };
}

async function openNode(extraArgs: readonly string[] = []) {
  const server = await startPostgres({ major: 18 });
  await server.createDatabase("app");
  await server.sql(
    "app",
    "CREATE TABLE t (id bigint PRIMARY KEY, v text); CREATE TABLE u (id int PRIMARY KEY)",
  );
  const node = await startMmlite({ name: "a", postgres: server.url("app"), extraArgs });
  return {
    server,
    node,
    [Symbol.asyncDispose]: async () => {
      await node[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}

Deno.test("conflicts are listed, shown whole and exact, counted, and forgotten in time", async () => {
  await using world = await openNode(["--keep-conflicts", "1h"]);
  const { server, node } = world;
  await note(server);
  await note(server, "insert_exists");
  const { json: page } = await node.api("GET", "/v1/conflicts?limit=1&since=1h");
  assert.deepEqual([page.items.length, page.items[0].type, page.next_cursor], [1, "insert_exists", "2"]);
  assert.equal(page.items[0].key.id, "9007199254740993", "no other number");
  assert.ok(!JSON.stringify(page).includes(SECRET));
  const { json: next } = await node.api("GET", `/v1/conflicts?cursor=${page.next_cursor}`);
  assert.deepEqual([next.items.length, next.items[0].id, next.next_cursor], [1, "1", null]);
  const { json: whole } = await node.api("GET", "/v1/conflicts/1");
  const { noted_at, ...rest } = whole;
  assert.match(noted_at, /^\d{4}-\d\d-\d\dT.*\.\d{6}Z$/);
  assert.deepEqual(rest, {
    id: "1",
    table: "public.t",
    type: "update_missing",
    resolution: "skipped",
    change: "update",
    key: { id: "9007199254740993" },
    local: { row: { id: 1, v: SECRET }, origin: "a", commit_timestamp: "2026-01-02T03:04:05.678901Z" },
    remote: {
      row: { id: "9007199254740993", v: 1.5, w: "1e999", z: "\0" },
      origin: "b",
      commit_timestamp: "2026-01-02T03:04:06.000000Z",
      lsn: "1/A",
    },
  });
  assert.equal((await node.api("GET", "/v1/conflicts/3")).status, 404);
  assert.deepEqual((await node.api("GET", "/v1/conflicts?table=public.u")).json.items, []);
  const listed = await node.cli("conflicts", "list", "--type", "update_missing", "--table", "public.t");
  assert.match(listed.stdout, /^1 .* public\.t +update_missing +skipped +b +\{"id":"9007199254740993"\}$/m);
  assert.match((await node.cli("conflicts", "show", "1")).stdout, /^ {2}v +"a row's value" +1\.5$/m);
  assert.deepEqual((await node.api("GET", "/v1/status")).json.conflicts, { since_start: {}, kept: 2 });

  await server.sql("app", "UPDATE mmlite.conflict SET noted_at = now() - interval '2 hours' WHERE id = 1");
  await node.restart();
  await eventually("the old one to be forgotten", async () => {
    return (await node.api("GET", "/v1/status")).json.conflicts.kept === 1;
  });
  assert.ok(!(await node.log()).includes(SECRET));
});

Deno.test("the policy of a table is set through the API, wins over the file, and lasts", async () => {
  const file = await Deno.makeTempFile({ suffix: ".yaml" });
  await Deno.writeTextFile(
    file,
    "conflicts: { default: error, tables: { public.t: { policy: last_update_wins } } }",
  );
  await using world = await openNode(["-c", file]);
  const { node } = world;
  const policyOf = async (table: string) => {
    const { json } = await node.api("GET", `/v1/tables/${table}`);
    return [json.policy, json.types, json.policy_from];
  };
  assert.deepEqual(await policyOf("public.t"), ["last_update_wins", {}, "file"]);
  assert.deepEqual(await policyOf("public.u"), ["error", {}, "file"]);
  const refused = await node.api("PUT", "/v1/tables/public.t", { policy: "keep_local" });
  assert.deepEqual([refused.status, refused.json.kind], [422, "config"]);
  assert.match(refused.json.detail, /by keep_local: nodes could come to hold different rows$/);
  assert.match(refused.json.hint, /allow_divergence/);
  const refusedType = await node.cli(
    "tables",
    "policy",
    "public.t",
    "error",
    "--type",
    "update_exists=apply_remote",
  );
  assert.deepEqual([refusedType.code, /by apply_remote/.test(refusedType.stderr)], [78, true]);
  const dry = { policy: "error", types: { update_missing: "last_update_wins" } };
  assert.equal((await node.api("PUT", "/v1/tables/public.t?dry_run", dry)).json.policy, "error");
  assert.deepEqual(await policyOf("public.t"), ["last_update_wins", {}, "file"]);

  const set = await node.cli("tables", "policy", "public.t", "keep_local", "--allow-divergence");
  assert.equal(set.stderr, "Conflicts of table public.t are settled by keep_local, set here\n");
  await node.restart();
  assert.deepEqual(await policyOf("public.t"), ["keep_local", {}, "api"]);
  assert.match((await node.cli("tables", "list")).stdout, /^public\.t .* keep_local, set here$/m);
  assert.equal((await node.api("DELETE", "/v1/tables/public.t")).json.policy_from, "file");
  assert.deepEqual(await policyOf("public.t"), ["last_update_wins", {}, "file"]);
  await Deno.remove(file);
});

Deno.test("a diverged table is shown with its remedy until an operator clears it", async () => {
  await using world = await openNode();
  const { server, node } = world;
  await server.sql(
    "app",
    "INSERT INTO mmlite.diverged VALUES ('public', 't', now(), 'a unique key was violated')",
  );
  const { json: status } = await node.api("GET", "/v1/status");
  assert.equal(status.tables.diverged, 1);
  const [problem] = status.problems;
  assert.deepEqual([problem.kind, problem.message], [
    "conflict",
    "Nodes may hold different rows of public.t",
  ]);
  assert.match(problem.hint, /mmlite tables clear TABLE/);
  assert.match((await node.api("GET", "/metrics")).json, /^mmlite_diverged_tables 1$/m);
  assert.equal(
    (await node.api("GET", "/v1/tables/public.t")).json.diverged.reason,
    "a unique key was violated",
  );
  assert.match(
    (await node.cli("tables", "list")).stdout,
    /^public\.t +diverged .* a unique key was violated$/m,
  );
  assert.equal((await node.cli("tables", "clear", "public.t")).code, 0);
  assert.equal((await node.api("GET", "/v1/status")).json.tables.diverged, 0);
  assert.deepEqual(await server.sql("app", "SELECT FROM mmlite.diverged"), []);
  assert.match((await node.api("GET", "/metrics")).json, /^mmlite_tombstone_bytes 0$/m);
});

Deno.test("events tell of conflicts, peers and problems, go on where a listener was, and end with the node", async () => {
  await using world = await openNode();
  const { server, node } = world;
  await note(server);
  const first = listen(node);
  await node.api("PUT", "/v1/peers/b", { url: "http://127.0.0.1:1" });
  await eventually(
    "the peer",
    () => first.seen.some(({ event, data }) => event === "peer" && data.state === "backoff"),
  );
  await note(server);
  await eventually(
    "the conflict",
    () => first.seen.some(({ event, id }) => event === "conflict" && id === "2"),
  );
  const conflicts = first.seen.filter(({ event }) => event === "conflict");
  const { noted_at: _, ...data } = conflicts[0].data;
  assert.deepEqual([conflicts.length, data], [1, {
    id: "2",
    type: "update_missing",
    resolution: "skipped",
    table: "public.t",
  }]);
  await server.sql("app", "INSERT INTO mmlite.diverged VALUES ('public', 't', now(), 'lost')");
  const problems = () => first.seen.filter(({ event }) => event === "problem").map(({ data }) => data.state);
  await eventually("the problem", () => problems().join() === "present");
  await node.api("POST", "/v1/tables/public.t/clear");
  await eventually("its end", () => problems().join() === "present,gone");
  first.stop();
  await first.ended.catch(() => {});

  await note(server);
  const second = listen(node, "2");
  await eventually("the conflict since", () => second.seen.some(({ id }) => id === "3"));
  assert.deepEqual(second.seen.filter(({ event }) => event === "conflict").map(({ data }) => data.id), ["3"]);
  assert.equal(await node.stop(), 0);
  await within("the stream to end cleanly", 5_000, second.ended);
  assert.ok(!JSON.stringify([...first.seen, ...second.seen]).includes(SECRET));
});

Deno.test("peers whose policies differ are named until they are the same, and sessions come again under new ones", async () => {
  await using server = await startPostgres({ major: 18 });
  await using other = await startPostgres({ major: 17 });
  await using cluster = await startCluster("app", [
    { server, name: "a", schema: "CREATE TABLE t (id int PRIMARY KEY, v text)" },
    { server: other, name: "b", schema: "CREATE TABLE t (id int PRIMARY KEY, v text)" },
  ]);
  const [a, b] = cluster.members.map(({ node }) => node);
  const differ = async (node: Mmlite) => {
    const { json } = await node.api("GET", "/v1/status");
    const problems = json.problems.filter(({ message }: { message: string }) =>
      /other policies/.test(message)
    );
    assert.equal(problems.length, json.peers[0].policies_differ ? 1 : 0);
    return json.peers[0].policies_differ;
  };
  const bothSay = (expected: boolean) =>
    eventually(`both to say ${expected}`, async () => {
      const said = [await differ(a), await differ(b)];
      assert.deepEqual(said, [expected, expected]);
      return true;
    });
  await bothSay(false);
  const [, { client }] = cluster.members;
  const { rows: [{ epoch }] } = await client.query(
    "SELECT epoch::int FROM mmlite.progress WHERE origin = 'a'",
  );
  await b.api("PUT", "/v1/tables/public.t", { policy: "error" });
  await bothSay(true);
  await eventually("a session under the new policy", async () => {
    const { rows } = await client.query("SELECT epoch::int FROM mmlite.progress WHERE origin = 'a'");
    return rows[0].epoch > epoch;
  });
  await a.api("PUT", "/v1/tables/public.t", { policy: "error", types: { update_missing: "error" } });
  await bothSay(false);
  await eventually(
    "both to stream",
    async () => (await a.api("GET", "/v1/peers/b")).json.state === "streaming",
  );
});

Deno.test("a real conflict is on record on both nodes, counted, and stops the link under the policy error", async () => {
  await using server = await startPostgres({ major: 18 });
  await using other = await startPostgres({ major: 14 });
  const schema = "CREATE TABLE t (id int PRIMARY KEY, v text)";
  await using cluster = await startCluster("app", [
    { server, name: "a", schema },
    { server: other, name: "b", schema },
  ]);
  const [a, b] = cluster.members;
  /** Has both nodes change row 1 before either hears of the other. */
  const collide = async (values: readonly [string, string]) => {
    await a.node.api("POST", "/v1/peers/b/pause");
    await b.node.api("POST", "/v1/peers/a/pause");
    await a.client.query("UPDATE t SET v = $1 WHERE id = 1", [values[0]]);
    await b.client.query("UPDATE t SET v = $1 WHERE id = 1", [values[1]]);
    await a.node.api("POST", "/v1/peers/b/resume");
    await b.node.api("POST", "/v1/peers/a/resume");
  };
  const valueAt = async ({ client }: typeof a) =>
    (await client.query("SELECT v FROM t WHERE id = 1")).rows[0].v;
  await a.client.query("INSERT INTO t VALUES (1, 'first')");
  await arrived(a, b);
  await arrived(b, a);

  await collide(["of a", "of b"]);
  await arrived(a, b);
  await arrived(b, a);
  assert.deepEqual([await valueAt(a), await valueAt(b)], ["of b", "of b"], "the later one");
  for (const [{ node }, resolution] of [[a, "applied"], [b, "skipped"]] as const) {
    const { json: { items: [conflict] } } = await node.api("GET", "/v1/conflicts");
    assert.deepEqual([conflict.type, conflict.resolution], ["update_origin_differs", resolution]);
    const { local, remote } = (await node.api("GET", `/v1/conflicts/${conflict.id}`)).json;
    assert.deepEqual([local.row.v, remote.row.v].sort(), ["of a", "of b"]);
    assert.deepEqual([local.origin, remote.origin].sort(), ["a", "b"]);
    const { json: { conflicts } } = await node.api("GET", "/v1/status");
    assert.deepEqual(conflicts, { since_start: { update_origin_differs: 1 }, kept: 1 });
    const { json: metrics } = await node.api("GET", "/metrics");
    assert.ok(metrics.includes(`{type="update_origin_differs",resolution="${resolution}"} 1`));
  }

  for (const { node } of [a, b]) await node.api("PUT", "/v1/tables/public.t", { policy: "error" });
  await collide(["A", "B"]);
  const isBlocked = async ({ node }: typeof a, peer: string) =>
    (await node.api("GET", `/v1/peers/${peer}`)).json.state === "blocked";
  await eventually(
    "both links to be blocked",
    async () => await isBlocked(a, "b") && await isBlocked(b, "a"),
  );
  for (const { node } of [a, b]) await node.api("DELETE", "/v1/tables/public.t");
  await a.node.api("POST", "/v1/peers/b/retry");
  await b.node.api("POST", "/v1/peers/a/retry");
  await arrived(a, b);
  await arrived(b, a);
  assert.deepEqual([await valueAt(a), await valueAt(b)], ["B", "B"]);
});
