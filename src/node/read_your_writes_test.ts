import assert from "node:assert/strict";
import { eventually, within } from "../../tests/support/poll.ts";
import { MmliteError } from "../errors.ts";
import type { InboundState } from "../inbox/ports.ts";
import { toLsn } from "../lsn.ts";
import type { Row } from "../pg/query.ts";
import { AppliedPositions } from "./applied_positions.ts";
import { decodeToken, encodeToken, lifeOf, type NodePosition } from "./position_token.ts";
import { MAX_WAITING, ReadYourWrites } from "./read_your_writes.ts";

const INCARNATIONS: Readonly<Record<string, string>> = {
  ams: "aaaaaaaa-0000-4000-8000-000000000000",
  fra: "ffffffff-0000-4000-8000-000000000000",
  nyc: "cccccccc-0000-4000-8000-000000000000",
};
const at = (node: string, value: number): NodePosition => ({
  node,
  life: lifeOf(INCARNATIONS[node]),
  lsn: toLsn(BigInt(value)),
});
const tokenOf = (first: NodePosition, ...others: NodePosition[]) =>
  encodeToken({ cluster: "test", positions: [first, ...others] });

/** Node `ams` over a database that is a script, with peers `fra` and `nyc`; `asked` is what it was asked. */
function startNode() {
  const positions = new AppliedPositions();
  const closing = new AbortController();
  const asked: string[] = [];
  const state = {
    inbound: { name: "streaming" } as InboundState,
    peers: ["fra", "nyc"],
    problem: null as MmliteError | null,
    insertLsn: "0/64",
    flushLsn: "0/64",
    applied: { fra: "0/5", nyc: "0/7" } as Record<string, string>,
    hold: undefined as Promise<void> | undefined,
  };
  const query = async (text: string): Promise<Row[]> => {
    asked.push(text);
    const answer = answerTo(text);
    await state.hold;
    return answer;
  };
  const answerTo = (text: string): Row[] => {
    const { insertLsn, flushLsn } = state;
    if (text.includes("emit_message")) return [{ lsn: state.flushLsn = state.insertLsn = "0/C8" }];
    if (/^SELECT pg_current_wal_flush_lsn/.test(text)) return [{ lsn: flushLsn }];
    const ends = { insert_lsn: insertLsn, flush_lsn: flushLsn };
    const rows = Object.entries(state.applied)
      .map(([origin, lsn]) => ({ ...ends, origin, lsn, incarnation: INCARNATIONS[origin] }));
    return rows.length > 0 ? rows : [{ ...ends, origin: null, lsn: null, incarnation: null }];
  };
  const reading = new ReadYourWrites({
    self: { cluster: "test", node: "ams", incarnation: INCARNATIONS.ams },
    query,
    positions,
    findPeer: (name) =>
      state.peers.includes(name) ? { inbound: { state: state.inbound } as never } : undefined,
    problem: () => state.problem,
    signal: closing.signal,
  });
  const wait = (token: string, timeoutMs = 5_000, signal = new AbortController().signal) =>
    reading.wait(token, { timeoutMs, signal });
  return { reading, positions, state, asked, wait, close: () => closing.abort() };
}

const waits = (positions: AppliedPositions, count: number) =>
  eventually(`${count} to wait`, () => positions.waiting === count, { intervalMs: 1 });

Deno.test("a token tells where this node's WAL is on disk, and how far others are applied", async () => {
  const { reading, state, asked } = startNode();
  const all = await reading.token({ own: false });
  assert.deepEqual(decodeToken(all.token), {
    cluster: "test",
    positions: [at("ams", 0x64), at("fra", 5), at("nyc", 7)],
  });
  assert.deepEqual(decodeToken((await reading.token({ own: true })).token).positions, [at("ams", 0x64)]);
  assert.equal(asked.length, 2);
  // What is not on disk is put there first.
  state.insertLsn = "0/70";
  state.applied = {};
  assert.deepEqual(decodeToken((await reading.token({ own: false })).token).positions, [at("ams", 0xC8)]);
  assert.equal(asked.length, 4);
});

Deno.test("tokens that are asked for at once are read at once, and none before it was asked for", async () => {
  const { reading, state, asked } = startNode();
  const held = Promise.withResolvers<void>();
  state.hold = held.promise;
  const first = reading.token({ own: true });
  await eventually("it to be read", () => asked.length === 1, { intervalMs: 1 });
  const later = Array.from({ length: 100 }, () => reading.token({ own: true }));
  held.resolve();
  await first;
  await Promise.all(later);
  assert.equal(asked.length, 2);
});

Deno.test("a wait asks the database once for all, and is over as soon as all is applied", async () => {
  const { positions, asked, wait } = startNode();
  assert.equal((await wait(tokenOf(at("fra", 5), at("nyc", 7)))).reached, true);
  const later = Array.from({ length: 50 }, () => wait(tokenOf(at("fra", 9), at("nyc", 8))));
  await waits(positions, 50);
  positions.reached("fra", toLsn(9n));
  await waits(positions, 50);
  positions.reached("nyc", toLsn(8n));
  for (const outcome of await within("all of them", 2_000, Promise.all(later))) assert(outcome.reached);
  assert.equal(asked.length, 1);
  assert.equal(positions.waiting, 0);
});

Deno.test("this node's own position is there at once, unless its database was set back", async () => {
  const { wait, asked } = startNode();
  assert((await wait(tokenOf(at("ams", 0x64)))).reached);
  assert((await wait(tokenOf(at("ams", 0x63)))).reached);
  assert.equal(asked.length, 2);
  await assert.rejects(wait(tokenOf(at("ams", 0x65))), {
    kind: "conflict",
    message: /up to 0\/65, and that ends at 0\/64: this database was restored or rolled back since$/,
  });
});

Deno.test("when the time has run out it is told who is behind, by how much, and why", async () => {
  const { state, wait } = startNode();
  const token = tokenOf(at("fra", 0x10), at("nyc", 7));
  const late = await wait(token, 20);
  assert(!late.reached);
  assert.deepEqual(late.behind, [
    { node: "fra", wantedLsn: 0x10n, appliedLsn: 5n, inbound: { name: "streaming" } },
  ]);
  assert.equal(
    late.error.message,
    'Cannot wait longer than 0.02 s: of node "fra" what ends at 0/10 is wanted, and 0/5 is applied, 11 bytes of its ' +
      "WAL behind",
  );
  assert.match(late.error.hint, /allow more time/);
  state.inbound = { name: "disconnected" };
  const away = await wait(token, 0);
  assert(!away.reached);
  assert.match(away.error.message, /and nothing comes from it$/);
  assert.match(away.error.hint, /^See whether node "fra" runs/);
  state.inbound = {
    name: "failed",
    error: new MmliteError("schema_mismatch", "Cannot apply: column is missing", { hint: "Add the column" }),
  };
  const blocked = await wait(token, 0);
  assert(!blocked.reached);
  assert.match(blocked.error.message, /and what it sends is refused: Cannot apply: column is missing$/);
  assert.equal(blocked.error.hint, "Add the column");
  const { applied } = state;
  delete applied.nyc;
  const fresh = startNode();
  fresh.state.applied = applied;
  const never = await fresh.wait(tokenOf(at("nyc", 1)), 0);
  assert(!never.reached && never.behind[0].appliedLsn === null);
  assert.match(never.error.message, /nothing is applied yet$/);
});

Deno.test("what can never be met is refused, from the beginning or once that is so", async () => {
  const { positions, state, wait } = startNode();
  await assert.rejects(wait("x"), { kind: "invalid_input" });
  await assert.rejects(wait(encodeToken({ cluster: "other", positions: [at("ams", 1)] })), {
    kind: "conflict",
    message: /it is of cluster "other", and this node of cluster "test"$/,
  });
  await assert.rejects(wait(tokenOf({ ...at("fra", 1), node: "lon" })), {
    kind: "conflict",
    message: /tells of node "lon", which is no peer of this node$/,
  });
  const lives = [{ ...at("fra", 1), life: lifeOf(INCARNATIONS.nyc) }, {
    ...at("ams", 1),
    life: lifeOf(INCARNATIONS.nyc),
  }];
  for (const other of lives) {
    await assert.rejects(wait(tokenOf(other)), { kind: "conflict", message: /tells of another life/ });
  }
  const [removed, replaced] = [wait(tokenOf(at("fra", 9))), wait(tokenOf(at("nyc", 9)))];
  const outcomes = Promise.allSettled([removed, replaced]);
  await waits(positions, 2);
  state.peers = ["nyc"];
  positions.forget("fra");
  positions.set("nyc", { life: lifeOf(INCARNATIONS.fra), lsn: toLsn(100n) });
  const [gone, other] = await within("both", 2_000, outcomes) as PromiseRejectedResult[];
  assert.match(gone.reason.message, /no peer of this node$/);
  assert.match(other.reason.message, /another life/);
});

Deno.test("who goes away, and a node that closes, end a wait at once", async () => {
  const { positions, wait, close } = startNode();
  const gone = new AbortController();
  const token = tokenOf(at("fra", 9));
  const [one, two] = [wait(token, 60_000, gone.signal), wait(token, 60_000)];
  await waits(positions, 2);
  gone.abort();
  await assert.rejects(within("the first", 2_000, one), { kind: "aborted" });
  await waits(positions, 1);
  close();
  await assert.rejects(within("the second", 2_000, two), {
    kind: "aborted",
    message: /this node is stopping$/,
  });
});

Deno.test("no more wait at a time than there is room for", async () => {
  const { positions, wait, close } = startNode();
  const token = tokenOf(at("fra", 9));
  const all = Array.from({ length: MAX_WAITING }, () => wait(token, 60_000));
  const ended = Promise.allSettled(all);
  await waits(positions, MAX_WAITING);
  await assert.rejects(wait(token), { kind: "transient" });
  assert((await wait(tokenOf(at("fra", 5)))).reached, "what need not wait");
  close();
  await within("all of them", 10_000, ended);
  assert.equal(positions.waiting, 0);
});

Deno.test("what a database that was lost had is read again", async () => {
  const { reading, positions, state, wait } = startNode();
  assert((await wait(tokenOf(at("fra", 5)))).reached);
  positions.reached("fra", toLsn(9n));
  assert((await wait(tokenOf(at("fra", 9)))).reached);
  reading.forget();
  state.problem = new MmliteError("unreachable", "Cannot reach PostgreSQL");
  await assert.rejects(wait(tokenOf(at("fra", 5))), { kind: "unreachable" });
  await assert.rejects(reading.token({ own: true }), { kind: "unreachable" });
  state.problem = null;
  assert((await wait(tokenOf(at("fra", 5)))).reached);
  assert(!(await wait(tokenOf(at("fra", 9)), 0)).reached, "it lost that");
});

Deno.test("what was read of a database before it was lost counts for nothing", async () => {
  const { reading, positions, state, asked, wait } = startNode();
  const held = Promise.withResolvers<void>();
  state.applied = { fra: "0/9" };
  state.hold = held.promise;
  const waiting = wait(tokenOf(at("fra", 9)), 0);
  // Read already, when the database is lost; what it has afterwards is less.
  await eventually("it to be read", () => asked.length === 1, { intervalMs: 1 });
  reading.forget();
  state.applied = { fra: "0/5" };
  held.resolve();
  assert(!(await waiting).reached);
  assert.deepEqual(positions.of("fra")?.lsn, 5n);
});
