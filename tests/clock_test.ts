/** Nodes whose PostgreSQL servers have clocks that are apart, by libfaketime; left out where it is not installed. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { startCluster } from "./support/cluster.ts";
import { eventually } from "./support/poll.ts";
import { startPostgres } from "./support/postgres.ts";
import { scratchBase } from "./support/scratch.ts";

/** Where Debian's package `faketime` puts it. */
const LIBRARY = ["x86_64", "aarch64"].map((cpu) => `/usr/lib/${cpu}-linux-gnu/faketime/libfaketime.so.1`)
  .find((path) => existsSync(path));

/** A server whose clock can be set; all it counts itself by is left alone. */
async function startFaked(directory: string, name: string) {
  const file = join(directory, name);
  const set = (seconds: number) => Deno.writeTextFile(file, `${seconds >= 0 ? "+" : ""}${seconds}\n`);
  await set(0);
  await Deno.chmod(file, 0o644);
  const server = await startPostgres({
    major: 18,
    env: {
      LD_PRELOAD: LIBRARY!,
      FAKETIME_TIMESTAMP_FILE: file,
      FAKETIME_NO_CACHE: "1",
      FAKETIME_DONT_FAKE_MONOTONIC: "1",
    },
  });
  return { server, set };
}

Deno.test({
  name: "changes wait for the clock of the server that they come to",
  ignore: LIBRARY === undefined,
  fn: async (t) => {
    const directory = await Deno.makeTempDir({ dir: scratchBase(), prefix: "mmlite-clock-" });
    await Deno.chmod(directory, 0o755);
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(() => Deno.remove(directory, { recursive: true }));
    const [there, here] = [await startFaked(directory, "a"), await startFaked(directory, "b")];
    cleanup.use(there.server);
    cleanup.use(here.server);
    const schema = "CREATE TABLE t (id int PRIMARY KEY, v text)";
    const extraArgs = ["--max-clock-wait", "5s"];
    await using cluster = await startCluster("clocks", [
      { server: there.server, name: "a", schema },
      { server: here.server, name: "b", schema, extraArgs },
    ]);
    const [a, b] = cluster.members;
    const peer = async () => (await b.node.api("GET", "/v1/peers/a")).json;
    const versions = async () => {
      const { rows } = await b.client.query(
        "SELECT id, pg_xact_commit_timestamp(xmin) AS at FROM t ORDER BY id",
      );
      return rows as { id: number; at: Date }[];
    };

    await t.step("clocks that agree are shown to, and cost nothing", async () => {
      await eventually("the skew to be known", async () => (await peer()).clock_skew_seconds !== null);
      const { clock_skew_seconds: skew, clock_skew_uncertainty_seconds: uncertainty } = await peer();
      assert(Math.abs(skew) <= uncertainty + 0.001, `${skew} ± ${uncertainty}`);
      assert(uncertainty < 0.5, String(uncertainty));
      await a.client.query("INSERT INTO t VALUES (1, 'x')");
      await eventually("the row", async () => (await versions()).length === 1);
    });

    await t.step("a change from a clock that is ahead comes once this one has reached its time", async () => {
      await there.set(3);
      await a.client.query("INSERT INTO t VALUES (2, 'ahead')");
      const { rows: [{ at }] } = await a.client.query(
        "SELECT pg_xact_commit_timestamp(xmin) AS at FROM t WHERE id = 2",
      );
      let looked = 0;
      await eventually("the row", async () => {
        const { rows: [{ now }] } = await b.client.query("SELECT clock_timestamp() AS now");
        const there = (await versions()).length === 2;
        if (!there && now < at) looked++;
        assert(!there || now.getTime() > at.getTime() - 100, `${now.toISOString()} ${at.toISOString()}`);
        return there;
      });
      assert(looked > 3, String(looked));
      await b.client.query("UPDATE t SET v = 'local' WHERE id = 2");
      assert((await versions())[1].at > at);
      const shown = async () => (await peer()).clock_skew_seconds > 2;
      await eventually("the skew to be shown", shown, { timeoutMs: 30_000 });
      const { json: status } = await b.node.api("GET", "/v1/status");
      const [problem] = status.problems.filter(({ kind }: { kind: string }) => kind === "clock_skew");
      assert.match(problem.message, /clock of peer "a" is [23]\.\d s ahead of this node's/);
      const { json: metrics } = await b.node.api("GET", "/metrics");
      assert.match(metrics, /mmlite_clock_skew_seconds\{peer="a"\} [23]\./);
      const warned = (await b.node.log()).match(/clock of peer "a" is/g);
      assert.equal(warned?.length, 1);
    });

    await t.step("one from too far ahead blocks its link, which goes on once the clocks fit", async () => {
      await there.set(600);
      await a.client.query("INSERT INTO t VALUES (3, 'far ahead')");
      const link = async () => (await a.node.api("GET", "/v1/peers/b")).json;
      await eventually("the link to be blocked", async () => (await link()).state === "blocked", {
        timeoutMs: 30_000,
      });
      const { last_error: error } = await link();
      assert.equal(error.kind, "clock_skew");
      assert.match(error.message, /was committed \d+\.\d s ahead of this server's clock, and 5 s are waited/);
      assert.match(error.hint, /^Set the clock of "a" or of this node/);
      assert.equal((await peer()).inbound.state, "blocked");
      assert.equal((await versions()).length, 2);
      await here.set(601);
      await eventually("the row", async () => (await versions()).length === 3, { timeoutMs: 30_000 });
      await eventually("the link to stream", async () => (await link()).state === "streaming");
    });
  },
});
