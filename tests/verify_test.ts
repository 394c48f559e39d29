/** Comparing tables between nodes while they are written to: what differs is found, and nothing else. */
import assert from "node:assert/strict";
import { delay } from "../src/backoff.ts";
import type { VerifyReport } from "../src/api/job_schemas.ts";
import { type Cluster, type ClusterMember, startCluster } from "./support/cluster.ts";
import type { CommandResult } from "./support/mmlite.ts";
import { eventually } from "./support/poll.ts";
import { delivers, startNatPair } from "./support/nat_pair.ts";
import { startPostgres } from "./support/postgres.ts";

const SCHEMA = `CREATE TABLE item (id bigint PRIMARY KEY, name text COLLATE "C", at timestamptz, f float8);
  CREATE TABLE pair (a text, b float8, v int, g int, PRIMARY KEY (b, a));
  CREATE TABLE bag (v text, n numeric);
  ALTER TABLE bag REPLICA IDENTITY FULL;`;
/** What differs was not written through here: nothing of it is sent to the other nodes. */
const APART = "mmlite_of_nobody";

async function verify(
  { node }: ClusterMember,
  ...args: string[]
): Promise<CommandResult & { readonly report: VerifyReport }> {
  const result = await node.cli("verify", "-o", "json", ...args);
  assert.notEqual(result.stdout, "", `${result.code}: ${result.stderr}`);
  return { ...result, report: JSON.parse(result.stdout) };
}

/** Writes what does not leave the node. */
async function plant({ server, database }: ClusterMember, sql: string): Promise<void> {
  const client = await server.connect(database);
  try {
    await client.query(
      `SELECT pg_replication_origin_create('${APART}') WHERE pg_replication_origin_oid('${APART}') IS NULL`,
    );
    await client.query(`SELECT pg_replication_origin_session_setup('${APART}')`);
    await client.query(`BEGIN; ${sql}; COMMIT`);
  } finally {
    await client.end();
  }
}

/** Counts over all writers of this file, so that no two insert the same row. */
let nextRound = 0;
/** Between two rounds of a writer, milliseconds: what is sent has to be applied at the same pace. */
const REST_MS = 15;

/** Writes on all nodes at once until it is disposed of: new rows, changed ones, short-lived ones. */
function writing({ members }: Cluster): AsyncDisposable & { readonly transactions: () => number } {
  const stop = new AbortController();
  let transactions = 0;
  const writers = members.map(async ({ server, database }, place) => {
    const client = await server.connect(database);
    try {
      while (!stop.signal.aborted) {
        const round = nextRound++;
        const id = 1_000_000 + round;
        await client.query(
          `INSERT INTO item VALUES (${id}, 'new', now(), random());
           INSERT INTO bag VALUES ('w${id}', ${id % 7}), ('x${id % 50}', 1)`,
        );
        await client.query(`UPDATE item SET name = 'u${round}', at = now() WHERE id = ${1 + round % 50}`);
        await client.query(`UPDATE item SET f = random() WHERE id = ${100 + (round * 7 + place) % 500}`);
        // Gone before it has come everywhere.
        if (round % 3 === 0) await client.query(`DELETE FROM item WHERE id = ${id}`);
        if (round % 20 === 0) await client.query(`DELETE FROM bag WHERE v = 'x${id % 50}'`);
        // Of a row that another node has just written.
        if (round % 4 === 1) await client.query(`DELETE FROM item WHERE id = ${id - 5}`);
        transactions += 3;
        await delay(REST_MS, stop.signal);
      }
    } finally {
      await client.end();
    }
  });
  return {
    transactions: () => transactions,
    [Symbol.asyncDispose]: async () => {
      stop.abort();
      await Promise.all(writers);
    },
  };
}

const ROWS = 20_000;
const FILL =
  `INSERT INTO item SELECT g, 'item ' || g, '2020-01-01Z', g / 3.0 FROM generate_series(1, ${ROWS}) g;
  INSERT INTO pair SELECT 'k' || g, g / 7.0::float8, g, 0 FROM generate_series(1, 2000) g;
  INSERT INTO bag SELECT 'b' || g % 300, g % 3 FROM generate_series(1, 3000) g`;

async function filled(cluster: Cluster): Promise<void> {
  const [first] = cluster.members;
  await first.client.query(FILL);
  for (const { client, node } of cluster.members) {
    await eventually(`${node.name} to have the rows`, async () => {
      const { rows: [{ count }] } = await client.query("SELECT count(*)::int FROM bag");
      return count === 3000;
    }, { timeoutMs: 60_000 });
    await client.query("ANALYZE");
  }
}

function tableOf(report: VerifyReport, peer: string, table: string) {
  const found = report.peers.find((one) => one.peer === peer)?.tables.find((one) => one.table === table);
  assert.ok(found, `${table} with ${peer}: ${JSON.stringify(report)}`);
  return found;
}

Deno.test("three nodes of PostgreSQL 10, 14 and 18 that are written to compare equal, and planted differences are found", async (t) => {
  await using oldest = await startPostgres({ major: 10 });
  await using middle = await startPostgres({ major: 14 });
  await using newest = await startPostgres({ major: 18 });
  const odd = {
    datestyle: "'German'",
    extra_float_digits: "-2",
    bytea_output: "'escape'",
    timezone: "'Asia/Tokyo'",
  };
  await using cluster = await startCluster("verify", [
    { server: newest, name: "va", schema: SCHEMA },
    { server: oldest, name: "vb", schema: SCHEMA, settings: odd },
    { server: middle, name: "vc", schema: SCHEMA, settings: odd },
  ]);
  const [a, b, c] = cluster.members;
  await filled(cluster);

  await t.step("equal under writes on all nodes, several times, with a long transaction open", async () => {
    await using writers = writing(cluster);
    await b.client.query(
      "BEGIN; UPDATE pair SET g = 1 WHERE a = 'k5'; INSERT INTO pair VALUES ('long', 0, 0, 0)",
    );
    for (const member of [a, b, c, a]) {
      const before = writers.transactions();
      const { code, report, stderr } = await verify(member);
      const found = report.peers.map(({ peer, error, tables }) => [
        peer,
        error,
        tables.filter(({ outcome }) => outcome !== "equal"),
      ]);
      assert.equal(code, 0, `${stderr} ${JSON.stringify(found, null, 1)}`);
      assert.equal(report.outcome, "equal");
      assert.equal(report.peers.length, 2);
      assert.ok(writers.transactions() > before, "nobody wrote");
    }
    await b.client.query("COMMIT");
  });

  await t.step("planted differences, and only those, under writes", async () => {
    await plant(
      b,
      `DELETE FROM item WHERE id BETWEEN 5001 AND 5010; INSERT INTO item VALUES (-5, 'extra', now(), 1);
      UPDATE item SET name = 'other' WHERE id IN (7000, 7001);
      UPDATE pair SET v = -1 WHERE a = 'k77'; DELETE FROM pair WHERE a = 'k78';
      DELETE FROM bag WHERE v = 'b7' AND n = 1; INSERT INTO bag VALUES ('only at b', 5), ('only at b', 5)`,
    );
    await using _writers = writing(cluster);
    const { code, report } = await verify(a);
    assert.equal(code, 1, JSON.stringify(report));
    assert.equal(report.outcome, "differs");
    const item = tableOf(report, "vb", "public.item");
    const ids = (kind: string) =>
      item.differences.filter((one) => "difference" in one && one.difference === kind)
        .map((one) => "key" in one && Number(one.key.id)).sort();
    assert.deepEqual(ids("only_here"), [5001, 5002, 5003, 5004, 5005, 5006, 5007, 5008, 5009, 5010]);
    assert.deepEqual(ids("only_there"), [-5]);
    assert.deepEqual(ids("other_values"), [7000, 7001]);
    assert.equal(item.differences.length, 13);
    const pair = tableOf(report, "vb", "public.pair");
    assert.deepEqual(
      pair.differences.map((one) => "key" in one && [one.key.a, Number(one.key.b), one.difference]).sort(),
      [["k77", 11, "other_values"], ["k78", 78 / 7, "only_here"]],
    );
    const bag = tableOf(report, "vb", "public.bag");
    assert.deepEqual(
      bag.differences.map((one) => "here" in one && [one.here, one.there]).sort(),
      [[0, 2], [10, 0]],
    );
    const others = report.peers.find(({ peer }) => peer === "vc");
    assert.equal(others?.outcome, "equal", JSON.stringify(others));
    const shown = (await a.node.cli("verify", "public.item", "--peer", "vb")).stdout;
    assert.match(shown, /^vb +public\.item +differs .*13 rows differ/m);
    assert.match(shown, /^ {2}only on vb: id="-5"$/m);
    // From the other side the same.
    const { report: back } = await verify(b, "--peer", "va", "public.pair");
    assert.deepEqual(
      tableOf(back, "va", "public.pair").differences.map((one) => "key" in one && one.difference).sort(),
      ["only_there", "other_values"],
    );
  });

  await t.step("a thousand differences", async () => {
    await plant(c, "UPDATE item SET name = 'planted' WHERE id BETWEEN 10001 AND 11000");
    await using _writers = writing(cluster);
    const { report } = await verify(a, "--peer", "vc", "public.item");
    const { differences, complete } = tableOf(report, "vc", "public.item");
    const ids = differences.map((one) => "key" in one ? Number(one.key.id) : 0).sort((x, y) => x - y);
    assert.deepEqual(ids, Array.from({ length: 1000 }, (_, i) => 10_001 + i));
    assert.ok(complete);
    const { report: some } = await verify(a, "--peer", "vc", "--limit", "10", "public.item");
    const cut = tableOf(some, "vc", "public.item");
    assert.ok(!cut.complete);
    assert.ok(cut.differences.length >= 10 && cut.differences.length <= 200, `${cut.differences.length}`);
  });

  await t.step("what is written anew where it is right is equal again", async () => {
    await b.client.query("DELETE FROM item WHERE id = -5");
    await a.client.query(
      "UPDATE item SET id = id WHERE id BETWEEN 5001 AND 5010 OR id IN (7000, 7001) OR id BETWEEN 10001 AND 11000",
    );
    const { code, report } = await verify(a, "public.item");
    assert.equal(code, 0, JSON.stringify(report));
  });

  await t.step("lag is told as such", async () => {
    const pause = async (action: string) =>
      assert.ok((await a.node.api("POST", `/v1/peers/vb/${action}`)).status < 300);
    await pause("pause");
    await a.client.query("INSERT INTO pair VALUES ('late', 1, 1, 1)");
    const { code, report } = await verify(c, "--timeout", "2s", "--peer", "vb", "public.pair");
    // Nor can it be told of the planted ones: what was not sent yet might have made them.
    const { undecided } = tableOf(report, "vb", "public.pair");
    assert.deepEqual(undecided.map(({ key, reason }) => [key?.a, reason]).sort(), [
      ["k77", "lagging"],
      ["k78", "lagging"],
      ["late", "lagging"],
    ]);
    assert.match(tableOf(report, "vb", "public.pair").problem, /from "va" to "vb"/);
    assert.equal(code, 75, JSON.stringify(report));
    await pause("resume");
  });

  await t.step("a table or column that only one node has", async () => {
    await a.client.query("CREATE TABLE only_a (id int PRIMARY KEY)");
    await c.client.query("ALTER TABLE bag ADD extra text");
    await eventually(
      "it to be replicated",
      async () =>
        (await a.node.api("GET", "/v1/tables")).json.items.some(({ name }: { name: string }) =>
          name === "only_a"
        ),
    );
    const { code, report } = await verify(a, "--peer", "vc", "public.only_a", "public.bag", "public.mark");
    assert.equal(code, 1);
    assert.equal(tableOf(report, "vc", "public.only_a").problem, 'not replicated by "vc"');
    assert.match(tableOf(report, "vc", "public.bag").problem, /^other columns, only on "vc": extra$/);
    assert.equal(tableOf(report, "vc", "public.mark").outcome, "equal");
    const wrong = await a.node.cli("verify", "public.nothing");
    assert.equal(wrong.code, 64);
    assert.match(wrong.stderr, /Cannot verify public\.nothing: no such table is replicated/);
    assert.equal((await a.node.cli("verify", "--peer", "vx")).code, 64);
    assert.equal((await a.node.cli("verify", "nothing")).code, 64);
  });

  await t.step("a peer that is down is named, and the others are compared", async () => {
    await c.node.kill();
    const { code, report } = await verify(a, "public.mark");
    assert.equal(code, 69);
    const [down, up] = [
      report.peers.find(({ peer }) => peer === "vc"),
      report.peers.find(({ peer }) => peer === "vb"),
    ];
    assert.equal(down?.error?.kind, "unreachable");
    assert.equal(up?.outcome, "equal");
  });
});

Deno.test("a node that nobody can dial compares, and is compared with", async () => {
  await using pair = await startNatPair();
  const { a, b } = pair;
  await delivers(a, b);
  await delivers(b, a);
  for (const [one, other] of [[a, b], [b, a], [a, b]] as const) {
    const { code, stdout, stderr } = await one.mmlite.cli("verify", "-o", "json");
    assert.equal(code, 0, stderr + stdout);
    const report: VerifyReport = JSON.parse(stdout);
    assert.deepEqual(report.peers.map(({ peer }) => peer), [other.name]);
    assert.ok(report.peers[0].tables.some(({ rows }) => rows!.here > 0 && rows!.here === rows!.there));
  }
});

Deno.test("a comparison is a job that can be watched and cancelled, and a restart ends it by name", async () => {
  await using server = await startPostgres({ major: 18 });
  await using another = await startPostgres({ major: 13 });
  await using cluster = await startCluster("verify_job", [
    { server, name: "ja", schema: SCHEMA },
    { server: another, name: "jb", schema: SCHEMA },
  ]);
  const [{ node }, other] = cluster.members;
  await filled(cluster);
  const stateOf = async (id: string) => (await node.api("GET", `/v1/jobs/${id}`)).json.state;
  const begin = async () => {
    const { status, json } = await node.api("POST", "/v1/jobs", { type: "verify", tables: ["public.item"] });
    assert.equal(status, 202, JSON.stringify(json));
    return json.id as string;
  };
  // The peer waits for the lock, and the job for the peer.
  const holder = await other.server.connect("verify_job");
  await holder.query("BEGIN; LOCK TABLE item IN ACCESS EXCLUSIVE MODE");
  const first = await begin();
  await eventually(
    "it to have read the rows here",
    async () => (await node.api("GET", `/v1/jobs/${first}`)).json.progress === 0.99,
  );
  const events = await fetch(`${node.apiUrl}/v1/events`);
  const reader = events.body!.pipeThrough(new TextDecoderStream()).getReader();
  let heard = "";
  await eventually("the event", async () => {
    heard += (await reader.read()).value ?? "";
    return heard.includes(`event: job\ndata: {"id":"${first}","type":"verify","state":"running"`);
  });
  await reader.cancel();
  const second = await begin();
  assert.equal(await stateOf(second), "queued");
  const { status } = await node.api("DELETE", `/v1/jobs/${second}`);
  assert.equal(status, 204);
  assert.equal(await stateOf(second), "cancelled");
  assert.equal((await node.api("DELETE", `/v1/jobs/${second}`)).status, 204);
  assert.equal((await node.api("GET", `/v1/jobs/${second}`)).status, 404);

  await node.kill();
  await node.start();
  const { json: cut } = await node.api("GET", `/v1/jobs/${first}`);
  assert.equal(cut.state, "failed");
  assert.match(cut.error.message, /^Cannot go on with verify: this node was restarted meanwhile$/);
  assert.match(cut.error.hint, /mmlite verify/);

  const third = await begin();
  await eventually("it to run", async () => await stateOf(third) === "running");
  assert.equal((await node.api("DELETE", `/v1/jobs/${third}`)).status, 204);
  assert.equal(await stateOf(third), "cancelled");
  const reading = "SELECT FROM pg_stat_activity WHERE application_name = 'mmlite verify'";
  await holder.query("COMMIT");
  await holder.end();
  await eventually(
    "nobody to read any more",
    async () => (await another.sql("postgres", reading)).length === 0,
  );
  const fourth = await begin();
  await eventually("it to end", async () => await stateOf(fourth) === "succeeded", { timeoutMs: 30_000 });
  const { json: { result, progress } } = await node.api("GET", `/v1/jobs/${fourth}`);
  assert.deepEqual([result.outcome, progress], ["equal", 1]);
  const { json: { items } } = await node.api("GET", "/v1/jobs");
  assert.deepEqual(items.map(({ id }: { id: string }) => id), [fourth, third, first]);
});
