/** Schemas that differ, or change while data flows: the link concerned stops, says why, and goes on by itself. */
import assert from "node:assert/strict";
import { arrived, type ClusterMember, startCluster } from "./support/cluster.ts";
import { eventually } from "./support/poll.ts";
import { startPostgres } from "./support/postgres.ts";

const SCHEMA = `
CREATE TABLE plain (id int PRIMARY KEY, v int);
CREATE TABLE doomed (id int PRIMARY KEY, v int);`;
const MISSING = "CREATE TABLE missing (id int PRIMARY KEY, v int);";
const LACKING = "CREATE TABLE lacking (id int PRIMARY KEY, v int, w text);";
const SHUFFLED = "CREATE TABLE shuffled (id int, a int, b text, PRIMARY KEY (id, b));";
/** The receiver that differs: without a table, without a column, with columns in another order and one more. */
const DIFFERING = `${SCHEMA}
CREATE TABLE lacking (id int PRIMARY KEY, v int);
CREATE TABLE shuffled (b text, extra text NOT NULL DEFAULT 'local', a int, id int, PRIMARY KEY (b, id));`;

async function rowsOf({ client }: ClusterMember, sql: string): Promise<unknown[]> {
  return (await client.query(sql)).rows;
}

async function run(members: readonly ClusterMember[], sql: string): Promise<void> {
  for (const { client } of members) await client.query(sql);
}

/** Waits until the link is blocked by a schema that differs; what is then said of it at both ends. */
async function blocked(
  from: ClusterMember,
  to: ClusterMember,
): Promise<{ sender: string; receiver: string }> {
  const look = async () => {
    const { json: link } = await from.node.api("GET", `/v1/peers/${to.node.name}`);
    const { json: { inbound } } = await to.node.api("GET", `/v1/peers/${from.node.name}`);
    const errors = [link.last_error, inbound.last_error];
    if (link.state !== "blocked" || errors.some((error) => error?.kind !== "schema_mismatch")) {
      throw new Error(`${link.state}, ${JSON.stringify(errors)}`);
    }
    return { sender: link.last_error.message, receiver: inbound.last_error.message };
  };
  return await eventually(`the link ${from.node.name} to ${to.node.name} to be blocked`, look);
}

async function stateOf(from: ClusterMember, to: ClusterMember): Promise<string> {
  return (await from.node.api("GET", `/v1/peers/${to.node.name}`)).json.state;
}

/** Waits until a table of this name, as it is now, is published. */
async function published({ client, node }: ClusterMember, table: string): Promise<void> {
  await eventually(`${table} to be published by ${node.name}`, async () => {
    const { rowCount } = await client.query("SELECT FROM pg_publication_tables WHERE tablename = $1", [
      table,
    ]);
    return rowCount === 1;
  });
}

Deno.test("schemas that differ or change stop one link at most, until they fit", async (t) => {
  await using servers = new AsyncDisposableStack();
  const [newest, middle, oldest] = await Promise.all(
    ([18, 16, 12] as const).map(async (major) => servers.use(await startPostgres({ major }))),
  );
  await using cluster = await startCluster("drift", [
    { server: newest, name: "ams", schema: SCHEMA + MISSING + LACKING + SHUFFLED },
    { server: middle, name: "fra", schema: DIFFERING },
    { server: oldest, name: "nyc", schema: SCHEMA + MISSING + LACKING + SHUFFLED },
  ]);
  const [ams, fra, nyc] = cluster.members;
  const receivers = [fra, nyc];
  const all = [ams, fra, nyc];
  const delivered = () => Promise.all(receivers.map((receiver) => arrived(ams, receiver)));
  const assertSame = async (sql: string) => {
    const expected = await rowsOf(ams, sql);
    for (const receiver of receivers) {
      assert.deepEqual(await rowsOf(receiver, sql), expected, receiver.node.name);
    }
  };

  await t.step("columns in another order, and one more with a default", async () => {
    await run([ams], "INSERT INTO shuffled VALUES (1, 10, 'x'), (2, 20, 'y'), (3, 30, 'z')");
    await run([ams], "UPDATE shuffled SET a = 11 WHERE id = 1");
    await run([ams], "UPDATE shuffled SET b = 'yy' WHERE id = 2");
    await run([ams], "DELETE FROM shuffled WHERE id = 3");
    await delivered();
    await assertSame("SELECT id, a, b FROM shuffled ORDER BY id");
    assert.deepEqual(await rowsOf(fra, "SELECT DISTINCT extra FROM shuffled"), [{ extra: "local" }]);
  });

  const stopsOnly = async (names: readonly string[]) => {
    const said = await blocked(ams, fra);
    for (const name of names) {
      assert.ok(said.sender.includes(name), said.sender);
      assert.ok(said.receiver.includes(name), said.receiver);
    }
    await arrived(ams, nyc);
    await arrived(fra, ams);
    await arrived(fra, nyc);
    assert.equal(await stateOf(ams, fra), "blocked");
  };
  const goesOn = async () => {
    await delivered();
    assert.equal(await stateOf(ams, fra), "streaming");
  };

  await t.step("a missing table blocks one link until it is there", async () => {
    await run([ams], "INSERT INTO missing VALUES (1, 1)");
    await run([ams], "INSERT INTO plain VALUES (1, 1)");
    await stopsOnly(['"public.missing"']);
    await run([fra], MISSING);
    await goesOn();
    await assertSame("SELECT * FROM missing");
  });

  await t.step("a missing column blocks one link until it is there", async () => {
    await run([ams], "INSERT INTO lacking VALUES (1, 1, 'w')");
    await run([ams], "UPDATE plain SET v = 2");
    await stopsOnly(['"public.lacking"', 'column "w"']);
    await run([fra], "ALTER TABLE lacking ADD w text");
    await goesOn();
    await assertSame("SELECT * FROM lacking");
    await assertSame("SELECT * FROM plain");
  });

  await t.step("columns added, widened, renamed and dropped between transactions", async () => {
    const write = async (sql: string) => {
      await run([ams], sql);
      await delivered();
    };
    await write("INSERT INTO plain VALUES (2, 2); UPDATE plain SET v = 3 WHERE id = 2");
    await run(receivers, "ALTER TABLE plain ADD w int DEFAULT 7");
    await write("INSERT INTO plain VALUES (3, 3)");
    await run([ams], "ALTER TABLE plain ADD w int DEFAULT 7");
    await write("INSERT INTO plain VALUES (4, 4, 4); UPDATE plain SET w = 8 WHERE id = 3");
    await run([...receivers, ams], "ALTER TABLE plain ALTER v TYPE bigint");
    await write(
      "INSERT INTO plain VALUES (5, 1099511627776); UPDATE plain SET v = 1099511627777 WHERE id = 4",
    );
    await run([...receivers, ams], "ALTER TABLE plain RENAME v TO value");
    await write("UPDATE plain SET value = -value WHERE id > 3");
    await run([ams, ...receivers], "ALTER TABLE plain DROP w");
    await write("INSERT INTO plain VALUES (6, 6); UPDATE plain SET value = 9 WHERE id = 6");
    await run([...receivers, ams], "ALTER TABLE plain ALTER id TYPE text");
    await write("INSERT INTO plain VALUES ('seven', 7); UPDATE plain SET value = 70 WHERE id = 'seven'");
    await write(
      "BEGIN; INSERT INTO plain VALUES ('8', 8); ALTER TABLE plain ALTER value TYPE numeric; COMMIT",
    );
    await write("DELETE FROM plain WHERE id = '2'");
    await assertSame("SELECT id, value::text FROM plain ORDER BY id");
  });

  await t.step("a type changed by a receiver alone", async () => {
    await run([fra], "ALTER TABLE plain ALTER id TYPE varchar(20), ALTER value TYPE text");
    await run([ams], "UPDATE plain SET value = value + 1");
    await run([ams], "DELETE FROM plain WHERE id = '8'");
    await delivered();
    await assertSame("SELECT id, value::text FROM plain ORDER BY id");
  });

  await t.step("a table dropped and made again under the same name", async () => {
    await run([ams], "INSERT INTO doomed VALUES (1, 1)");
    await delivered();
    await run(all, "DROP TABLE doomed; CREATE TABLE doomed (other text, id text PRIMARY KEY)");
    await published(ams, "doomed");
    await run([ams], "INSERT INTO doomed VALUES ('a', 'b'); UPDATE doomed SET other = 'c'");
    await delivered();
    await assertSame("SELECT * FROM doomed");
    await run([fra], "DROP TABLE doomed; CREATE TABLE doomed (id varchar(9) PRIMARY KEY, other text)");
    await run([ams], "INSERT INTO doomed VALUES ('d', 'e')");
    await delivered();
    assert.deepEqual(await rowsOf(fra, "SELECT * FROM doomed"), [{ id: "e", other: "d" }]);
  });

  await t.step("a table that is made while all run is picked up", async () => {
    await run(all, "CREATE TABLE late (id int PRIMARY KEY)");
    for (const member of all) await published(member, "late");
    await eventually(
      "late to be listed",
      async () => (await ams.node.api("GET", "/v1/tables/public.late")).status === 200,
    );
    for (const [id, member] of all.entries()) await member.client.query("INSERT INTO late VALUES ($1)", [id]);
    for (const from of all) for (const to of all) if (to !== from) await arrived(from, to);
    await assertSame("SELECT * FROM late ORDER BY id");
  });
});
