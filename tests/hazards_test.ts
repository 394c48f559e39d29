/** Slots that are lost, or given up for the WAL that they keep: what is said, what is left, and the commands that heal. */
import assert from "node:assert/strict";
import { startCluster } from "./support/cluster.ts";
import {
  HAZARD_SCHEMA,
  LedgerWriter,
  linkOnce,
  requireNothingDue,
  requireSame,
  runHint,
  writeSome,
} from "./support/hazard_bed.ts";
import { eventually } from "./support/poll.ts";
import { startPostgres } from "./support/postgres.ts";

Deno.test("a lost slot blocks its link, and the remedy makes the nodes equal under writes", async (t) => {
  await using first = await startPostgres({ major: 18 });
  await using second = await startPostgres({ major: 13 });
  await using cluster = await startCluster("hazards", [
    {
      ...{ server: first, name: "ams", schema: HAZARD_SCHEMA },
      extraArgs: ["--warn-slot-wal", "20MB", "--max-slot-wal", "72MB"],
    },
    { server: second, name: "fra", schema: HAZARD_SCHEMA },
  ]);
  const [ams, fra] = cluster.members;
  const writers: LedgerWriter[] = [];
  writers.push(await writeSome(ams, "ams before"), await writeSome(fra, "fra before"));
  await requireSame([ams, fra], writers);

  /** Loses the slot of ams for fra while both are written to; then what ams says, and the remedy. */
  const heal = async (lose: () => Promise<unknown>) => {
    await fra.node.stop();
    const atAms = new LedgerWriter(ams, `ams ${writers.length}`);
    const atFra = new LedgerWriter(fra, `fra ${writers.length}`);
    await eventually("rows that fra lacks", () => atAms.rows.size > 20 && atFra.rows.size > 20);
    // What both have, each deletes or changes a part of; the newer one wins.
    await ams.client.query("DELETE FROM item WHERE who LIKE 'ams %' AND who <> $1 AND id % 3 = 0", [
      atAms.who,
    ]);
    await ams.client.query("UPDATE item SET v = 'gap' WHERE who LIKE 'fra %' AND id % 3 = 1");
    for (const { who, rows } of writers) {
      for (const id of [...rows.keys()]) {
        if (who.startsWith("ams") && id % 3 === 0) rows.delete(id);
        if (who.startsWith("fra") && id % 3 === 1) rows.set(id, "gap");
      }
    }
    await lose();
    await fra.node.start();
    const { last_error: error } = await linkOnce(ams.node, "fra", "blocked");
    assert.equal(error?.kind, "slot_lost");
    const commands = await runHint([ams, fra], error!.hint.split("If this server")[0]);
    assert.deepEqual(commands, [
      "ams: peers renew fra --only sent",
      "fra: peers renew ams --only received",
      "fra: verify --repair --source ams",
    ]);
    await atAms.stop();
    await atFra.stop();
    writers.push(atAms, atFra);
    await requireSame([ams, fra], writers);
    await requireNothingDue([ams, fra]);
    return error!;
  };

  await t.step(
    "a slot that was dropped by hand",
    async () => void await heal(() => first.sql("postgres", "SELECT pg_drop_replication_slot('mmlite_fra')")),
  );

  await t.step("a slot that PostgreSQL has invalidated", async () =>
    void await heal(async () => {
      await first.sql("postgres", "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'");
      await first.sql("postgres", "SELECT pg_reload_conf()");
      await eventually("the slot to be lost", async () => {
        await first.sql("postgres", "SELECT pg_switch_wal()");
        await first.sql(
          "hazards",
          "INSERT INTO other SELECT max(id) + 1 FROM (SELECT id FROM other UNION SELECT 0) o",
        );
        await first.sql("postgres", "CHECKPOINT");
        const [{ wal_status }] = await first.sql(
          "postgres",
          "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'mmlite_fra'",
        );
        return wal_status === "lost";
      });
      await first.sql("postgres", "ALTER SYSTEM RESET max_slot_wal_keep_size");
      await first.sql("postgres", "SELECT pg_reload_conf()");
    }));

  await t.step(
    "a slot that kept more WAL than it may: warned first, then given up, and the WAL goes",
    async () => {
      const slot = () => first.sql("postgres", "SELECT restart_lsn FROM pg_replication_slots");
      const segments = async () => (await first.sql("postgres", "SELECT FROM pg_ls_waldir()")).length;
      const writeSegments = async (count: number) => {
        for (let i = 0; i < count; i++) {
          await first.sql("hazards", "SELECT pg_logical_emit_message(false, 'filler', 'x')");
          await first.sql("postgres", "SELECT pg_switch_wal()");
        }
      };
      const problem = async () => {
        const { json: { problems } } = await ams.node.api("GET", "/v1/status");
        return problems.find(({ message }: { message: string }) =>
          /WAL is kept for peer "fra"/.test(message)
        );
      };
      let kept = 0;
      const { message } = await heal(async () => {
        await writeSegments(2);
        const warning = await eventually("a warning", problem);
        assert.match(warning.message, /nothing has gone to it for .*limits\.warn_slot_wal is 20 MB/);
        assert.match(await ams.node.log(), /WAL is kept for peer/);
        assert.equal((await slot()).length, 1);
        await writeSegments(4);
        kept = await segments();
        await eventually("the slot to go", async () => (await slot()).length === 0);
        const metrics = (await ams.node.api("GET", "/metrics")).json;
        assert.match(metrics, /mmlite_peer_evicted\{peer="fra"\} 1/);
        assert.match(
          await ams.node.log(),
          /Peer "?fra"? is given up.*limits\.max_slot_wal is 72 MB.*not delivered/,
        );
        assert.equal(await problem(), undefined);
        await first.sql("postgres", "CHECKPOINT");
        // What is left is kept for the next segments by name only, or the checkpoint needs it.
        const [{ oldest }] = await first.sql(
          "postgres",
          `SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), redo_lsn)::int AS oldest FROM pg_control_checkpoint()`,
        );
        assert.ok(oldest < 16 * 1024 * 1024, String(oldest));
        // The one that was given up stays so over a restart.
        await ams.node.restart();
        assert.equal((await slot()).length, 0);
      });
      assert.match(message, /given up at .*limits\.max_slot_wal/);
      assert.ok(kept > 5, String(kept));
    },
  );
});
