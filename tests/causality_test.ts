/** Three nodes, one of which is cut off from another: what came because of what, and what is seen of it. */
import assert from "node:assert/strict";
import { CAUSE_WAIT_MS } from "../src/node/causality.ts";
import { type Cluster, startCluster } from "./support/cluster.ts";
import { type CutProxy, startCutProxy } from "./support/cut_proxy.ts";
import { eventually } from "./support/poll.ts";
import { type PostgresServer, startPostgres } from "./support/postgres.ts";

const SCHEMA = "CREATE TABLE t (id int PRIMARY KEY, v text)";

interface Trio extends AsyncDisposable {
  readonly a: Cluster["members"][number];
  readonly b: Cluster["members"][number];
  readonly c: Cluster["members"][number];
  /** Between a and c, whoever dials. */
  readonly proxies: readonly CutProxy[];
  /** Lets nothing pass between a and c, or everything. */
  connected(on: boolean): Promise<void>;
}

async function startTrio(
  servers: readonly PostgresServer[],
  { database, consistency }: { database: string; consistency: string },
): Promise<Trio> {
  await using owned = new AsyncDisposableStack();
  const extraArgs = ["--consistency", consistency];
  const cluster = owned.use(
    await startCluster(
      database,
      // Slots are the server's: each cluster has names of its own.
      ["a", "b", "c"].map((name, i) => ({
        ...{ server: servers[i], name: `${name}-${database}`, schema: SCHEMA, extraArgs },
      })),
    ),
  );
  const [a, b, c] = cluster.members;
  const proxies: CutProxy[] = [];
  for (const [from, to] of [[a, c], [c, a]]) {
    const proxy = owned.use(await startCutProxy(to.node.peerUrl));
    proxies.push(proxy);
    await from.node.api("PUT", `/v1/peers/${to.node.name}`, { url: proxy.url });
    await eventually("the link to go through the proxy", async () => {
      const { json } = await from.node.api("GET", `/v1/peers/${to.node.name}`);
      return proxy.connections > 0 && json.state === "streaming";
    });
  }
  const resources = owned.move();
  return {
    ...{ a, b, c, proxies },
    connected: async (on) => {
      for (const proxy of proxies) {
        proxy.open(on);
        if (!on) proxy.cut();
      }
      if (!on) return;
      for (const [from, to] of [[a, c], [c, a]]) {
        await from.node.api("POST", `/v1/peers/${to.node.name}/retry`);
      }
    },
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

const rowsOf = async ({ client }: Cluster["members"][number]) =>
  (await client.query("SELECT id, v FROM t ORDER BY id")).rows.map(({ id, v }) => `${id} ${v}`);

async function timeouts(
  { node }: Cluster["members"][number],
  { node: { name: peer } }: Cluster["members"][number],
): Promise<number> {
  const { json } = await node.api("GET", "/metrics");
  return Number(json.match(new RegExp(`mmlite_causal_timeouts_total\\{peer="${peer}"\\} (\\d+)`))?.[1] ?? 0);
}

/** Inserts at a, and changes that at b once it has arrived there. */
async function insertAndUpdate({ a, b }: Trio, id: number): Promise<void> {
  await a.client.query("INSERT INTO t VALUES ($1, 'insert')", [id]);
  await eventually("the row to arrive", async () => (await rowsOf(b)).includes(`${id} insert`));
  await b.client.query("UPDATE t SET v = 'update' WHERE id = $1", [id]);
}

Deno.test("three nodes, two of them cut off from each other", async (t) => {
  await using stack = new AsyncDisposableStack();
  const servers: PostgresServer[] = [];
  for (let i = 0; i < 3; i++) servers.push(stack.use(await startPostgres({ major: 18 })));

  await t.step("causal: nothing is seen of an update before its insert", async () => {
    await using trio = await startTrio(servers, { database: "causal", consistency: "causal" });
    const { b, c } = trio;
    await trio.connected(false);
    const started = performance.now();
    await insertAndUpdate(trio, 1);
    await trio.a.client.query("INSERT INTO t VALUES (2, 'other')");
    await eventually("b to have sent it", async () => {
      const { json } = await b.node.api("GET", `/v1/peers/${c.node.name}`);
      return Number(json.lag_bytes) > 0 && json.sent_transactions > 0;
    });
    assert(performance.now() - started < CAUSE_WAIT_MS / 2, "the machine is too slow for this test");
    assert.deepEqual(await rowsOf(c), []);
    await trio.connected(true);
    await eventually("all of it", async () => {
      const rows = await rowsOf(c);
      return rows.length === 2 && rows[0] === "1 update";
    });
    assert(performance.now() - started < CAUSE_WAIT_MS);
    assert.equal(await timeouts(c, trio.a), 0);
  });

  await t.step(
    "causal: once the time has run out it is seen all the same, and nothing waits again",
    async () => {
      await using trio = await startTrio(servers, { database: "late", consistency: "causal" });
      const { c } = trio;
      await trio.connected(false);
      const started = performance.now();
      await insertAndUpdate(trio, 1);
      await eventually("the update", async () => (await rowsOf(c)).includes("1 update"));
      const waited = performance.now() - started;
      assert(waited > CAUSE_WAIT_MS - 100, `${waited} ms`);
      assert.equal(await timeouts(c, trio.a), 1);
      const again = performance.now();
      await insertAndUpdate(trio, 2);
      await eventually("the next", async () => (await rowsOf(c)).includes("2 update"));
      assert(performance.now() - again < CAUSE_WAIT_MS);
      assert.equal(await timeouts(c, trio.a), 1);
      await trio.connected(true);
      await eventually("a to be heard", async () => {
        const { json } = await c.node.api("GET", `/v1/peers/${trio.a.node.name}`);
        return json.inbound.changes >= 2;
      });
    },
  );

  await t.step("eventual: an update is seen at once", async () => {
    await using trio = await startTrio(servers, { database: "eventual", consistency: "eventual" });
    await trio.connected(false);
    const started = performance.now();
    await insertAndUpdate(trio, 1);
    await eventually("the update", async () => (await rowsOf(trio.c)).includes("1 update"));
    assert(performance.now() - started < CAUSE_WAIT_MS);
    assert.equal(await timeouts(trio.c, trio.a), 0);
  });
});
