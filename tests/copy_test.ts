/** Copying the rows of a busy mesh to a node that is new in it: every row once, with its version, and nothing sent on. */
import assert from "node:assert/strict";
import { delay } from "../src/backoff.ts";
import { arrived, type ClusterMember } from "./support/cluster.ts";
import { copy, ended, requireEqual, startEmpty, startFilled } from "./support/copy_bed.ts";
import { connectAll } from "./support/mmlite.ts";
import { eventually } from "./support/poll.ts";
import { startPostgres } from "./support/postgres.ts";
import { writersOn } from "./support/writers.ts";

/** Between two transactions of a writer, milliseconds. */
const REST_MS = 15;
let nextId = 1_000_000;

/** Writes on nodes until it is disposed of. Each transaction leaves one entry of its own: lost or doubled, it shows. */
function writing(members: readonly ClusterMember[]): AsyncDisposable {
  return writersOn(members, {
    restMs: REST_MS,
    write: async (client, { place, round, node }) => {
      const id = nextId++;
      await client.query(
        `BEGIN; INSERT INTO entry VALUES ('${node}', ${round}, 'once');
           INSERT INTO item (id, name, n) VALUES (${id}, 'new', ${round});
           UPDATE item SET n = n + 1, name = '${node}' WHERE id = ${1 + round * 7 % 400};
           UPDATE item SET id = -id WHERE id = ${500 + round % 300 * 2 + place};
           DELETE FROM item WHERE id = ${id - 40};
           UPDATE "Odd Name" SET "Key" = 'k${round}' WHERE b = ${1 + round % 20 + place * 20};
           ${round % 50 === place ? "TRUNCATE gone;" : ""} INSERT INTO gone VALUES (${id}); COMMIT`,
      );
    },
  });
}

Deno.test("a node that is new in a busy mesh gets every row once", async (t) => {
  await using a = await startPostgres({ major: 18 });
  await using b = await startPostgres({ major: 12 });
  await using cluster = await startFilled(a, b);
  const [ams, fra] = cluster.members;

  for (const [major, from] of [[16, "ams"], [10, "fra"]] as const) {
    await t.step(`on PostgreSQL ${major}, from "${from}"`, async () => {
      await using joiner = await startEmpty(major, `new${major}`);
      const members = [ams, fra, joiner];
      {
        await using _writers = writing([ams, fra]);
        await connectAll(members.map(({ node }) => node));
        const { state, error } = await copy(joiner, from);
        assert.equal(state, "succeeded", JSON.stringify(error));
        await delay(500);
      }
      await requireEqual(members);
      await joiner.client.query("INSERT INTO item (id, name, n) VALUES (-1, 'of the new one', 0)");
      await arrived(joiner, ams);
      await requireEqual(members);
      for (const { node } of [ams, fra]) await node.api("DELETE", `/v1/peers/${joiner.node.name}?force=true`);
      await ams.client.query("DELETE FROM item WHERE id = -1");
      await arrived(ams, fra);
    });
  }
});

Deno.test("a copy is refused, held up, cut short and gone on with", async (t) => {
  await using a = await startPostgres({ major: 18 });
  await using cluster = await startFilled(a);
  const [ams] = cluster.members;
  await using joiner = await startEmpty(14, "new");
  await connectAll([ams.node, joiner.node]);
  // Each step goes on from where the one before has come to.
  const step = async (name: string, body: () => Promise<void>) => {
    if (!await t.step(name, body)) throw new Error(`The steps after "${name}" would fail`);
  };
  const status = async () => JSON.stringify((await joiner.node.api("GET", "/v1/status")).json.problems);
  const begin = async () => {
    const { status, json } = await joiner.node.api("POST", "/v1/jobs", { type: "copy", from: "ams" });
    assert.equal(status, 202, JSON.stringify(json));
    return json.id as string;
  };

  await step("from nobody that is known", async () => {
    const { status, json } = await joiner.node.api("POST", "/v1/jobs", { type: "copy", from: "nobody" });
    assert.equal(status, 400);
    assert.match(json.detail, /no peer of that name/);
  });

  await step("over rows that were written here, which stay and can be written to", async () => {
    await joiner.client.query("INSERT INTO gone VALUES (1)");
    const { state, error } = await copy(joiner, "ams");
    assert.equal(state, "failed");
    assert.match(JSON.stringify(error), /there are rows already in public\.gone/);
    await joiner.client.query("INSERT INTO gone VALUES (2)");
    await joiner.client.query("TRUNCATE gone");
  });

  await step("into a table that is missing here", async () => {
    await ams.client.query("CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (1)");
    await eventually(
      "the table to be replicated",
      async () => JSON.stringify((await ams.node.api("GET", "/v1/tables")).json).includes(`"later"`),
    );
    const { state, error } = await copy(joiner, "ams");
    assert.equal(state, "failed");
    assert.match(JSON.stringify(error), /table public\.later.* is missing here/);
    assert.match(await status(), /rows of this node are not whole.*has not ended/);
    await joiner.client.query("CREATE TABLE later (id int PRIMARY KEY)");
  });

  await step("applications are kept out, and nothing is received", async () => {
    await assert.rejects(joiner.client.query("INSERT INTO item VALUES (1)"), /its rows are being copied/);
    await ams.client.query("INSERT INTO gone VALUES (77)");
    await eventually("the sender to be told", async () => {
      const { json } = await ams.node.api("GET", "/v1/peers/new");
      return JSON.stringify(json.last_error).includes("copies its rows from");
    });
  });

  await step("a transaction that runs at the source holds it up, and it goes on after kills", async () => {
    const isHeldUp = () =>
      eventually("it to be told", async () => {
        const problems = await status();
        if (/transactions that run on .*ams.* have to end/.test(problems)) return true;
        throw new Error(problems);
      });
    const open = await a.connect("copied");
    await open.query("BEGIN; INSERT INTO gone VALUES (78)");
    const id = await begin();
    await isHeldUp();
    await joiner.node.kill();
    await joiner.node.start();
    await isHeldUp();
    await ams.node.kill();
    await ams.node.start();
    await isHeldUp();
    await assert.rejects(joiner.client.query("INSERT INTO item VALUES (1)"), /its rows are being copied/);
    await open.query("COMMIT");
    await open.end();
    const { state, error, result } = await ended(joiner.node, id);
    assert.equal(state, "succeeded", JSON.stringify(error));
    assert.equal((result as { tables: { table: string; rows: number }[] }).tables.length, 7);
    await requireEqual([ams, joiner]);
    assert.doesNotMatch(await status(), /copied|whole/);
  });

  await step("then both are written to", async () => {
    await joiner.client.query("INSERT INTO item (id, name, n) VALUES (-1, 'new', 0)");
    await ams.client.query("UPDATE item SET n = 5 WHERE id = 7; TRUNCATE gone");
    await requireEqual([ams, joiner]);
  });
});
