/** Making rows of two nodes what the newer ones are, on both, while both are written to. */
import assert from "node:assert/strict";
import type { RepairReport } from "../src/api/job_schemas.ts";
import { type ClusterMember, startCluster } from "./support/cluster.ts";
import type { CommandResult } from "./support/mmlite.ts";
import { plant } from "./support/plant.ts";
import { eventually } from "./support/poll.ts";
import { startPostgres } from "./support/postgres.ts";
import { writersOn } from "./support/writers.ts";

const SCHEMA = `CREATE TABLE item (id bigint PRIMARY KEY, name text);
  CREATE TABLE account (id int PRIMARY KEY, email text UNIQUE);
  CREATE TABLE busy (id int PRIMARY KEY, n int);
  CREATE TABLE big (id int PRIMARY KEY, v text);`;
/** Of rows that are older than all others. */
const OLD = "2001-01-01 00:00:00Z";

async function repair(
  { node }: ClusterMember,
  ...args: string[]
): Promise<CommandResult & { readonly report: RepairReport }> {
  const result = await node.cli("verify", "--repair", "--newest", ...args, "-o", "json");
  assert.notEqual(result.stdout, "", `${result.code}: ${result.stderr}`);
  return { ...result, report: JSON.parse(result.stdout) };
}

/** What was done to the rows of a table: here, at the peer, and not at all. */
function counts({ tables }: RepairReport, name: string): number[] {
  const { overwritten, inserted, deleted, given, changed_meanwhile, refused } = tables.find(({ table }) =>
    table === `public.${name}`
  )!;
  return [
    ...[overwritten, inserted, deleted],
    ...[given.overwritten, given.inserted, given.deleted],
    ...[changed_meanwhile, refused],
  ];
}

async function allRows({ client }: ClusterMember, table: string): Promise<string> {
  const { rows: [{ all }] } = await client.query(
    `SELECT string_agg(t::text, ' ' ORDER BY id) AS all FROM ${table} t`,
  );
  return all;
}

/** Changes whenever a row is written. */
async function stamps({ client }: ClusterMember, table: string): Promise<string> {
  const { rows: [{ stamps }] } = await client.query(
    `SELECT string_agg(id || ' ' || xmin, ',' ORDER BY id) AS stamps FROM ${table}`,
  );
  return stamps;
}

/** When rows were written, whoever did. */
async function times({ client }: ClusterMember, where: string): Promise<string> {
  const { rows } = await client.query(
    `SELECT t.id, v.at::text FROM item t, mmlite.row_version(t.xmin, mmlite.key_hash('public.item', ARRAY[t.id::text])) v
      WHERE ${where} ORDER BY t.id`,
  );
  return JSON.stringify(rows);
}

async function arrived(member: ClusterMember, table: string, count: number): Promise<void> {
  await eventually("the rows to come", async () => {
    const { rows: [row] } = await member.client.query(`SELECT count(*)::int FROM ${table}`);
    return row.count === count;
  }, { timeoutMs: 60_000 });
}

/** Writes to rows of `busy` on both nodes until it is disposed of. */
function writing(members: readonly ClusterMember[]): AsyncDisposable {
  return writersOn(members, {
    restMs: 10,
    write: async (client, { place, round }) => {
      const id = 1 + ((round + 1) * 7 + place) % 400;
      await client.query(
        `INSERT INTO busy VALUES (${id}, ${round}) ON CONFLICT (id) DO UPDATE SET n = ${round}`,
      );
      if (round % 3 === 0) await client.query(`DELETE FROM busy WHERE id = ${(id + 17) % 400}`);
    },
  });
}

Deno.test("of rows that differ the newer ones come to be on both nodes, and nothing is sent on", async (t) => {
  await using newest = await startPostgres({ major: 18 });
  await using oldest = await startPostgres({ major: 10 });
  await using cluster = await startCluster("newest", [
    { server: newest, name: "na", schema: SCHEMA },
    { server: oldest, name: "nb", schema: SCHEMA },
  ]);
  const [a, b] = cluster.members;
  await a.client.query(
    `INSERT INTO item SELECT g, 'item ' || g FROM generate_series(1, 1000) g;
     INSERT INTO account SELECT g, 'm' || g FROM generate_series(1, 50) g;
     INSERT INTO busy SELECT g, 0 FROM generate_series(1, 400) g;
     INSERT INTO big SELECT g, 'v' || g FROM generate_series(1, 20000) g`,
  );
  await arrived(b, "big", 20_000);
  await a.client.query("DELETE FROM item WHERE id BETWEEN 901 AND 920");
  await arrived(b, "item", 980);
  await b.client.query("DELETE FROM item WHERE id BETWEEN 921 AND 940");
  await arrived(a, "item", 960);

  await t.step("each kind of difference, on either side", async () => {
    await plant(a, "UPDATE item SET name = 'older' WHERE id BETWEEN 1 AND 10", OLD);
    await plant(b, "UPDATE item SET name = 'older' WHERE id BETWEEN 11 AND 31", OLD);
    await plant(a, "UPDATE item SET name = 'newer' WHERE id BETWEEN 101 AND 132");
    await plant(b, "UPDATE item SET name = 'newer' WHERE id BETWEEN 201 AND 243");
    // Nobody is known to have deleted these.
    await plant(a, "DELETE FROM item WHERE id BETWEEN 301 AND 305");
    await plant(
      b,
      "DELETE FROM item WHERE id BETWEEN 401 AND 406; INSERT INTO item VALUES (-1, 'only here')",
    );
    // And these nobody has any more.
    await plant(a, "INSERT INTO item VALUES (921, 'back'), (901, 'back'), (902, 'back')", OLD);
    await plant(b, "INSERT INTO item VALUES (903, 'back'), (922, 'back')", OLD);
    // But these came after that.
    await plant(a, "INSERT INTO item VALUES (910, 'anew')");
    await plant(b, "INSERT INTO item VALUES (930, 'anew'), (931, 'anew'), (932, 'anew')");
    const dry = await repair(a, "public.item", "--dry-run", "--limit", "3");
    assert.equal(dry.code, 1);
    const [table] = dry.report.tables;
    assert.deepEqual([table.planned.length, table.complete], [3, false]);
    assert.match(
      (await a.node.cli("verify", "--repair", "--newest", "--dry-run", "public.item")).stdout,
      /^nb +public\.item +differs +53 +7 +2\n[^]*^ {2}would insert on na: id="302"$/m,
    );
    const { code, report, stderr } = await repair(a);
    assert.equal(code, 0, stderr + JSON.stringify(report));
    // 10 + 43 newer ones come, 21 + 32 go.
    assert.deepEqual(counts(report, "item"), [53, 9, 3, 53, 7, 2, 0, 0]);
    assert.equal(await allRows(a, "item"), await allRows(b, "item"));
    const planted = "t.id BETWEEN 1 AND 500 OR t.id BETWEEN 901 AND 940 OR t.id < 0";
    assert.equal(await times(a, planted), await times(b, planted));
    const { rows } = await a.client.query(
      "SELECT id::int FROM item WHERE name IN ('back', 'anew', 'older') ORDER BY id",
    );
    assert.deepEqual(rows.map(({ id }) => id), [910, 930, 931, 932]);
  });

  await t.step("nothing of it is sent on, and nothing is left to do, from either side", async () => {
    const before = [await stamps(a, "item"), await stamps(b, "item")];
    for (const member of [a, b]) {
      const again = await repair(member);
      assert.equal(again.code, 0, again.stderr + JSON.stringify(again.report));
      assert.deepEqual(counts(again.report, "item"), Array(8).fill(0));
    }
    assert.deepEqual([await stamps(a, "item"), await stamps(b, "item")], before);
  });

  await t.step("values of unique columns that go round are no obstacle", async () => {
    await plant(
      b,
      "UPDATE account SET email = 'x' || id WHERE id <= 20; UPDATE account SET email = 'm' || (id % 20 + 1) WHERE id <= 20",
    );
    await plant(a, "DELETE FROM account WHERE id = 40; INSERT INTO account VALUES (41040, 'm40')", OLD);
    const { code, report } = await repair(a, "public.account");
    // m40 is the value of two rows of which neither is known to be deleted.
    assert.equal(code, 1, JSON.stringify(report));
    assert.deepEqual(counts(report, "account"), [20, 0, 0, 0, 0, 0, 0, 2]);
    const { refusals } = report.tables[0];
    assert.match(refusals.find(({ key }) => key.id === "41040")!.reason, /account_email_key.*\(on "nb"\)$/s);
    await a.client.query("DELETE FROM account WHERE id = 41040");
    const again = await repair(a, "public.account");
    assert.equal(again.code, 0, JSON.stringify(again.report));
    assert.deepEqual(counts(again.report, "account"), [0, 1, 0, 0, 0, 0, 0, 0]);
  });

  await t.step("while both nodes write, at both nodes at once", async () => {
    {
      await using _writers = writing(cluster.members);
      await plant(
        a,
        "UPDATE item SET name = 'of a' WHERE id BETWEEN 1 AND 200; DELETE FROM busy WHERE id % 10 = 0",
      );
      await plant(
        b,
        "UPDATE item SET name = 'of b' WHERE id BETWEEN 150 AND 300; UPDATE busy SET n = -1 WHERE id % 7 = 0",
      );
      // One may have waited too long for the other.
      const both = await Promise.all(
        [a, b].map(({ node }) => node.cli("verify", "--repair", "--newest", "--timeout", "10s")),
      );
      for (const { code } of both) assert.ok([0, 75].includes(code), JSON.stringify(both));
    }
    await eventually("one more of them to find all equal", async () => (await repair(b)).code === 0, {
      timeoutMs: 60_000,
    });
    for (const table of ["item", "busy"]) assert.equal(await allRows(a, table), await allRows(b, table));
  });

  await t.step("a kill in the middle leaves nothing to be undone", async () => {
    await plant(b, "DELETE FROM big WHERE id <= 10000; UPDATE big SET v = 'older' WHERE id > 15000", OLD);
    await plant(a, "UPDATE big SET v = 'older' WHERE id BETWEEN 12001 AND 14000", OLD);
    for (const victim of [a, b]) {
      const before = await stamps(b, "big");
      await a.node.api("POST", "/v1/jobs", { type: "repair", newest: true, tables: ["public.big"] });
      await eventually("some of it to be written", async () => await stamps(b, "big") !== before);
      await victim.node.kill();
      await victim.node.start();
      await eventually("the job to have ended", async () => {
        const { json: { items: [{ state }] } } = await a.node.api("GET", "/v1/jobs");
        return state === "failed" || state === "succeeded";
      }, { timeoutMs: 60_000 });
    }
    await eventually("a repair to end well", async () => (await repair(a, "public.big")).code === 0, {
      timeoutMs: 60_000,
    });
    assert.equal(await allRows(a, "big"), await allRows(b, "big"));
    assert.ok(!(await allRows(a, "big")).includes("older"));
    await arrived(b, "big", 20_000);
  });

  await t.step("what means nothing is refused with a hint", async () => {
    const wrong: [string[], RegExp][] = [
      [
        ["--repair", "--newest", "--source", "nb"],
        /Cannot repair by --newest rows and by those of a --source/,
      ],
      [["--repair", "--newest", "--peer", "nb", "--peer", "nc"], /with several peers at once/],
      [["--repair", "--newest", "--peer", "nc"], /there is no such peer/],
      [["--newest"], /Cannot use --newest without --repair/],
    ];
    for (const [args, message] of wrong) {
      const { code, stderr } = await a.node.cli("verify", ...args);
      assert.equal(code, 64, stderr);
      assert.match(stderr, message);
    }
  });
});
