import assert from "node:assert/strict";
import { ZERO_LSN } from "../lsn.ts";
import { ensureSchema } from "../pg/schema.ts";
import { openControl } from "../pg/control.ts";
import { parsePostgresUrl } from "../pg/target.ts";
import { type PostgresMajor, startPostgres } from "../../tests/support/postgres.ts";
import { SeenVersions } from "../seen_versions.ts";
import { GroupKeeper, SKEW_MARGIN_MS } from "./group_keeper.ts";

const POSTGRES_EPOCH_MS = Date.UTC(2000, 0, 1);
const { NOTHING } = SeenVersions;
const ENTRIES = "entries";
/** A database with schema `mmlite` on a server of its own. */
async function openDatabase(major: PostgresMajor) {
  await using stack = new AsyncDisposableStack();
  const server = stack.use(await startPostgres({ major }));
  await server.createDatabase("app");
  const control = openControl(await parsePostgresUrl(server.url("app"), {}), "test");
  stack.defer(() => control.close());
  const query = control.query("test");
  await ensureSchema(query);
  const owned = stack.move();
  return { control, query, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

const timestamp = (unixMs: number) => BigInt(unixMs - POSTGRES_EPOCH_MS) * 1000n;

Deno.test("what is noted of a group goes once every other node has passed it, and not before", async () => {
  await using database = await openDatabase(18);
  const { control, query } = database;
  const now = Date.now();
  const add = (origin: string, agoMs: number) =>
    query(
      `INSERT INTO mmlite.apply_group VALUES (1, $1, $2::timestamptz - interval '1 s', $2::timestamptz, '${ENTRIES}')`,
      [origin, new Date(now - agoMs).toISOString()],
    );
  const left = async () => {
    await keeper.forget();
    const rows = await query("SELECT origin FROM mmlite.apply_group ORDER BY origin");
    return rows.map(({ origin }) => origin).join(" ");
  };
  let peers = ["ams", "fra"];
  const keeper = new GroupKeeper({
    database: { control },
    peers: () => peers,
    maxKeptBytes: 3 * ENTRIES.length,
  });
  await add("ams", 3 * SKEW_MARGIN_MS);
  await add("fra", 3 * SKEW_MARGIN_MS);
  await add("fra", SKEW_MARGIN_MS / 2);
  assert.equal(await left(), "ams fra fra", "nobody has said anything");
  assert.equal(keeper.hasRoom, false);
  keeper.caughtUp("fra", timestamp(now - 4 * SKEW_MARGIN_MS), NOTHING);
  assert.equal(await left(), "ams fra fra", "fra may send older ones");
  keeper.caughtUp("fra", timestamp(now - SKEW_MARGIN_MS), NOTHING);
  assert.equal(await left(), "fra fra", "what fra itself has sent does not count for its own groups");
  assert.equal(keeper.hasRoom, true, "at once, not when it is looked the next time");
  keeper.caughtUp("ams", timestamp(now), NOTHING);
  assert.equal(await left(), "fra", "a group of the last minute stays: clocks may differ");
  await add("ams", 3 * SKEW_MARGIN_MS);
  peers = ["ams", "fra", "nyc"];
  assert.equal(await left(), "ams fra", "a new node may send anything");
  peers = ["ams"];
  assert.equal(await left(), "fra", "two nodes alone need nothing older than the skew");
  assert.equal(keeper.hasRoom, true);
  await query(
    `INSERT INTO mmlite.apply_group SELECT xid, origin, '-infinity', '-infinity', repeat('e', 1000)::bytea, true
         FROM (VALUES (txid_current(), 'nyc'), (1, 'sfo')) AS v (xid, origin)`,
  );
  assert.equal(await left(), "fra nyc", "what a repair noted stays until its rows are frozen");
  assert.equal(keeper.hasRoom, true);
});

Deno.test("below PostgreSQL 14 a node's groups stay until it has seen what all others did before them", async () => {
  await using database = await openDatabase(13);
  const { control, query } = database;
  const now = Date.now();
  const ago = (minutes: number) => now - minutes * SKEW_MARGIN_MS;
  const add = (minutes: number) =>
    query(
      "INSERT INTO mmlite.apply_group SELECT 1, name, at, at, '' FROM (VALUES ('fra'), ('nyc')) node (name), CAST($1 AS timestamptz) at",
      [new Date(ago(minutes)).toISOString()],
    );
  const left = async () => {
    await keeper.forget();
    const rows = await query("SELECT origin FROM mmlite.apply_group ORDER BY origin");
    return rows.map(({ origin }) => origin).join(" ");
  };
  const seen = (node: string, minutes: number) => ({
    node,
    position: ZERO_LSN,
    timestamp: timestamp(ago(minutes)),
  });
  let peers = ["fra", "nyc"];
  const keeper = new GroupKeeper({
    database: { control },
    peers: () => peers,
    unnamed: { self: "ams", maxGroups: 2 },
  });
  const all = NOTHING.with([seen("ams", 0), seen("fra", 0)]);
  await add(9);
  keeper.caughtUp("fra", timestamp(now), NOTHING);
  keeper.caughtUp("nyc", timestamp(now), all);
  assert.equal(await left(), "fra", "fra has not said what it has seen; nyc has");
  keeper.caughtUp("fra", timestamp(now), NOTHING.with([seen("ams", 0)]));
  assert.equal(await left(), "fra", "of nyc nothing is known");
  const behind = NOTHING.with([seen("ams", 0), seen("nyc", 9)]);
  keeper.caughtUp("fra", timestamp(now), behind);
  assert.equal(await left(), "fra", "fra has not heard from nyc since: it may change a row of its own");
  keeper.caughtUp("fra", timestamp(now), behind.with([seen("nyc", 7)]));
  assert.equal(await left(), "");

  assert.equal(keeper.seenBy("fra").lowerBound(["ams", "nyc"]), timestamp(ago(7)));
  assert.equal(keeper.seenBy("fra").lowerBound(["ams", "nyc", "lon"]), undefined);

  await add(5);
  await add(4);
  assert.equal(await left(), "fra fra");
  await add(3);
  assert.equal(await left(), "", "no more than so many are kept for that");
  await add(3);
  assert.equal(await left(), "fra");
  peers = ["nyc"];
  assert.equal(await left(), "", "nothing comes any more from a node that was removed");
  keeper.forgetNode("fra");
  assert.equal(keeper.seenBy("fra"), NOTHING);
});

Deno.test("what is kept of deleted rows goes once every node has passed it, and who holds it up is named", async () => {
  await using database = await openDatabase(18);
  const { control, query } = database;
  const now = Date.now();
  const bury = async (origin: string, agoMs: number, bytes = 16) => {
    const at = new Date(now - agoMs).toISOString();
    await query(
      "INSERT INTO mmlite.tombstone VALUES ($1, $2::timestamptz, decode(repeat('00', $3::integer), 'hex'))",
      [origin, at, String(bytes)],
    );
    await query(
      "INSERT INTO mmlite.truncation VALUES ('public', $1, $1, $2::timestamptz) ON CONFLICT DO NOTHING",
      [origin, at],
    );
  };
  const left = async (table: string) => {
    await keeper.forget();
    const rows = await query(`SELECT origin FROM mmlite.${table} ORDER BY origin`);
    return rows.map(({ origin }) => origin).join(" ");
  };
  const options = { database: { control }, peers: () => ["fra", "nyc"], maxTombstoneBytes: 200 };
  const keeper = new GroupKeeper(options);
  for (const origin of ["ams", "fra", "nyc"]) await bury(origin, 3 * SKEW_MARGIN_MS);
  assert.equal(await left("tombstone"), "ams fra nyc", "nobody has said anything");
  keeper.caughtUp("nyc", timestamp(now), NOTHING);
  assert.equal(await left("tombstone"), "ams nyc", "this node is ams: only of fra nothing older can come");
  assert.equal(await left("truncation"), "ams nyc");
  keeper.caughtUp("fra", timestamp(now - SKEW_MARGIN_MS), NOTHING);
  assert.equal(await left("tombstone"), "");
  assert.equal(await left("truncation"), "");

  await bury("ams", 0, 100);
  await keeper.forget();
  assert.deepEqual([keeper.tombstoneBytes, keeper.problems()], [100, []]);
  await bury("nyc", 0, 101);
  await keeper.forget();
  assert.match(keeper.problems()[0].message, /^Cannot forget deleted rows, .* from "fra"$/);
  assert.match(keeper.problems()[0].hint, /peers remove fra --force/);
  const restarted = new GroupKeeper(options);
  restarted.caughtUp("fra", timestamp(now), NOTHING);
  await restarted.forget();
  assert.match(restarted.problems()[0].message, /from "nyc"$/, "who has not said anything");

  for (let i = 0; i < 20; i++) await bury("ams", 0, 16);
  assert.equal(await left("tombstone"), "ams nyc", "what stays is put together: fewer lists to search");
});
