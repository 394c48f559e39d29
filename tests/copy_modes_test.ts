/** What becomes of rows that are on a node to which those of another one are copied. */
import assert from "node:assert/strict";
import type { CopyReport } from "../src/api/job_schemas.ts";
import { type ClusterMember, startCluster } from "./support/cluster.ts";
import { ended } from "./support/copy_bed.ts";
import { makeDatabase, startJoinBed, startJoining, streaming } from "./support/join_bed.ts";
import { plant } from "./support/plant.ts";
import { eventually } from "./support/poll.ts";
import { startPostgres } from "./support/postgres.ts";

const SCHEMA = `CREATE TABLE item (id int PRIMARY KEY, name text);
  CREATE TABLE "Odd Name" (id int PRIMARY KEY, v text);
  CREATE TABLE bag (v text); ALTER TABLE bag REPLICA IDENTITY FULL`;
const OLD = "2001-01-01 00:00:00Z";
const ROWS = 10_000;

async function allRows({ client }: ClusterMember): Promise<string> {
  const { rows: [{ all }] } = await client.query(
    `SELECT md5(string_agg(i::text, ' ' ORDER BY id)) || (SELECT string_agg(o::text, ' ' ORDER BY id) FROM "Odd Name" o)
       || (SELECT string_agg(v, ' ' ORDER BY v) FROM bag) AS all FROM item i`,
  );
  return all;
}

async function equal(members: readonly ClusterMember[]): Promise<void> {
  await eventually("the nodes to hold the same rows", async () => {
    const [first, ...others] = await Promise.all(members.map(allRows));
    return others.every((one) => one === first);
  });
}

async function count({ client }: ClusterMember, where: string): Promise<number> {
  return (await client.query(`SELECT FROM item WHERE ${where}`)).rowCount!;
}

async function copy({ node }: ClusterMember, ...args: string[]) {
  const { code, stdout, stderr } = await node.cli("copy", "--from", "ams", ...args, "-o", "json");
  return { code, stderr, report: (stdout === "" ? null : JSON.parse(stdout)) as CopyReport };
}

Deno.test("rows of a node are kept, merged, or given up for those of another one", async (t) => {
  await using a = await startPostgres({ major: 18 });
  await using b = await startPostgres({ major: 14 });
  await using c = await startPostgres({ major: 10 });
  await using cluster = await startCluster("modes", [
    { server: a, name: "ams", schema: SCHEMA },
    { server: b, name: "fra", schema: SCHEMA },
    { server: c, name: "new", schema: SCHEMA },
  ]);
  const { members } = cluster;
  const [ams, fra, joiner] = members;
  await ams.client.query(
    `INSERT INTO item SELECT g, 'item ' || g FROM generate_series(1, ${ROWS}) g;
     INSERT INTO "Odd Name" SELECT g, 'v' FROM generate_series(1, 10) g; INSERT INTO bag VALUES ('x'), ('x')`,
  );
  await equal(members);

  await t.step("keep: rows that are equal stay, and others are listed", async () => {
    const kept = await copy(joiner, "--mode", "keep");
    assert.equal(kept.code, 0, kept.stderr);
    assert.match(kept.stderr, /^job \d+: /m);
    const { mode, rows, peers: [{ peer, outcome }] } = kept.report;
    assert.deepEqual([mode, rows, peer, outcome], ["keep", ROWS + 12, "ams", "equal"]);
    await plant(
      joiner,
      "UPDATE item SET name = 'other' WHERE id = 4711; DELETE FROM \"Odd Name\" WHERE id = 3",
    );
    await plant(joiner, "INSERT INTO bag VALUES ('z')");
    const before = await allRows(joiner);
    const differing = await copy(joiner, "--mode", "keep");
    assert.equal(differing.code, 1, differing.stderr);
    assert.match(
      differing.stderr,
      /differ from those of .+ in public\..+Odd Name.+, public\.bag, public\.item/,
    );
    assert.doesNotMatch(differing.stderr, /4711/);
    assert.deepEqual(
      differing.report.peers[0].tables.flatMap(({ planned }) => planned.map(({ key }) => key)),
      [
        { id: "3" },
        { id: "4711" },
      ],
    );
    assert.match(
      (await joiner.node.cli("copy", "--from", "ams", "--mode", "keep")).stdout,
      /^ams +public\.item +differs /m,
    );
    assert.equal(await allRows(joiner), before);
    await plant(joiner, "DELETE FROM bag WHERE v = 'z'");
  });

  await t.step("merge: all nodes come to have the newer rows, nothing is sent on", async () => {
    await plant(joiner, "UPDATE item SET name = 'older' WHERE id BETWEEN 1 AND 20", OLD);
    await plant(
      joiner,
      "UPDATE item SET name = 'newer' WHERE id BETWEEN 101 AND 130; INSERT INTO item VALUES (-1, 'here')",
    );
    await ams.client.query("DELETE FROM item WHERE id = 301");
    await eventually(
      "it to be gone",
      async () => await count(joiner, "id = 301") + await count(fra, "id = 301") === 0,
    );
    await plant(joiner, "INSERT INTO item VALUES (301, 'back')", OLD);
    const { code, report, stderr } = await copy(joiner, "--mode", "merge");
    assert.equal(code, 0, stderr + JSON.stringify(report));
    const merges = report.peers.map(({ peer, taken, given, removed, removed_there }) => [
      ...[peer, taken, given],
      ...[removed, removed_there],
    ]);
    // 20 older ones and one that was missing are taken; 30 newer ones, 4711 and -1 are given.
    assert.deepEqual(merges, [["ams", 21, 32, 1, 0], ["fra", 0, 32, 0, 0]]);
    await equal(members);
    assert.equal(await count(ams, "name IN ('other', 'newer', 'here')"), 32);
    const verified = await ams.node.cli("verify");
    assert.equal(verified.code, 0, verified.stdout + verified.stderr);
  });

  await t.step("merge goes on after a kill in its middle", async () => {
    await plant(
      joiner,
      "DELETE FROM item WHERE id <= 3000; UPDATE item SET name = 'older' WHERE id > 7000",
      OLD,
    );
    const { node } = joiner;
    const { json: { id } } = await node.api("POST", "/v1/jobs", { type: "copy", from: "ams", mode: "merge" });
    await eventually("some rows to be taken", async () => await count(joiner, "id <= 3000") > 0, {
      timeoutMs: 60_000,
    });
    await node.kill();
    assert.ok(await count(joiner, "name = 'older'") + await count(joiner, "id > 0") > 0);
    await node.start();
    const { state, error } = await ended(node, id) as { state: string; error?: unknown };
    assert.equal(state, "succeeded", JSON.stringify(error));
    await equal(members);
    assert.equal(await count(joiner, "name = 'older'"), 0);
  });

  await t.step("replace: what was committed here goes out first, the rest is given up", async () => {
    await plant(
      joiner,
      "INSERT INTO item VALUES (-2, 'given up'); UPDATE item SET name = 'given up' WHERE id = 5",
    );
    await joiner.client.query("INSERT INTO item VALUES (-3, 'before')");
    const refused = await copy(joiner);
    assert.equal(refused.code, 1, refused.stderr);
    assert.match(refused.stderr, /there are rows already in public\.item[^]*--mode replace/);
    await joiner.node.cli("peers", "pause", "ams");
    await joiner.client.query("INSERT INTO item VALUES (-4, 'not sent yet')");
    const detached = await joiner.node.cli("copy", "--from", "ams", "--mode", "replace", "--detach");
    assert.match(detached.stdout, /^\d+\n$/, detached.stderr);
    const job = `/v1/jobs/${detached.stdout.trim()}`;
    await eventually("it to wait for what is not sent yet", async () => {
      const { json } = await joiner.node.api("GET", "/v1/status");
      return JSON.stringify(json.problems).includes('what node \\"new\\" committed before');
    });
    await assert.rejects(() => joiner.client.query("DELETE FROM item WHERE id = -4"), { code: "55000" });
    const states = async () => {
      const { json: { state } } = await ams.node.api("GET", "/v1/peers/new");
      const { json: { inbound } } = await joiner.node.api("GET", "/v1/peers/fra");
      return [state, inbound.state];
    };
    await eventually(
      "the links to it to say why they rest",
      async () => (await states()).every((one) => one === "copying"),
    );
    assert.match((await ams.node.cli("peers", "list")).stdout, /^new +copying /m);
    const { json: metrics } = await ams.node.api("GET", "/metrics");
    assert.match(metrics, /^mmlite_peer_state\{peer="new",state="copying"\} 1$/m);
    // One that is cancelled leaves the rows not whole: they cannot be merged.
    await joiner.node.api("DELETE", job);
    await eventually(
      "it to be cancelled",
      async () => (await joiner.node.api("GET", job)).json.state === "cancelled",
    );
    const merge = await copy(joiner, "--mode", "merge");
    assert.equal(merge.code, 1);
    assert.match(merge.stderr, /they are not whole, as a copy from .+ has not ended/);
    const { json: { id } } = await joiner.node.api("POST", "/v1/jobs", {
      type: "copy",
      from: "ams",
      mode: "replace",
    });
    await joiner.node.cli("peers", "resume", "ams");
    const { state, error } = await ended(joiner.node, id) as { state: string; error?: unknown };
    assert.equal(state, "succeeded", JSON.stringify(error));
    await equal(members);
    assert.equal(await count(joiner, "name = 'given up'"), 0);
    assert.equal(await count(fra, "id IN (-3, -4)"), 2);
  });

  await t.step("what means nothing is refused with a hint", async () => {
    const wrong: [string[], RegExp][] = [
      [[], /Cannot copy without --from/],
      [["--from", "ams", "--mode", "most"], /Use one of empty, replace, keep, merge/],
      [["--from", "ber"], /there is no peer of that name/],
      [["--from", "ber", "--mode", "merge"], /there is no peer of that name/],
    ];
    for (const [args, message] of wrong) {
      const { code, stderr } = await joiner.node.cli("copy", ...args);
      assert.equal(code, 64, stderr);
      assert.match(stderr, message);
    }
    const curl = await joiner.node.cli("copy", "--from", "ams", "--mode", "keep", "--as-curl");
    assert.match(curl.stdout, /"type":"copy","from":"ams","mode":"keep"/);
  });
});

Deno.test("nodes join with rows of their own, which are merged or given up", async () => {
  await using a = await startPostgres({ major: 18 });
  await using b = await startPostgres({ major: 10 });
  await using bed = await startJoinBed({ server: a, name: "ams" });
  await a.sql("ams", "INSERT INTO t SELECT g, 'of ams' FROM generate_series(1, 100) g");
  const rows = async (server: typeof a, database: string) =>
    JSON.stringify(
      await server.sql(database, "SELECT v, count(*)::int, min(id), max(id) FROM t GROUP BY v ORDER BY v"),
    );
  for (const [database, mode] of [["fra", "merge"], ["nyc", "replace"]] as const) {
    await makeDatabase({ server: b, database });
    await b.sql(database, `INSERT INTO t SELECT g, 'of ${database}' FROM generate_series(51, 150) g`);
    const token = await bed.invite("--name", database);
    const words = ["join", token, "--mode", mode];
    await using joined = await startJoining({ server: b, database }, () => words);
    await eventually("the copy to end", async () => {
      const { json: { items: [job] } } = await joined.api("GET", "/v1/jobs");
      return job?.state === "succeeded";
    }, { timeoutMs: 60_000 });
    await streaming(joined, 1);
    const expected = [{ v: "of ams", count: 50, min: 1, max: 50 }, {
      v: "of fra",
      count: 100,
      min: 51,
      max: 150,
    }];
    for (const [server, place] of [[a, "ams"], [b, database]] as const) {
      assert.equal(await rows(server, place), JSON.stringify(expected), place);
    }
    await bed.member.cli("peers", "remove", database, "--force");
  }
});
