import assert from "node:assert/strict";
import type { Row } from "../pg/query.ts";
import type { Database } from "./database.ts";
import type { Peer } from "./peer.ts";
import { SlotKeeper } from "./slot_keeper.ts";

const MB = 1024 ** 2;
const LIMITS = { warnSlotWal: 10 * MB, warnSlotAge: 3_600, maxSlotWal: 100 * MB, maxSlotAge: 86_400 };

/** What is made of one peer: `away` seconds ago something went to it, `retained` and `lag` bytes are kept. */
async function look(
  { state, away, retained, lag }: { state: string; away: number; retained: number; lag: number },
): Promise<{ evicted: string[]; problems: string[]; awaySince: string | null }> {
  const since = new Date(Date.now() - away * 1000).toISOString();
  const walEnd = 0x1000_0000;
  const lsn = (position: number) => `0/${position.toString(16).toUpperCase()}`;
  const query = (text: string): Promise<Row[]> => {
    if (text.includes("pg_replication_slots")) {
      const slot = { slot_name: "mmlite_fra", active_pid: null, retained: String(retained) };
      const positions = { confirmed_flush_lsn: lsn(walEnd - lag), restart_lsn: lsn(walEnd - retained) };
      return Promise.resolve([{ ...slot, ...positions, wal_status: "reserved", safe_wal_size: null }]);
    }
    if (text.includes("UPDATE mmlite.peer")) {
      return Promise.resolve([{
        name: "fra",
        state: "active",
        created_us: "0",
        away_since: state === "streaming" ? null : since,
      }]);
    }
    return Promise.resolve([{ lsn: lsn(walEnd) }]);
  };
  const peer = {
    name: "fra",
    link: { state: { name: state } },
    awaySince: null,
    evicted: null,
  } as unknown as Peer;
  const evicted: string[] = [];
  const keeper = new SlotKeeper({
    database: { control: { query: () => query } } as unknown as Database,
    peers: { list: () => [peer], evict: (_, why) => Promise.resolve(void evicted.push(why)) },
    limits: LIMITS,
  });
  await keeper.look();
  return { evicted, problems: keeper.problems().map(({ message }) => message), awaySince: peer.awaySince };
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
