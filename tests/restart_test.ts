/**
 * Servers and nodes that stop, start, come back as another, or leave: what goes on by itself, and what is refused.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { type FaultNode, startFaultPair, streaming } from "./support/fault_pair.ts";
import { type CommandResult, startMmlite } from "./support/mmlite.ts";
import { eventually } from "./support/poll.ts";

/** A server that was told to stop must not wait for a node longer than this, milliseconds. */
const SMART_STOP_LIMIT_MS = 10_000;

/** Appends rows of the node's own origin; how many there are then. */
async function append({ server, database, name }: FaultNode, rows: number): Promise<number> {
  const [{ last }] = await server.sql(
    database,
    `WITH last AS (SELECT coalesce(max(sequence), 0) AS sequence FROM public.entry WHERE origin = $1),
       added AS (INSERT INTO public.entry SELECT $1, sequence + g, 1, 'x' FROM last, generate_series(1, $2::int) g)
     SELECT sequence::int AS last FROM last`,
    [name, rows],
  );
  return last + rows;
}

async function awaitRows(at: FaultNode, { name }: FaultNode, rows: number): Promise<void> {
  await eventually(`${rows} rows of ${name} at ${at.name}`, async () => {
    const [{ found }] = await at.server.sql(
      at.database,
      "SELECT count(*)::int AS found FROM public.entry WHERE origin = $1",
      [name],
    );
    if (found === rows) return true;
    throw new Error(`${found} rows`);
  });
}

/** New rows of either node reach the other. */
async function assertBothWays(a: FaultNode, b: FaultNode): Promise<void> {
  await awaitRows(b, a, await append(a, 3));
  await awaitRows(a, b, await append(b, 3));
}

/** The link from one node to the other once it is in a state. */
async function linkIn(
  state: string,
  from: FaultNode,
  to: FaultNode,
): Promise<{ last_error: { kind: string; message: string; hint: string } }> {
  return await eventually(`${from.name}'s link to ${to.name} to be ${state}`, async () => {
    const { json } = await from.mmlite.api("GET", `/v1/peers/${to.name}`);
    if (json.state === state) return json;
    throw new Error(`${json.state}, last error ${JSON.stringify(json.last_error)}`);
  });
}

/** Starts a node that must end by itself; its exit code and what it printed this time. */
async function failToStart({ mmlite }: FaultNode): Promise<Pick<CommandResult, "code" | "stderr">> {
  const before = (await mmlite.log()).length;
  await assert.rejects(mmlite.start(), /it exited/);
  return { code: await mmlite.exit(), stderr: (await mmlite.log()).slice(before) };
}

Deno.test("replication goes on after a fast restart of either server", async () => {
  await using pair = await startFaultPair({ majors: [18, 13] });
  const { a, b } = pair;
  await b.server.restart();
  await assertBothWays(a, b);
  await a.server.restart();
  await assertBothWays(a, b);
  await Promise.all([a.server.restart(), b.server.restart()]);
  await assertBothWays(a, b);
});

Deno.test("a smart shutdown does not wait for a node, nor for a peer that answers nothing", async () => {
  await using pair = await startFaultPair();
  const { a, b } = pair;
  const stop = async () => {
    const begun = performance.now();
    await a.server.stop("smart");
    const took = performance.now() - begun;
    assert(took < SMART_STOP_LIMIT_MS, `stopping took ${Math.round(took)} ms`);
  };
  await stop();
  await a.server.start();
  await assertBothWays(a, b);

  // Up for a moment: of a node's sessions some are there before it has the database in its hands again.
  for (let times = 0; times < 3; times++) {
    await stop();
    await a.server.start();
    await eventually("a session of the node", async () => {
      const sessions = await a.server.sql(
        "postgres",
        "SELECT FROM pg_stat_activity WHERE application_name LIKE 'mmlite%'",
      );
      return sessions.length > 0;
    }, { intervalMs: 5 });
  }
  await stop();
  await a.server.start();

  b.mmlite.signal("SIGSTOP");
  const unacked = await append(a, 20_000);
  await stop();
  await a.server.start();
  b.mmlite.signal("SIGCONT");
  await awaitRows(b, a, unacked);

  await b.mmlite.kill();
  const backlog = await append(a, 20_000);
  await stop();
  await a.server.start();
  await b.mmlite.start();
  await awaitRows(b, a, backlog);
});

Deno.test("a node restarted with its state goes on, and takes what was written meanwhile along", async () => {
  await using pair = await startFaultPair();
  const { a, b } = pair;
  assert.equal(await b.mmlite.stop(), 0);
  const backlog = await append(a, 30_000);
  const own = await append(b, 10);
  await b.mmlite.start();
  await awaitRows(b, a, backlog);
  await awaitRows(a, b, own);
  await a.mmlite.restart();
  await assertBothWays(a, b);
});

Deno.test("a second mmlite beside one database is refused while the first runs", async () => {
  await using pair = await startFaultPair();
  const { a, b } = pair;
  await using second = await startMmlite({
    name: "c",
    postgres: a.server.url(a.database),
    awaitReady: false,
  });
  assert.equal(await second.exit(), 1);
  assert.match(await second.log(), /another mmlite does/);
  await assertBothWays(a, b);
});

Deno.test("a node whose state file is lost or another's is fenced until the file is right", async () => {
  await using pair = await startFaultPair();
  const { a, b } = pair;
  const file = join(a.mmlite.stateDir, "a.incarnation");
  const incarnation = await Deno.readTextFile(file);
  await a.mmlite.stop();

  await Deno.remove(file);
  const missing = await failToStart(a);
  assert.equal(missing.code, 78);
  assert.match(missing.stderr, /state file ".*a\.incarnation" is missing/);
  assert(missing.stderr.includes(incarnation.trim()), missing.stderr);

  await Deno.writeTextFile(file, crypto.randomUUID());
  const different = await failToStart(a);
  assert.equal(different.code, 78);
  assert.match(different.stderr, /tell of different lives/);

  await Deno.writeTextFile(file, incarnation);
  await a.mmlite.start();
  await assertBothWays(a, b);
});

Deno.test("a receiver that was set back behind its own ack is fenced, with both positions", async () => {
  await using pair = await startFaultPair();
  const { a, b } = pair;
  const position = async () => {
    const [{ lsn }] = await b.server.sql(
      b.database,
      "SELECT lsn::text AS lsn FROM mmlite.progress WHERE origin = 'a'",
    );
    return lsn;
  };
  await awaitRows(b, a, await append(a, 1));
  const earlier = await position();
  await awaitRows(b, a, await append(a, 1));
  const acked = await eventually("the second transaction to be acked", async () => {
    const { json } = await a.mmlite.api("GET", "/v1/peers/b");
    return json.acked_lsn === await position() ? json.acked_lsn : null;
  });
  await b.mmlite.stop();
  await b.server.sql(b.database, `UPDATE mmlite.progress SET lsn = '${earlier}' WHERE origin = 'a'`);
  await b.mmlite.start();
  const { last_error: error } = await linkIn("fenced", a, b);
  assert.equal(error.kind, "fenced");
  assert(error.message.includes(earlier) && error.message.includes(acked), error.message);
  assert.match(error.message, /restored or rolled back/);
  await awaitRows(a, b, await append(b, 1));
});

Deno.test("a paused peer stays paused over a restart, and gets everything once it is resumed", async () => {
  await using pair = await startFaultPair();
  const { a, b } = pair;
  assert.equal((await a.mmlite.api("POST", "/v1/peers/b/pause")).status, 202);
  const rows = await append(a, 5);
  await a.mmlite.restart();
  await awaitRows(a, b, await append(b, 5));
  await linkIn("paused", a, b);
  const [{ found }] = await b.server.sql(
    b.database,
    "SELECT count(*)::int AS found FROM entry WHERE origin = 'a'",
  );
  assert.equal(found, 0);
  assert.equal((await a.mmlite.api("POST", "/v1/peers/b/resume")).status, 202);
  await awaitRows(b, a, rows);
});

Deno.test("a removed peer's slot goes, the other side says what to do, and it can be added again", async () => {
  await using pair = await startFaultPair();
  const { a, b } = pair;
  await assertBothWays(a, b);
  assert.equal((await a.mmlite.api("DELETE", "/v1/peers/b")).status < 300, true);
  await eventually("the slot to go", async () => {
    return (await a.server.sql(a.database, "SELECT FROM pg_replication_slots")).length === 0;
  });
  const { last_error: error } = await linkIn("blocked", b, a);
  assert.match(error.message, /it was removed on "a"/);
  assert.match(
    error.hint,
    /Remove peer "a" on node "b" too, with --force; to have it back, add it on both nodes after that/,
  );

  assert.equal((await b.mmlite.api("DELETE", "/v1/peers/a?force=true")).status < 300, true);
  await a.mmlite.api("PUT", "/v1/peers/b", { url: b.mmlite.peerUrl });
  await b.mmlite.api("PUT", "/v1/peers/a", { url: a.mmlite.peerUrl });
  await a.mmlite.api("POST", "/v1/peers/b/retry");
  await Promise.all([streaming(a, b), streaming(b, a)]);
  await assertBothWays(a, b);
});
