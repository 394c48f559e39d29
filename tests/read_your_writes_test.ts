/** Three nodes: what was written, or read, on one of them is read on another once it has waited for a token. */
import assert from "node:assert/strict";
import type { ApiAnswer } from "./support/mmlite.ts";
import { type Cluster, type ClusterMember, startCluster } from "./support/cluster.ts";
import { type CutProxy, startCutProxy } from "./support/cut_proxy.ts";
import { eventually, within } from "./support/poll.ts";
import { type PostgresMajor, type PostgresServer, startPostgres } from "./support/postgres.ts";

const SCHEMA = `CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL);
  CREATE SCHEMA other; CREATE TABLE other.unsent (id int)`;

async function tokenOf({ node }: ClusterMember, query = ""): Promise<string> {
  const { status, json } = await node.api("GET", `/v1/token${query}`);
  assert.equal(status, 200, JSON.stringify(json));
  return json.token;
}

function wait({ node }: ClusterMember, token: string, timeout = "20s"): Promise<ApiAnswer> {
  return node.api("GET", `/v1/wait?token=${token}&timeout=${timeout}`);
}

async function reached(member: ClusterMember, token: string): Promise<number> {
  const { status, json } = await wait(member, token);
  assert.equal(status, 200, JSON.stringify(json));
  assert.equal(json.reached, true);
  return json.waited_seconds;
}

async function valueOf({ client }: ClusterMember, id: number): Promise<number | undefined> {
  return (await client.query("SELECT v FROM t WHERE id = $1", [id])).rows[0]?.v;
}

async function write({ client }: ClusterMember, id: number, v: number): Promise<void> {
  await client.query("INSERT INTO t VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET v = $2", [id, v]);
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
}

interface Trio extends AsyncDisposable {
  readonly a: ClusterMember;
  readonly b: ClusterMember;
  readonly c: ClusterMember;
}

async function startTrio(servers: readonly PostgresServer[], database: string): Promise<Trio> {
  const cluster: Cluster = await startCluster(
    database,
    ["a", "b", "c"].map((name, i) => ({ server: servers[i], name: `${name}-${database}`, schema: SCHEMA })),
  );
  const [a, b, c] = cluster.members;
  return { a, b, c, [Symbol.asyncDispose]: () => cluster[Symbol.asyncDispose]() };
}

/** Puts a proxy between two nodes, by which `from` reaches `to`. */
async function proxied(from: ClusterMember, to: ClusterMember): Promise<CutProxy> {
  const proxy = await startCutProxy(to.node.peerUrl);
  await from.node.api("PUT", `/v1/peers/${to.node.name}`, { url: proxy.url });
  await streaming(from, to);
  return proxy;
}

async function streaming(from: ClusterMember, to: ClusterMember): Promise<void> {
  await eventually(`${from.node.name} to stream`, async () => {
    const { json } = await from.node.api("GET", `/v1/peers/${to.node.name}`);
    const back = (await to.node.api("GET", `/v1/peers/${from.node.name}`)).json.inbound.state;
    return json.state === "streaming" && back === "streaming";
  });
}

// The oldest releases tell how far they have read in another way.
const RELEASES: readonly PostgresMajor[][] = [[18, 16, 14], [10, 12, 13]];

for (const majors of RELEASES) {
  Deno.test(`what was written on one of three nodes (PostgreSQL ${majors}) is read on the others`, async (t) => {
    await using stack = new AsyncDisposableStack();
    const servers: PostgresServer[] = [];
    for (const major of majors) servers.push(stack.use(await startPostgres({ major })));
    const trio = stack.use(await startTrio(servers, "reads"));
    const { a, b, c } = trio;

    await t.step("nothing old is read after a wait, on any node, however much is written", async () => {
      const stop = new AbortController();
      // Others write as well, with commits that are not on disk when they are seen, and into what is not sent.
      const noise = [a, b, c].map(async ({ server, database }, i) => {
        const client = await server.connect(database);
        try {
          await client.query("SET synchronous_commit = off");
          for (let n = 0; !stop.signal.aborted; n++) {
            await client.query("INSERT INTO t VALUES ($1, 0)", [1_000_000 * (i + 1) + n]);
            await client.query("INSERT INTO other.unsent VALUES (1)");
          }
        } finally {
          await client.end();
        }
      });
      const writers = [[a, b, c], [b, c, a], [c, a, b]].map(async ([at, ...readers], i) => {
        const client = await at.server.connect(at.database);
        try {
          if (i === 1) await client.query("SET synchronous_commit = off");
          for (let v = 1; v <= 100; v++) {
            await write({ ...at, client }, i, v);
            const token = await tokenOf(at);
            for (const reader of readers) {
              await reached(reader, token);
              assert.equal(await valueOf(reader, i), v);
            }
          }
        } finally {
          await client.end();
        }
      });
      await Promise.all(writers).finally(() => stop.abort());
      await Promise.all(noise);
    });

    await t.step("what was read on a second node is read on a third", async () => {
      for (let v = 1; v <= 30; v++) {
        await write(a, 10, v);
        await eventually("b to have it", async () => await valueOf(b, 10) === v, { intervalMs: 1 });
        await reached(c, await tokenOf(b));
        assert.equal(await valueOf(c, 10), v);
      }
    });

    await t.step("on an idle link a wait takes no time, whatever the WAL ends with", async () => {
      const kinds: [string, () => Promise<unknown>][] = [
        ["a change", () => write(a, 20, 1)],
        ["nothing", () => Promise.resolve()],
        ["what is not published", () => a.client.query("INSERT INTO other.unsent VALUES (1)")],
        ["a row locked", () => a.client.query("SELECT FROM t WHERE id = 20 FOR UPDATE")],
        ["what is undone", () => a.client.query("BEGIN; UPDATE t SET v = 9; ROLLBACK")],
        ["a table", () => a.client.query("CREATE TABLE other.x (id int); DROP TABLE other.x")],
        [
          "what is not on disk",
          () =>
            a.client.query(
              "BEGIN; SET LOCAL synchronous_commit = off; UPDATE t SET v = 2 WHERE id = 20; COMMIT",
            ),
        ],
      ];
      for (const [what, work] of kinds) {
        const took: number[] = [];
        for (let i = 0; i < 5; i++) {
          await work();
          const startedAt = performance.now();
          const token = await tokenOf(a);
          await Promise.all([reached(b, token), reached(c, token)]);
          took.push(performance.now() - startedAt);
        }
        assert(median(took) < 500 && Math.max(...took) < 3_000, `${what}: ${took}`);
      }
    });

    await t.step("a node has its own token at once", async () => {
      await write(a, 30, 1);
      const token = await tokenOf(a);
      const { status, json } = await wait(a, token, "0s");
      assert.equal(status, 200, JSON.stringify(json));
    });

    await t.step("the commands do the same", async () => {
      await write(a, 31, 1);
      const { code, stdout, stderr } = await a.node.cli("token");
      assert.equal(code, 0, stderr);
      const there = await b.node.cli("wait", stdout.trim(), "--timeout", "20s");
      assert.deepEqual([there.code, there.stdout], [0, ""], there.stderr);
      assert.match(there.stderr, /^It can be read here, after [0-9.]+ s\n$/);
      assert.equal(await valueOf(b, 31), 1);
      const curl = await b.node.cli("wait", stdout.trim(), "--as-curl");
      assert.match(curl.stdout, /^curl .*\/v1\/wait\?token=mmpos1_[A-Za-z0-9_-]+'?\n$/);
      assert.equal((await b.node.cli("wait", "x")).code, 64);
      assert.equal((await b.node.cli("wait", "x", "--timeout", "5")).code, 64);
    });

    await t.step(
      "while a transaction is open that was begun before, a wait does not wait for it",
      async () => {
        const client = await a.server.connect(a.database);
        try {
          await client.query("BEGIN; INSERT INTO t VALUES (40, 1)");
          await write(a, 41, 1);
          const token = await tokenOf(a);
          await reached(b, token);
          assert.equal(await valueOf(b, 41), 1);
          assert.equal(await valueOf(b, 40), undefined);
          await client.query("COMMIT");
          await reached(b, await tokenOf(a));
          assert.equal(await valueOf(b, 40), 1);
        } finally {
          await client.end();
        }
      },
    );
  });
}

Deno.test("waits that do not come to their end by themselves", async (t) => {
  await using stack = new AsyncDisposableStack();
  const servers: PostgresServer[] = [];
  for (let i = 0; i < 3; i++) servers.push(stack.use(await startPostgres({ major: 18 })));
  const { a, b, c } = stack.use(await startTrio(servers, "waits"));
  const proxy = stack.use(await proxied(a, b));

  await t.step("a node that is cut off says what it lacks, and of whom", async () => {
    await write(a, 1, 1);
    await reached(b, await tokenOf(a));
    proxy.open(false);
    proxy.cut();
    await write(a, 1, 2);
    const token = await tokenOf(a);
    await reached(c, token);
    const startedAt = performance.now();
    const { status, json } = await wait(b, token, "1s");
    const took = performance.now() - startedAt;
    assert.equal(status, 504, JSON.stringify(json));
    assert(took >= 990 && took < 3_000, `${took} ms`);
    assert.equal(json.kind, "timeout");
    const [behind, ...others] = json.behind;
    assert.deepEqual(others, []);
    assert.equal(behind.node, a.node.name);
    assert.equal(behind.inbound_state, "disconnected");
    assert(Number(behind.behind_bytes) > 0);
    assert.match(
      json.detail,
      /^Cannot wait longer than 1 s: of node "a-waits" what ends at .*, and nothing comes from it$/,
    );
    assert.match(json.hint, /^See whether node "a-waits" runs/);
    // What only looks is answered at once.
    assert.equal((await wait(b, token, "0s")).status, 504);
    assert.equal((await b.node.cli("wait", token, "--timeout", "0s")).code, 75);
    const waiting = wait(b, token);
    proxy.open(true);
    await a.node.api("POST", `/v1/peers/${b.node.name}/retry`);
    assert.equal((await waiting).status, 200);
    assert.equal(await valueOf(b, 1), 2);
  });

  await t.step("a link that is paused or blocked is named", async () => {
    await streaming(a, b);
    await a.node.api("POST", `/v1/peers/${b.node.name}/pause`);
    await write(a, 2, 1);
    const paused = await wait(b, await tokenOf(a), "200ms");
    assert.equal(paused.status, 504);
    assert.match(paused.json.hint, /has not paused this one/);
    await a.node.api("POST", `/v1/peers/${b.node.name}/resume`);
    await reached(b, await tokenOf(a));

    await b.client.query("ALTER TABLE t ADD CHECK (v <> 13)");
    await write(a, 2, 13);
    const token = await tokenOf(a);
    await eventually("b to be blocked", async () => {
      const { json } = await b.node.api("GET", `/v1/peers/${a.node.name}`);
      return json.inbound.state === "blocked";
    });
    const blocked = await eventually("the answer to name it", async () => {
      const answer = await wait(b, token, "200ms");
      return answer.json.behind?.[0].inbound_state === "blocked" ? answer : undefined;
    });
    assert.equal(blocked.status, 504);
    assert.equal(blocked.json.behind[0].last_error.kind, "apply_failed");
    assert.equal(blocked.json.hint, blocked.json.behind[0].last_error.hint);
    await b.client.query("ALTER TABLE t DROP CONSTRAINT t_v_check");
    await b.node.api("POST", `/v1/peers/${a.node.name}/retry`);
    await reached(b, token);
    assert.equal(await valueOf(b, 2), 13);
  });

  await t.step("a node that stops answers those who wait, and has what it had when it is back", async () => {
    await streaming(a, b);
    await write(a, 3, 1);
    const before = await tokenOf(a);
    await reached(b, before);
    await a.node.api("POST", `/v1/peers/${b.node.name}/pause`);
    await write(a, 3, 2);
    const token = await tokenOf(a);
    const waiting = Promise.all(Array.from({ length: 50 }, () => wait(b, token)));
    // They are there once one more has come through behind them.
    assert.equal((await wait(b, token, "300ms")).status, 504);
    const stopping = b.node.stop();
    for (const { status, json } of await within("their answers", 5_000, waiting)) {
      assert.deepEqual([status, json.kind], [503, "aborted"]);
    }
    assert.equal(await stopping, 0);
    await b.node.start();
    const { applied_lsn: applied } = (await wait(b, token, "0s")).json.behind[0];
    assert.notEqual(applied, null);
    const again = wait(b, token);
    await a.node.api("POST", `/v1/peers/${b.node.name}/resume`);
    assert.equal((await again).status, 200);
    assert.equal(await valueOf(b, 3), 2);
    await reached(b, before);
  });

  await t.step("a node that is killed has what it had when it is back", async () => {
    await write(a, 4, 1);
    const token = await tokenOf(a);
    await reached(b, token);
    await b.node.kill();
    await b.node.start();
    await reached(b, token);
    await write(a, 4, 2);
    await reached(b, await tokenOf(a));
    assert.equal(await valueOf(b, 4), 2);
  });

  await t.step("nothing that a server lost in a crash is taken for read", async () => {
    for (let round = 1; round <= 3; round++) {
      await write(a, 5, round);
      const token = await tokenOf(a);
      await reached(b, token);
      await b.server.stop("immediate");
      await eventually("b to have noticed", async () => (await wait(b, token, "0s")).status === 503);
      await b.server.start();
      await eventually("b to be ready", async () => (await b.node.api("GET", "/readyz")).status === 200);
      await reached(b, token);
      const client = await b.server.connect(b.database);
      try {
        assert.equal(await valueOf({ ...b, client }, 5), round);
      } finally {
        await client.end();
      }
    }
  });

  await t.step("a client that goes away leaves nothing behind", async () => {
    await a.node.api("POST", `/v1/peers/${b.node.name}/pause`);
    await write(a, 6, 1);
    const token = await tokenOf(a);
    const gone = new AbortController();
    const url = `${b.node.apiUrl}/v1/wait?token=${token}&timeout=10m`;
    const waits = Array.from({ length: 100 }, () => fetch(url, { signal: gone.signal }).catch(() => "gone"));
    assert.equal((await wait(b, token, "300ms")).status, 504);
    gone.abort();
    assert.deepEqual(new Set(await Promise.all(waits)), new Set(["gone"]));
    await a.node.api("POST", `/v1/peers/${b.node.name}/resume`);
    await reached(b, token);
  });

  await t.step("tokens that can never be met are refused, each with what to do", async () => {
    const token = await tokenOf(a);
    const bad = await wait(b, `${token.slice(0, -1)}`);
    assert.deepEqual([bad.status, bad.json.kind], [400, "invalid_input"]);
    const own = await tokenOf(c, "?own");
    const all = await tokenOf(c);
    assert(own.length < all.length);
    await reached(b, own);
    // While they wait, the node that they wait for is removed.
    await a.node.api("POST", `/v1/peers/${b.node.name}/pause`);
    await write(a, 7, 1);
    const waiting = wait(b, await tokenOf(a));
    assert.equal((await wait(b, await tokenOf(a), "300ms")).status, 504);
    await b.node.api("DELETE", `/v1/peers/${a.node.name}?force`);
    const removed = await waiting;
    assert.equal(removed.status, 409, JSON.stringify(removed.json));
    assert.match(removed.json.detail, /tells of node "a-waits", which is no peer of this node$/);
    // What the third node has of it cannot be had here any more either, and what is its own can.
    const third = await wait(b, await tokenOf(c));
    assert.equal(third.status, 409);
    assert.match(third.json.hint, /\?own/);
    await reached(b, await tokenOf(c, "?own"));
  });
});
