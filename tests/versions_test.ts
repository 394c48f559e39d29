/** Every release of PostgreSQL beside the newest: every kind of change goes both ways, once, and comes back never. */
import assert from "node:assert/strict";
import { arrived, type Cluster, type ClusterMember, startCluster } from "./support/cluster.ts";
import { copyOut } from "./support/copy_out.ts";
import { eventually } from "./support/poll.ts";
import { POSTGRES_MAJORS, startPostgres } from "./support/postgres.ts";
import { type End, otherEnd, pairSchema, pairSteps } from "./support/version_scenario.ts";

/** How soon a slot must have left WAL of another database behind, milliseconds. */
const SLOT_ADVANCE_TIMEOUT_MS = 15_000;
/** Columns to compare, of tables whose columns are not the same at both ends or not in the same order. */
const COLUMNS: Readonly<Record<string, string>> = {
  wide_newer: "id, v",
  wide_older: "id, v",
  computed: "id, v, w",
};

/** One end of a pair, and how many transactions it has written that must be sent. */
interface PairEnd {
  readonly end: End;
  readonly member: ClusterMember;
  readonly other: ClusterMember;
  written: number;
}

function endsOf({ members: [newer, older] }: Cluster): PairEnd[] {
  return [
    { end: "newer", member: newer, other: older, written: 0 },
    { end: "older", member: older, other: newer, written: 0 },
  ];
}

async function write(pair: PairEnd, older: number): Promise<void> {
  for (const { transactions, unsent = [] } of pairSteps(pair.end, older)) {
    for (const sql of transactions) await pair.member.client.query(sql);
    for (const sql of unsent) await pair.member.client.query(sql);
    pair.written += transactions.length;
  }
  await arrived(pair.member, pair.other);
  pair.written++;
}

/** The rows of every table that the application has, partitions left to their roots. */
async function rowsOf({ client }: ClusterMember): Promise<Record<string, string>> {
  const { rows } = await client.query(
    "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY 1",
  );
  const copied: Record<string, string> = {};
  for (const { relname } of rows) {
    const sql = `SELECT t::text FROM (SELECT ${COLUMNS[relname] ?? "*"} FROM ${relname}) t ORDER BY 1`;
    copied[relname] = (await copyOut(client, `COPY (${sql}) TO STDOUT`)).toString();
  }
  return copied;
}

async function assertConverged({ end, member, other }: PairEnd): Promise<void> {
  const rows = await rowsOf(member);
  assert.deepEqual(await rowsOf(other), rows, `${end} to ${otherEnd(end)}`);
  const { rows: [{ defaulted }] } = await other.client.query(
    `SELECT count(*)::int AS defaulted FROM wide_${otherEnd(end)} WHERE note = 'local'`,
  );
  assert.equal(defaulted, 3, "rows with the default of a column that only the receiver has");
}

async function assertSentOnce({ member, other, written }: PairEnd): Promise<void> {
  const { json } = await member.node.api("GET", `/v1/peers/${other.node.name}`);
  assert.equal(json.sent_transactions, written, `sent by ${member.node.name}`);
  const { json: metrics } = await member.node.api("GET", "/metrics");
  const [, local] = /^mmlite_decoded_transactions_total\{kind="local"\} (\d+)$/m.exec(metrics)!;
  assert.equal(Number(local), written, `decoded by ${member.node.name}`);
  const { json: status } = await member.node.api("GET", "/v1/status");
  assert.deepEqual(status.conflicts.since_start, {}, `conflicts on ${member.node.name}`);
}

async function assertSlotAdvances({ member: { server }, other }: PairEnd): Promise<void> {
  await server.sql(
    "postgres",
    "DROP TABLE IF EXISTS noise; CREATE TABLE noise AS SELECT repeat('x', 500) FROM generate_series(1, 8000)",
  );
  // The insert position would count the header of a page that is not begun yet, which nothing is sent of.
  const [{ lsn }] = await server.sql("postgres", "SELECT pg_current_wal_flush_lsn()::text AS lsn");
  const look = async () => {
    const [slot] = await server.sql(
      "postgres",
      "SELECT confirmed_flush_lsn >= $1::pg_lsn AS passed, confirmed_flush_lsn::text AS lsn FROM pg_replication_slots WHERE slot_name = $2",
      [lsn, `mmlite_${other.node.name}`],
    );
    if (!slot.passed) throw new Error(`${slot.lsn}, before ${lsn}`);
    return true;
  };
  await eventually(`the idle slot on ${server.major} to advance`, look, {
    timeoutMs: SLOT_ADVANCE_TIMEOUT_MS,
  });
}

Deno.test("every release and 18 replicate every kind of change to each other, once", async (t) => {
  await using hub = await startPostgres({ major: 18 });
  for (const older of POSTGRES_MAJORS) {
    await t.step(`PostgreSQL ${older} with 18`, async () => {
      await using server = await startPostgres({ major: older });
      await using cluster = await startCluster(`pair_${older}`, [
        { server: hub, name: `hub_${older}`, schema: pairSchema("newer", older) },
        { server, name: `end_${older}`, schema: pairSchema("older", older) },
      ]);
      const ends = endsOf(cluster);
      for (const pair of ends) {
        await write(pair, older);
        await assertConverged(pair);
      }
      const empty = Object.entries(await rowsOf(ends[0].member)).filter(([, text]) => text === "");
      assert.deepEqual(empty, [["cleared_too", ""]]);
      for (const pair of ends) await assertSentOnce(pair);
      for (const pair of ends) await assertSlotAdvances(pair);
      for (const pair of ends) await assertSentOnce(pair);
    });
  }
});
