/** Tables whose key is deferrable, written on three nodes at once: no key is there twice, and nodes end equal. */
import assert from "node:assert/strict";
import { arrived, type ClusterMember, startCluster } from "./support/cluster.ts";
import { eventually } from "./support/poll.ts";
import { startPostgres } from "./support/postgres.ts";

const TABLES = { now: "INITIALLY IMMEDIATE", late: "INITIALLY DEFERRED" };
const SCHEMA = Object.entries(TABLES).map(([name, when]) =>
  `CREATE TABLE ${name} (id int PRIMARY KEY DEFERRABLE ${when}, v text);
   ALTER TABLE ${name} REPLICA IDENTITY FULL`
).join(";");
const KEYS = 6;
const TRANSACTIONS = 100;
const WRITERS = 2;

const rowsOf = (table: string) =>
  `SELECT '${table}' AS t, id, v, x.node, x.at::text AS at
     FROM ${table}, mmlite.row_version(xmin, mmlite.key_hash('public.${table}', ARRAY[id::text])) x`;
const ROWS = `${Object.keys(TABLES).map(rowsOf).join(" UNION ALL ")} ORDER BY 1, 2, 3`;

/** A sequence of numbers that follows from its seed. */
function randomOf(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor(state / 2 ** 32 * below);
  };
}

/** Transactions of one client; a key that is taken, or a deadlock, undoes one. */
async function write({ server, database, node }: ClusterMember, seed: number): Promise<void> {
  const random = randomOf(seed);
  const client = await server.connect(database);
  for (let i = 0; i < TRANSACTIONS; i++) {
    const statements: string[] = [];
    for (let left = 1 + random(3); left > 0; left--) {
      const table = Object.keys(TABLES)[random(2)];
      const [id, other, v] = [1 + random(KEYS), 1 + random(KEYS), `${node.name} ${seed} ${i} ${left}`];
      statements.push(
        [
          `INSERT INTO ${table} SELECT ${id}, '${v}' WHERE NOT EXISTS (SELECT FROM ${table} WHERE id = ${id})`,
          `UPDATE ${table} SET v = '${v}' WHERE id = ${id}`,
          `DELETE FROM ${table} WHERE id = ${id}`,
          `UPDATE ${table} SET id = ${other}, v = '${v}' WHERE id = ${id}`,
          `UPDATE ${table} SET id = ${KEYS + 1} - id, v = '${v}'`,
        ][random(5)],
      );
    }
    // What others write meanwhile does not see it.
    statements.push(`SELECT pg_sleep(${random(20) / 1000})`);
    try {
      await client.query(`BEGIN; ${statements.join("; ")}; COMMIT`);
    } catch (thrown) {
      await client.query("ROLLBACK");
      if (!["23505", "40P01"].includes((thrown as { code: string }).code)) throw thrown;
    }
  }
  await client.end();
}

Deno.test("deferrable keys that are written everywhere at once", async () => {
  await using oldest = await startPostgres({ major: 10 });
  await using middle = await startPostgres({ major: 14 });
  await using newest = await startPostgres({ major: 18 });
  await using cluster = await startCluster("deferrable", [
    { server: oldest, name: "da", schema: SCHEMA },
    { server: middle, name: "db", schema: SCHEMA },
    { server: newest, name: "dc", schema: SCHEMA },
  ]);
  const { members } = cluster;
  const writing = members.flatMap((member, n) =>
    Array.from({ length: WRITERS }, (_, w) => write(member, 10 * n + w))
  );
  await Promise.all(writing);
  for (const from of members) for (const to of members) if (from !== to) await arrived(from, to);
  const stateOf = async ({ client }: ClusterMember) => {
    const left = await client.query("SELECT FROM mmlite.second_look");
    return left.rowCount === 0
      ? (await client.query({ text: ROWS, rowMode: "array" })).rows.join("\n")
      : undefined;
  };
  await eventually("all nodes to hold the same", async () => {
    const [first, ...others] = await Promise.all(members.map(stateOf));
    if (first !== undefined && others.every((one) => one === first)) return true;
    throw new Error([first, ...others].join("\n"));
  }, { timeoutMs: 60_000 });
  for (const { client } of members) {
    for (const table of Object.keys(TABLES)) {
      const { rows } = await client.query(`SELECT id FROM ${table} GROUP BY id HAVING count(*) > 1`);
      assert.deepEqual(rows, []);
    }
  }
});
