/** Making rows of one node what they are at a peer, while all nodes are written to. */
import assert from "node:assert/strict";
import type { RepairReport } from "../src/api/job_schemas.ts";
import { type Cluster, type ClusterMember, startCluster } from "./support/cluster.ts";
import type { CommandResult } from "./support/mmlite.ts";
import { eventually } from "./support/poll.ts";
import { startPostgres } from "./support/postgres.ts";
import { plant } from "./support/plant.ts";
import { writersOn } from "./support/writers.ts";

const SCHEMA = `CREATE TABLE item (id bigint PRIMARY KEY, name text, f float8);
  CREATE TABLE account (id int PRIMARY KEY, email text UNIQUE);
  CREATE TABLE big (id int PRIMARY KEY, v text);
  CREATE TABLE bag (v text);
  ALTER TABLE bag REPLICA IDENTITY FULL;`;
const ROWS = 5_000;

async function repair(
  { node }: ClusterMember,
  ...args: string[]
): Promise<CommandResult & { readonly report: RepairReport }> {
  const result = await node.cli(...args, "-o", "json");
  assert.notEqual(result.stdout, "", `${result.code}: ${result.stderr}`);
  return { ...result, report: JSON.parse(result.stdout) };
}

function tableOf({ tables }: RepairReport, name: string) {
  const found = tables.find(({ table }) => table === name);
  assert.ok(found, name);
  return found;
}

/** What was done to the rows of a table. */
function counts(report: RepairReport, name: string): number[] {
  const { overwritten, inserted, deleted, changed_meanwhile, refused } = tableOf(report, name);
  return [overwritten, inserted, deleted, changed_meanwhile, refused];
}

/** Counts over all writers, so that no two insert the same row. */
let nextRound = 0;

/** Writes to rows on all nodes at once until it is disposed of. */
function writing({ members }: Cluster): AsyncDisposable {
  return writersOn(members, {
    restMs: 15,
    write: async (client, { place }) => {
      const id = 1_000_000 + nextRound++ * 3 + place;
      await client.query(`INSERT INTO item VALUES (${id}, 'new', random())`);
      await client.query(`UPDATE item SET name = 'u${id}' WHERE id = ${1 + id % 500}`);
      if (nextRound % 3 === 0) await client.query(`DELETE FROM item WHERE id = ${id}`);
    },
  });
}

/** Rows that no writer comes to, with their versions. */
async function versions({ client }: ClusterMember, table: string, where: string): Promise<string[]> {
  const { rows } = await client.query(
    `SELECT t::text || ' ' || (v.at AT TIME ZONE 'UTC')::text || ' ' || v.node AS row FROM ${table} t,
       mmlite.row_version(t.xmin, mmlite.key_hash('public.${table}', ARRAY[t.id::text])) v WHERE ${where} ORDER BY t.id`,
  );
  return rows.map(({ row }) => row);
}

/** Changes whenever one of these rows is written. */
async function stamps({ client }: ClusterMember, where: string): Promise<string> {
  const { rows: [{ stamps }] } = await client.query(
    `SELECT string_agg(id || ' ' || xmin, ',' ORDER BY id) AS stamps FROM item t WHERE ${where}`,
  );
  return stamps;
}

/** Rows that come to differ: below PostgreSQL 14 the nodes of others are forgotten after a minute or two. */
const PLANTED = "t.id BETWEEN 3801 AND 4600 OR t.id < 0";
const AUTHORS = new Set(["ra", "rb", "rc"]);
const STILL = "t.id > 500 AND t.id <= 5000";

Deno.test("rows of a node are repaired by those of a peer under writes, and nothing of it is sent on", async (t) => {
  await using newest = await startPostgres({ major: 18 });
  await using oldest = await startPostgres({ major: 10 });
  await using middle = await startPostgres({ major: 14 });
  await using cluster = await startCluster("repair", [
    { server: newest, name: "ra", schema: SCHEMA },
    { server: oldest, name: "rb", schema: SCHEMA },
    { server: middle, name: "rc", schema: SCHEMA },
  ]);
  const [a, b, c] = cluster.members;
  await a.client.query(
    `INSERT INTO item SELECT g, 'item ' || g, g / 2.0 FROM generate_series(1, ${ROWS}) g;
     INSERT INTO account SELECT g, 'm' || g FROM generate_series(1, 100) g; INSERT INTO bag VALUES ('x'), ('x'), ('y')`,
  );
  await c.client.query("INSERT INTO item VALUES (-1, 'of rc', 1)");
  const arrived = () =>
    eventually("the rows to be everywhere", async () => {
      const found = await Promise.all(cluster.members.map(({ client }) =>
        client.query("SELECT (SELECT count(*) FROM item) || ' ' || (SELECT count(*) FROM bag) AS counts")
      ));
      return found.every(({ rows: [{ counts }] }) =>
        counts === `${ROWS + 1} 3`
      );
    }, { timeoutMs: 60_000 });
  await arrived();
  // Of two nodes that have written it.
  await b.client.query("UPDATE item SET name = 'of rb' WHERE id BETWEEN 4001 AND 4100");
  await eventually("them too", async () => {
    const found = await Promise.all(
      [a, c].map(({ client }) =>
        client.query("SELECT count(*)::int AS count FROM item WHERE name = 'of rb'")
      ),
    );
    return found.every(({ rows: [{ count }] }) => count === 100);
  });

  await t.step("where nothing differs nothing is written", async () => {
    await using _writers = writing(cluster);
    const { code, report, stderr } = await repair(b, "verify", "--repair", "--source", "ra");
    assert.equal(code, 0, stderr + JSON.stringify(report));
    assert.deepEqual(report.tables.map(({ table }) => counts(report, table)), [
      ...Array(5).fill([0, 0, 0, 0, 0]),
    ]);
  });

  await t.step("one row: shown by a dry run, and written", async () => {
    await plant(b, "UPDATE item SET name = 'wrong' WHERE id = 700");
    const args = ["verify", "public.item", "--repair", "--source", "ra"];
    const dry = await repair(b, ...args, "--dry-run");
    assert.equal(dry.code, 1);
    assert.deepEqual(tableOf(dry.report, "public.item").planned, [
      { key: { id: "700" }, action: "overwrite", node: "rb" },
    ]);
    assert.match((await b.node.cli(...args, "--dry-run")).stdout, /^ {2}would overwrite: id="700"$/m);
    await b.client.query("INSERT INTO mmlite.diverged VALUES ('public', 'item', now(), 'planted')");
    const shown = await b.node.cli(...args);
    assert.equal(shown.code, 0, shown.stderr);
    assert.match(shown.stdout, /^public\.item +equal +1 +0 +0 /m);
    assert.match(shown.stderr, /mmlite tables clear public\.item/);
    assert.deepEqual(await versions(b, "item", "t.id = 700"), await versions(a, "item", "t.id = 700"));
  });

  await t.step("a thousand rows of three authors, while all nodes are written to", async () => {
    const before = [await stamps(a, STILL), await stamps(c, STILL)];
    await plant(
      b,
      `UPDATE item SET name = 'wrong' WHERE id BETWEEN 3801 AND 4300; DELETE FROM item WHERE id BETWEEN 4301 AND 4600 OR id = -1;
       INSERT INTO item SELECT -g, 'too many', 0 FROM generate_series(2, 200) g`,
    );
    await using _writers = writing(cluster);
    const { code, report, stderr } = await repair(b, "verify", "public.item", "--repair", "--source", "ra");
    assert.equal(code, 0, stderr + JSON.stringify(report).slice(0, 2000));
    assert.deepEqual(counts(report, "public.item"), [500, 301, 199, 0, 0]);
    assert.deepEqual(await versions(b, "item", PLANTED), await versions(a, "item", PLANTED));
    assert.deepEqual(new Set((await versions(b, "item", PLANTED)).map((row) => row.slice(-2))), AUTHORS);
    for (const member of [a, b, c]) {
      const again = await member.node.cli("verify", "public.item");
      assert.equal(again.code, 0, again.stdout + again.stderr);
    }
    // What is sent comes in its order, so whatever the repair had sent would have come before what was compared.
    assert.deepEqual([await stamps(a, STILL), await stamps(c, STILL)], before);
  });

  await t.step(
    "rows that others stand in the way of are named; chains of values are no obstacle",
    async () => {
      await plant(
        b,
        `UPDATE account SET email = 'n' || id WHERE id <= 50; UPDATE account SET email = 'm' || (id % 50 + 1) WHERE id <= 50;
       DELETE FROM account WHERE id = 70; INSERT INTO account VALUES (1000, 'm70')`,
      );
      // Of a row that only this node has the value is given free.
      const { code, report } = await repair(b, "verify", "public.account", "--repair", "--source", "ra");
      assert.equal(code, 0, JSON.stringify(report));
      assert.deepEqual(counts(report, "public.account"), [50, 1, 1, 0, 0]);
      const repaired = "t.id <= 50 OR t.id = 70";
      assert.deepEqual(await versions(b, "account", repaired), await versions(a, "account", repaired));
      await b.client.query("ALTER TABLE account ADD CHECK (email <> 'm60') NOT VALID");
      await plant(b, "UPDATE account SET email = 'n' || id WHERE id IN (60, 61)");
      const refused = await repair(b, "verify", "public.account", "--repair", "--source", "ra");
      assert.equal(refused.code, 1);
      assert.deepEqual(counts(refused.report, "public.account"), [1, 0, 0, 0, 1]);
      const [{ key, reason }] = tableOf(refused.report, "public.account").refusals;
      assert.deepEqual(key, { id: "60" });
      assert.match(reason, /account_email_check/);
    },
  );

  await t.step("a table without key is named, and left", async () => {
    await plant(b, "DELETE FROM bag WHERE v = 'y'");
    const { code, report } = await repair(b, "verify", "public.bag", "--repair", "--source", "ra");
    assert.equal(code, 1);
    assert.match(tableOf(report, "public.bag").problem, /no key that rows can be looked up by/);
    assert.equal((await b.client.query("SELECT FROM bag")).rowCount, 2);
  });

  await t.step("what means nothing is refused with a hint", async () => {
    const wrong: [string[], number, RegExp][] = [
      [["verify", "--repair", "--source", "rb"], 64, /run it on the other node/],
      [["verify", "--repair"], 64, /Cannot --repair without --source/],
      [
        ["verify", "--repair", "--source", "ra", "--peer", "rc"],
        64,
        /a repair compares with its source alone/,
      ],
      [["verify", "--repair", "--source", "rx"], 64, /there is no such peer/],
      [["verify", "--source", "ra"], 64, /Cannot use --source without --repair/],
      [["tables", "resync", "public.item"], 64, /Cannot resync without --from/],
      [["tables", "resync", "public.*", "--from", "ra"], 64, /stands for more than one table/],
      [["tables", "resync", "public.nothing", "--from", "ra"], 64, /no such table is replicated/],
    ];
    for (const [args, code, message] of wrong) {
      const result = await b.node.cli(...args);
      assert.equal(result.code, code, `${args.join(" ")}: ${result.stderr}`);
      assert.match(result.stderr, message);
    }
    const curl = await b.node.cli("tables", "resync", "public.item", "--from", "ra", "--as-curl");
    assert.match(curl.stdout, /"type":"resync","table":"public\.item","from":"ra"/);
  });

  await t.step("an empty table of twenty thousand rows gets them all", async () => {
    await a.client.query("INSERT INTO big SELECT g, 'v' || g FROM generate_series(1, 20000) g");
    for (const { client } of [b, c]) {
      await eventually("the rows", async () => {
        const { rows: [{ count }] } = await client.query("SELECT count(*)::int FROM big");
        return count === 20_000;
      }, { timeoutMs: 60_000 });
    }
    await plant(b, "DELETE FROM big");
    const { code, report } = await repair(b, "tables", "resync", "public.big", "--from", "ra");
    assert.equal(code, 0, JSON.stringify(report).slice(0, 2000));
    assert.deepEqual(counts(report, "public.big"), [0, 20_000, 0, 0, 0]);
    assert.deepEqual(await versions(b, "big", "t.id <= 100"), await versions(a, "big", "t.id <= 100"));
    const again = await b.node.cli("verify", "public.big");
    assert.equal(again.code, 0, again.stdout + again.stderr);
  });
});
