/** Patterns of tables that come and go on nodes that run, through commands and the API, and stay across restarts. */
import assert from "node:assert/strict";
import { arrived, type Cluster, type ClusterMember, startCluster } from "./support/cluster.ts";
import { runMmlite } from "./support/mmlite.ts";
import { eventually } from "./support/poll.ts";
import { startPostgres } from "./support/postgres.ts";

const SCHEMA = `
  CREATE TABLE public.first (id int PRIMARY KEY);
  CREATE SCHEMA app;
  CREATE TABLE app.orders (id int PRIMARY KEY, v text);
  CREATE TABLE app.log (v text);
  CREATE TABLE app."odd.Na""me" (id int PRIMARY KEY);
  CREATE TABLE app.parted (id int) PARTITION BY RANGE (id);
  CREATE TABLE app.parted_1 PARTITION OF app.parted FOR VALUES FROM (0) TO (100);
  ALTER TABLE app.parted_1 ADD PRIMARY KEY (id)`;

async function openPair(): Promise<Cluster> {
  await using stack = new AsyncDisposableStack();
  const members = await Promise.all(([10, 18] as const).map(async (major, i) => {
    const server = stack.use(await startPostgres({ major }));
    return { server, name: "ab"[i], schema: SCHEMA };
  }));
  const cluster = stack.use(await startCluster("app", members));
  const owned = stack.move();
  return { members: cluster.members, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

async function ids({ client }: ClusterMember, table: string): Promise<unknown[]> {
  const { rows } = await client.query({ text: `SELECT * FROM ${table} ORDER BY 1`, rowMode: "array" });
  return rows.map(([first]) => first);
}

async function run({ node }: ClusterMember, ...args: string[]) {
  const { code, stdout, stderr } = await node.cli(...args);
  return { code, said: `${stdout}${stderr}` };
}

async function patternsOf({ node }: ClusterMember): Promise<string[]> {
  const { json } = await node.api("GET", "/v1/tables/patterns");
  return json.items.map(({ pattern, kind, from, active }: Record<string, unknown>) =>
    `${pattern} ${kind} ${from}${active ? "" : " overruled"}`
  );
}

Deno.test("patterns are added and removed while nodes run", async (t) => {
  await using cluster = await openPair();
  const [a, b] = cluster.members;
  await a.client.query("INSERT INTO app.orders VALUES (1, 'before'); INSERT INTO app.log VALUES ('before')");

  await t.step("a dry run changes nothing", async () => {
    const { code, said } = await run(a, "tables", "add", "app.*", "--dry-run");
    assert.equal(code, 0, said);
    assert.match(
      said,
      /would be added; it matches 5 tables\nWould be published: app\.log, app\."odd\.Na""me"/,
    );
    assert.deepEqual(await patternsOf(a), ["public.* include file"]);
  });

  await t.step("one that is added is followed at once, and says what it leaves to do", async () => {
    for (const one of [a, b]) {
      const { code, said } = await run(one, "tables", "add", "app.*");
      assert.equal(code, 0, said);
      assert.match(said, /^Pattern app\.\* is added; it matches 5 tables\nPublished from now on: app\.log, /);
      assert.match(said, /app\.log: only its inserts, as it has no usable key\. Add a primary key/);
      assert.match(said, /Rows that they have already are not sent/);
      const again = await run(one, "tables", "add", "app.*");
      assert.match(
        again.said,
        /^Pattern app\.\* is there already; it matches 5 tables; what is published stays as it is\n$/,
      );
      assert.deepEqual(await patternsOf(one), ["app.* include api", "public.* include file"]);
    }
    await a.client.query(
      `INSERT INTO app.orders VALUES (2, 'a'); INSERT INTO app.log VALUES ('a'); UPDATE app.log SET v = v;
       INSERT INTO app."odd.Na""me" VALUES (2); INSERT INTO app.parted VALUES (2)`,
    );
    await b.client.query(
      `INSERT INTO app.orders VALUES (3, 'b'); INSERT INTO app.log VALUES ('b'); INSERT INTO app.parted VALUES (3)`,
    );
    await arrived(a, b);
    await arrived(b, a);
    assert.deepEqual(await ids(b, "app.orders"), [2, 3]);
    assert.deepEqual(await ids(a, "app.log"), ["a", "b", "before"]);
    assert.deepEqual(await ids(b, 'app."odd.Na""me"'), [2]);
    assert.deepEqual([await ids(a, "app.parted"), await ids(b, "app.parted")], [[2, 3], [2, 3]]);
  });

  await t.step("rows from before are found by verify, and fetched by resync", async () => {
    const differs = await run(b, "verify", "app.orders");
    assert.equal(differs.code, 1, differs.said);
    const fetched = await run(b, "tables", "resync", "app.orders", "--from", "a");
    assert.equal(fetched.code, 0, fetched.said);
    assert.deepEqual(await ids(b, "app.orders"), [1, 2, 3]);
    const equal = await run(b, "verify", "app.orders");
    assert.equal(equal.code, 0, equal.said);
  });

  await t.step("it outlives a restart, and `tables list` and `config show` tell of it", async () => {
    await a.node.restart();
    const listed = await run(a, "tables", "list");
    assert.match(listed.said, /^app\.orders +replicated/m);
    assert.match(listed.said, /^app\.\* +include +set here\npublic\.\* +include +the configuration$/m);
    const shown = await runMmlite([
      ...["config", "show", "--origin", "--name", "a", "--postgres", "postgres:///x", "--tables", "public.*"],
      ...["--api", a.node.apiUrl.replace("http://", "")],
    ]);
    assert.match(shown.stdout, /^tables\.include +\["app\.\*","public\.\*"\] +API, over --tables/m);
    await a.client.query("INSERT INTO app.orders VALUES (4, 'a')");
    await arrived(a, b);
    assert.deepEqual(await ids(b, "app.orders"), [1, 2, 3, 4]);
  });

  await t.step("what is left out or removed is not sent, and still received", async () => {
    const left = await run(a, "tables", "add", "--exclude", "app.orders");
    assert.match(
      left.said,
      /^Pattern app\.orders is left out; it matches 1 table\nNot published any more: app\.orders\n/,
    );
    assert.match(left.said, /What peers send of them is applied still/);
    await a.client.query("INSERT INTO app.orders VALUES (5, 'a'); INSERT INTO app.log VALUES ('later')");
    await b.client.query("INSERT INTO app.orders VALUES (6, 'b')");
    await arrived(a, b);
    await arrived(b, a);
    assert.deepEqual(await ids(b, "app.orders"), [1, 2, 3, 4, 6]);
    assert.deepEqual(await ids(a, "app.orders"), [1, 2, 3, 4, 5, 6]);
    assert.ok((await ids(b, "app.log")).includes("later"));
    const removed = await run(a, "tables", "remove", "app.orders");
    assert.match(
      removed.said,
      /^Pattern app\.orders is removed; it matches 1 table\nPublished from now on: app\.orders\n/,
    );
    const gone = await run(a, "tables", "remove", "app.*");
    assert.match(
      gone.said,
      /^Pattern app\.\* is removed; it matches 5 tables\nNot published any more: app\.log, /,
    );
    assert.deepEqual(await patternsOf(a), ["public.* include file"]);
    assert.equal((await a.node.api("GET", "/v1/tables/app.orders")).status, 404);
  });

  await t.step("one of the file can be overruled, and comes back", async () => {
    const removed = await run(a, "tables", "remove", "public.*");
    assert.equal(removed.code, 0, removed.said);
    await a.node.restart();
    assert.deepEqual(await patternsOf(a), ["public.* include file overruled"]);
    assert.match((await run(a, "status")).said, /Cannot replicate anything: there is no pattern/);
    assert.equal((await a.node.api("DELETE", "/v1/tables/patterns/public.*")).status, 200);
    const back = await a.node.api("PUT", "/v1/tables/patterns/public.*", {});
    assert.deepEqual([back.status, back.json.from], [201, "file"]);
    assert.deepEqual(await patternsOf(a), ["public.* include file"]);
    await a.client.query("INSERT INTO public.first VALUES (1)");
    await arrived(a, b);
    assert.deepEqual(await ids(b, "public.first"), [1]);
  });

  await t.step("what makes no sense is told, and changes nothing", async () => {
    const wrong = await run(a, "tables", "add", "orders");
    assert.deepEqual([wrong.code, /expected schema\.table/.test(wrong.said)], [64, true], wrong.said);
    const none = await run(a, "tables", "add", "nowhere.*");
    assert.match(
      none.said,
      /^Pattern nowhere\.\* is added; it matches no table here, and one that is created later/,
    );
    assert.equal((await run(a, "tables", "remove", "nowhere.*")).code, 0);
    const unknown = await run(a, "tables", "remove", "nowhere.*");
    assert.notEqual(unknown.code, 0);
    assert.match(unknown.said, /Cannot remove pattern "nowhere\.\*": there is no such pattern/);
    const table = await run(a, "tables", "remove", "public.first");
    assert.match(
      table.said,
      /matched by public\.\*: leave it out by `mmlite tables add --exclude public\.first`/,
    );
    const unread = await a.node.api("PUT", "/v1/tables/patterns/app.*", { kind: "some" });
    assert.equal(unread.status, 422, JSON.stringify(unread.json));
    assert.deepEqual(await patternsOf(a), ["public.* include file"]);
  });

  await t.step(
    "a new table of a pattern that was added is sent with its rows, once the peer has it",
    async () => {
      assert.equal((await run(a, "tables", "add", "later.*")).code, 0);
      await a.client.query(
        "CREATE SCHEMA later; CREATE TABLE later.t (id int PRIMARY KEY); INSERT INTO later.t SELECT generate_series(1, 9)",
      );
      await eventually("the link to be blocked", async () => {
        const { json } = await a.node.api("GET", "/v1/peers/b");
        return json.state === "blocked" && /there is no such table here/.test(json.last_error.message);
      });
      await b.client.query("CREATE SCHEMA later; CREATE TABLE later.t (id int PRIMARY KEY)");
      await eventually("the rows to come", async () => (await ids(b, "later.t")).length === 9, {
        timeoutMs: 60_000,
      });
    },
  );

  await t.step("and one that was created while the node was stopped", async () => {
    await a.node.stop();
    await a.client.query("CREATE TABLE later.u (id int PRIMARY KEY); INSERT INTO later.u VALUES (1), (2)");
    await b.client.query("CREATE TABLE later.u (id int PRIMARY KEY)");
    await a.node.start();
    await eventually("the rows to come", async () => (await ids(b, "later.u")).length === 2);
  });
});
