import assert from "node:assert/strict";
import type { Row } from "../pg/query.ts";
import type { Database } from "./database.ts";
import type { Peer } from "./peer.ts";
import { SlotKeeper } from "./slot_keeper.ts";

const MB = 1024 ** 2;
const HOUR_MS = 3_600_000;
const LIMITS = { warnSlotWal: 10 * MB, warnSlotAge: 3_600, maxSlotWal: 100 * MB, maxSlotAge: 86_400 };

const WAL_END = 0x1000_0000;

/** What there is of one peer. */
interface Scene {
  readonly state: string;
  /** So many seconds ago something went to it. */
  readonly away: number;
  readonly retained: number;
  readonly lag: number;
  /** Sent, and not acked. */
  readonly unacked?: boolean;
}

interface BedOptions {
  /** So many milliseconds ago the keeper started. */
  readonly up?: number;
  /** So many seconds ago the peer went, as an earlier process noted. */
  readonly known?: number;
  /** So many of them that one saw. */
  readonly counted?: number;
}

/** A keeper with one peer. */
class Bed {
  readonly evicted: string[] = [];
  readonly keeper: SlotKeeper;
  readonly peer: Peer;
  /** How long the peer was away, seconds, as it was put on record last. */
  counted: number;
  /** Called once a peer is to be given up, before it is asked again. */
  meanwhile = () => {};
  #scene: Scene = { state: "streaming", away: 0, retained: 0, lag: 0 };

  constructor({ up = 1_000 * HOUR_MS, known, counted = 0 }: BedOptions = {}) {
    this.counted = counted;
    const awaySince = known === undefined ? null : new Date(Date.now() - known * 1000).toISOString();
    const link = { state: { name: "streaming" } };
    this.peer = {
      ...{ name: "fra", link, awaySince, evicted: null },
      outbound: { lagSeconds: 0 },
    } as unknown as Peer;
    this.keeper = new SlotKeeper({
      database: {
        control: { query: () => (text: string, parameters: string[]) => this.#answer(text, parameters) },
      } as unknown as Database,
      peers: {
        list: () => [this.peer],
        evict: async (_, judge) => {
          this.meanwhile();
          const why = await judge(this.peer);
          if (why !== undefined) this.evicted.push(why);
        },
      },
      limits: LIMITS,
      startedAt: new Date(Date.now() - up),
    });
  }

  get problems(): string[] {
    return this.keeper.problems().map(({ message }) => message);
  }

  show(scene: Scene): void {
    this.#scene = scene;
    Object.assign(this.peer.link, { state: { name: scene.state } });
    Object.assign(this.peer.outbound, { lagSeconds: scene.unacked ? 1 : 0 });
  }

  async look(scene: Scene, signal?: AbortSignal): Promise<void> {
    this.show(scene);
    await this.keeper.look(signal);
  }

  #answer(text: string, parameters: readonly string[]): Promise<Row[]> {
    if (text.includes("SELECT away_counted")) {
      return Promise.resolve([{ away_counted: String(this.counted) }]);
    }
    if (text.includes("SET away_counted")) {
      this.counted = Number(parameters[1]);
      return Promise.resolve([]);
    }
    const { away, retained, lag } = this.#scene;
    const lsn = (position: number) => `0/${position.toString(16).toUpperCase()}`;
    if (text.includes("pg_replication_slots")) {
      const slot = { slot_name: "mmlite_fra", active_pid: null, retained: String(retained) };
      const positions = { confirmed_flush_lsn: lsn(WAL_END - lag), restart_lsn: lsn(WAL_END - retained) };
      return Promise.resolve([{ ...slot, ...positions, wal_status: "reserved", safe_wal_size: null }]);
    }
    if (text.includes("UPDATE mmlite.peer")) {
      if (this.peer.awaySince === null) this.counted = 0;
      const since = this.peer.awaySince === null ? new Date(Date.now() - away * 1000).toISOString() : null;
      return Promise.resolve([{ name: "fra", state: "active", created_us: "0", away_since: since }]);
    }
    return Promise.resolve([{ lsn: lsn(WAL_END) }]);
  }
}

async function look(scene: Scene, options?: { readonly up?: number }) {
  const bed = new Bed(options);
  await bed.look(scene);
  return { evicted: bed.evicted, problems: bed.problems, awaySince: bed.peer.awaySince };
}

Deno.test("a peer is given up by age only if nothing goes to it, and by size in any case", async () => {
  const fine = await look({ state: "streaming", away: 0, retained: 5 * MB, lag: 0 });
  assert.deepEqual(fine, { evicted: [], problems: [], awaySince: null });

  const short = await look({ state: "backoff", away: 60, retained: 5 * MB, lag: 5 * MB });
  assert.deepEqual([short.evicted, short.problems], [[], []]);
  assert.notEqual(short.awaySince, null);

  const long = await look({ state: "paused", away: 2 * 3_600, retained: 5 * MB, lag: 5 * MB });
  assert.deepEqual(long.problems, [
    'WAL is kept for peer "fra": 5.0 MB, and nothing has gone to it for 2 hours (limits.warn_slot_age is 60 minutes)',
  ]);
  assert.deepEqual(long.evicted, []);

  const dead = await look({ state: "backoff", away: 2 * 86_400, retained: 5 * MB, lag: 5 * MB });
  assert.deepEqual(dead.evicted, [
    "5.0 MB, and nothing has gone to it for 2 days (limits.max_slot_age is 24 hours)",
  ]);
  assert.deepEqual(dead.problems, []);

  // Whatever a long transaction of this node keeps is not the peer's fault.
  const held = await look({ state: "streaming", away: 0, retained: 200 * MB, lag: MB });
  assert.deepEqual([held.evicted, held.problems], [[], []]);
  const slow = await look({ state: "catchup", away: 0, retained: 200 * MB, lag: 120 * MB });
  assert.deepEqual(slow.evicted, ["120 MB (limits.max_slot_wal is 100 MB)"]);
});

Deno.test("a peer that was away for a moment is judged by what it lacks, not by what a transaction keeps", async () => {
  for (const state of ["connecting", "backoff", "paused", "fenced", "blocked"]) {
    const moment = await look({ state, away: 10, retained: 200 * MB, lag: MB });
    assert.deepEqual([moment.evicted, moment.problems], [[], []], state);
  }
  const behind = await look({ state: "backoff", away: 10, retained: 200 * MB, lag: 120 * MB });
  assert.deepEqual(behind.evicted, [
    "120 MB, and nothing has gone to it for 10 s (limits.max_slot_wal is 100 MB)",
  ]);
  const long = await look({ state: "backoff", away: 400, retained: 200 * MB, lag: MB });
  assert.equal(long.evicted.length, 1);
});

Deno.test("a peer that came back before it was given up stays", async () => {
  const bed = new Bed();
  const dead = { state: "backoff", away: 2 * 86_400, retained: 200 * MB, lag: MB };
  bed.meanwhile = () => bed.show({ ...dead, state: "catchup" });
  await bed.look(dead);
  assert.deepEqual(bed.evicted, []);
  bed.meanwhile = () => bed.show({ ...dead, retained: 0, lag: 0, state: "connecting" });
  const renewed = { ...dead, away: 10, lag: 200 * MB };
  bed.peer.awaySince = null;
  await bed.look(renewed);
  assert.deepEqual(bed.evicted, []);
});

Deno.test("what was before this node's start is not a peer's fault", async () => {
  const weekend = { state: "connecting", away: 3 * 86_400, retained: 200 * MB, lag: MB };
  const started = await look(weekend, { up: 30_000 });
  assert.deepEqual([started.evicted, started.problems], [[], []]);
  const dayLater = await look(weekend, { up: 25 * HOUR_MS });
  assert.equal(dayLater.evicted.length, 1);
});

Deno.test("what earlier processes have seen of a peer that is away counts", async () => {
  const known = 3 * 86_400;
  const day = { state: "backoff", away: known, retained: 5 * MB, lag: 5 * MB };
  // It had run for 20 hours since the peer went, and is up for 5 now: what was before its start is known.
  const up = 5 * HOUR_MS;
  const dead = new Bed({ up, known, counted: 20 * 3_600 });
  await dead.look(day);
  assert.deepEqual(dead.evicted, [
    "5.0 MB, and nothing has gone to it for 3 days (limits.max_slot_age is 24 hours)",
  ]);
  // A while after each start it has to come back in.
  const started = new Bed({ up: 30_000, known, counted: 30 * 3_600 });
  await started.look(day);
  assert.deepEqual([started.evicted, started.problems], [[], []]);
  // What this process sees is put on record, and once only.
  const seen = new Bed({ up, known, counted: 10 * 3_600 });
  await seen.look(day);
  assert.ok(Math.abs(seen.counted - (15 * 3_600 - 300)) < 5, String(seen.counted));
  assert.deepEqual([seen.evicted, seen.problems.length], [[], 1]);
  const { counted } = seen;
  await seen.look(day);
  assert.equal(seen.counted, counted);
  // Renewed, and still away: it is counted anew.
  seen.peer.awaySince = null;
  await seen.look({ ...day, away: 60 });
  assert.deepEqual([seen.evicted, seen.problems], [[], []]);
  // Back, and away again.
  await seen.look({ ...day, state: "streaming", lag: 0 });
  assert.equal(seen.peer.awaySince, null);
  await seen.look({ ...day, away: 60 });
  assert.deepEqual([seen.evicted, seen.problems], [[], []]);
});

Deno.test("links that end with the node tell nothing of their peers", async () => {
  const bed = new Bed();
  await bed.look({ state: "paused", away: 0, retained: 0, lag: 0 }, AbortSignal.abort());
  assert.equal(bed.peer.awaySince, null);
});

Deno.test("a peer that copies rows is not away, and counts by size", async () => {
  const copying = await look({ state: "copying", away: 2 * 86_400, retained: 200 * MB, lag: 5 * MB });
  assert.deepEqual(copying, { evicted: [], problems: [], awaySince: null });
  const large = await look({ state: "copying", away: 0, retained: 200 * MB, lag: 50 * MB });
  assert.deepEqual(large.problems, [
    'WAL is kept for peer "fra": 50 MB, while it copies rows (limits.warn_slot_wal is 10 MB)',
  ]);
  const tooLarge = await look({ state: "copying", away: 0, retained: 200 * MB, lag: 150 * MB });
  assert.deepEqual(tooLarge.evicted, ["150 MB, while it copies rows (limits.max_slot_wal is 100 MB)"]);
});

Deno.test("a peer is away until it has taken something, or lacks nothing", async () => {
  const bed = new Bed();
  const scene = { away: 600, retained: 5 * MB, lag: 5 * MB, unacked: true };
  await bed.look({ ...scene, state: "blocked" });
  const since = bed.peer.awaySince;
  assert.notEqual(since, null);
  for (const state of ["catchup", "blocked", "streaming", "blocked"]) {
    await bed.look({ ...scene, state });
    assert.equal(bed.peer.awaySince, since, state);
  }
  await bed.look({ ...scene, state: "catchup", lag: 4 * MB });
  assert.equal(bed.peer.awaySince, null);
  await bed.look({ ...scene, state: "backoff" });
  assert.notEqual(bed.peer.awaySince, null);
  await bed.look({ ...scene, state: "streaming", unacked: false });
  assert.equal(bed.peer.awaySince, null);
});
