import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { type PostgresServer, startPostgres } from "../../tests/support/postgres.ts";
import { SETTLE_ROWS_SQLSTATE } from "./conflict_schema.ts";
import { schemaStatements } from "./schema.ts";
import { MAX_LIST_BYTES } from "./tombstone_schema.ts";
import { MergeHorizon } from "./merge_horizon.ts";
import { forgetTombstones, mergeTombstones, readTombstones } from "./tombstones.ts";

const OLD = "2026-01-01 00:00:00Z";
const OLD_MICROSECONDS = BigInt(Date.UTC(2026, 0, 1) - Date.UTC(2000, 0, 1)) * 1000n;

/** A list as it is noted: hashes with the seconds after {@link OLD} at which their rows were deleted. */
function entries(rows: ReadonlyMap<bigint, number>): Buffer {
  const sorted = [...rows].sort(([a], [b]) => BigInt.asUintN(64, a) < BigInt.asUintN(64, b) ? -1 : 1);
  const bytes = Buffer.alloc(16 * sorted.length);
  for (const [i, [hash, seconds]] of sorted.entries()) {
    bytes.writeBigInt64BE(hash, 16 * i);
    bytes.writeBigInt64BE(OLD_MICROSECONDS + BigInt(seconds) * 1_000_000n, 16 * i + 8);
  }
  return bytes;
}

/** A session on a database with schema `mmlite`. */
async function openSession(server: PostgresServer) {
  const client = await server.connect("postgres");
  const query = async (text: string, values: readonly unknown[] = []) =>
    (await client.query({ text, values: [...values] })).rows;
  const horizon = new MergeHorizon();
  return {
    query,
    /** Merges as a node does at an interval. */
    merge: async (origin: string) => {
      const seen = await horizon.read(query);
      return seen === undefined ? 0 : await mergeTombstones(query, origin, seen);
    },
    /** Notes what a node deleted, the last of it so many seconds after {@link OLD}. */
    note: async (origin: string, rows: ReadonlyMap<bigint, number>) => {
      const last = new Date(Date.UTC(2026, 0, 1) + Math.max(...rows.values()) * 1000).toISOString();
      const list = entries(rows);
      await query(
        list.length > MAX_LIST_BYTES
          ? "SELECT mmlite.note_tombstones($1, $2, $3)"
          : "INSERT INTO mmlite.tombstone (origin, last_timestamp, entries) VALUES ($1, $2, $3)",
        [origin, last, list],
      );
    },
    lists: async () => Number((await query("SELECT count(*) FROM mmlite.tombstone"))[0].count),
    [Symbol.asyncDispose]: () => client.end(),
  };
}

async function setUp(server: PostgresServer): Promise<void> {
  const client = await server.connect("postgres");
  for (const step of schemaStatements(0)) await client.query(step);
  await client.query("INSERT INTO mmlite.progress VALUES ('ams', '0/0', NULL, 1)");
  await client.end();
}

for (const major of [10, 18] as const) {
  Deno.test(`deleted rows are found in lists of every length, and once these are merged, on PostgreSQL ${major}`, async () => {
    await using server = await startPostgres({ major });
    await setUp(server);
    await using session = await openSession(server);
    const { query, note, lists, merge } = session;
    let state = 1;
    const random = (below: number) => (state = state * 48271 % 0x7fffffff) % below;
    const hashOf = (row: number) => BigInt.asIntN(64, BigInt(row + 1) * 0x9e3779b97f4a7c15n);
    const newest = new Map<bigint, { at: number; by: string }>();
    for (let list = 0; list < 150; list++) {
      const by = ["fra", "nyc"][random(2)];
      const rows = new Map<bigint, number>();
      const length = [1, 1, 1, 3, 100, 121, 700][random(7)];
      for (let i = 0; i < length; i++) rows.set(hashOf(random(3000)), 1 + random(1000));
      await note(by, rows);
      for (const [hash, at] of rows) {
        const known = newest.get(hash);
        if (known === undefined || at > known.at || (at === known.at && by > known.by)) {
          newest.set(hash, { at, by });
        }
      }
    }
    const check = async () => {
      const hashes = Array.from({ length: 3100 }, (_, row) => hashOf(row));
      const rows = await query(
        `SELECT h.hash, n.deleted_by AS by, extract(epoch FROM n.deleted_at - timestamptz '${OLD}')::integer AS at
           FROM unnest($1::bigint[]) AS h(hash), LATERAL mmlite.newest_tombstone(h.hash, 'public', 't', '${OLD}', 'ams') n`,
        [hashes.map(String)],
      );
      for (const { hash, by, at } of rows) {
        const known = newest.get(BigInt(hash));
        assert.deepEqual({ by, at }, { by: known?.by ?? null, at: known?.at ?? null });
      }
      // One by one, and more than it is worth to search for one by one.
      const isMet = async (some: readonly bigint[], seconds: number) => {
        const [{ met }] = await query(
          `SELECT mmlite.meets_deleted($1, timestamptz '${OLD}' + $2 * interval '1 second', 'ams', '1:1:') AS met`,
          [some.map(String), seconds],
        );
        return met;
      };
      const strangers = Array.from({ length: 2000 }, (_, i) => hashOf(10_000 + i));
      assert.equal(await isMet(strangers, 0), false);
      assert.equal(await isMet(strangers.slice(0, 1), 0), false);
      for (let row = 0; row < 3000; row += 97) {
        const hash = hashOf(row);
        const at = newest.get(hash)?.at ?? -1;
        assert.equal(await isMet([hash], at - 1), at >= 0);
        assert.equal(await isMet([...strangers, hash], at - 1), at >= 0);
        assert.equal(await isMet([hash], at + 1), false);
      }
    };
    await check();
    const before = await lists();
    let merged = 0;
    for (const origin of ["fra", "nyc"]) {
      for (let step; (step = await merge(origin)) > 0;) merged += step;
    }
    assert.ok(merged > 100, `${merged} lists were merged`);
    assert.ok(await lists() < before / 2, `${await lists()} are left of ${before}`);
    await check();

    const kept = await readTombstones(query);
    assert.deepEqual(kept.map(({ origin }) => origin), ["fra", "nyc"]);
    for (const { origin, bytes } of kept) {
      assert.equal(await forgetTombstones(query, origin, "2027-01-01T00:00:00Z"), bytes);
    }
    assert.deepEqual(await query("SELECT run FROM mmlite.tombstone_piece"), []);
  });

  Deno.test(`lists are merged beside those who search and who apply, on PostgreSQL ${major}`, async () => {
    await using server = await startPostgres({ major });
    await setUp(server);
    await using keeper = await openSession(server);
    await using searcher = await openSession(server);
    await using applying = await openSession(server);
    for (let row = 1n; row <= 40n; row++) await keeper.note("fra", new Map([[row, 10]]));

    const disturbed = { code: SETTLE_ROWS_SQLSTATE };
    const requireUndisturbed = (hashes: readonly bigint[]) =>
      applying.query(`SELECT mmlite.require_undisturbed($1, '${OLD}', 'ams', true)`, [hashes.map(String)]);
    const begin = async (from = "0/0") => {
      await applying.query("BEGIN");
      await applying.query("SELECT mmlite.begin_apply('ams', $1, '0/1', 1, now())", [from]);
    };
    await begin();
    assert.equal(await keeper.merge("fra"), 40);
    await requireUndisturbed([1n, 40n]);
    await keeper.note("fra", new Map([[41n, 10]]));
    for (let row = 42n; row <= 60n; row++) await keeper.note("fra", new Map([[row, 10]]));
    assert.equal(await keeper.merge("fra"), 20, "nobody is known to apply");
    await requireUndisturbed([1n, 40n]);
    await assert.rejects(requireUndisturbed([41n]), disturbed);
    await applying.query("ROLLBACK");

    await applying.query("SET application_name = 'mmlite apply ams'");
    await begin();
    for (let row = 61n; row <= 80n; row++) await keeper.note("fra", new Map([[row, 10]]));
    assert.equal(
      await keeper.merge("fra"),
      0,
      "what was noted since somebody began to apply",
    );
    await applying.query("COMMIT");
    assert.equal(await keeper.merge("fra"), 20);

    // Somebody always applies, but never the same transaction for long.
    await begin("0/1");
    for (let row = 61n; row <= 80n; row++) await keeper.note("fra", new Map([[row, 10]]));
    assert.equal(await keeper.merge("fra"), 0);
    await applying.query("ROLLBACK");
    await begin("0/1");
    assert.equal(await keeper.merge("fra"), 20, "what was noted before the last look");
    await applying.query("ROLLBACK");

    // What is kept is always found, whatever moves.
    let isOver = false;
    const searching = (async () => {
      let searches = 0;
      for (; !isOver || searches < 50; searches++) {
        const [{ found }] = await searcher.query(
          `SELECT count(n.deleted_by)::integer AS found FROM generate_series(1, 80) AS hash,
             LATERAL mmlite.newest_tombstone(hash, 'public', 't', '${OLD}', 'ams') n`,
        );
        assert.equal(found, 80);
      }
    })();
    for (let round = 0; round < 20; round++) {
      for (let row = 1n; row <= 20n; row++) {
        await keeper.note("fra", new Map([[row, 11], [BigInt(round) * 100n + 1000n + row, 11]]));
      }
      while (await keeper.merge("fra") > 0);
    }
    isOver = true;
    await searching;
  });

  Deno.test(`a delete is found in the end that was under way when the transaction began, merged or not, on PostgreSQL ${major}`, async () => {
    await using server = await startPostgres({ major });
    await setUp(server);
    await using keeper = await openSession(server);
    await using late = await openSession(server);
    await using applying = await openSession(server);
    await late.query("BEGIN");
    await late.note("fra", new Map([[1n, 10]]));
    for (let row = 2n; row <= 40n; row++) await keeper.note("fra", new Map([[row, 10]]));
    await applying.query("SET application_name = 'mmlite apply ams'");
    await applying.query("BEGIN");
    await applying.query("SELECT mmlite.begin_apply('ams', '0/0', '0/1', 1, now())");
    await late.query("COMMIT");
    await keeper.merge("fra");
    await assert.rejects(
      applying.query(`SELECT mmlite.require_undisturbed('{1}', '${OLD}', 'ams', true)`),
      { code: SETTLE_ROWS_SQLSTATE },
    );
  });
}
