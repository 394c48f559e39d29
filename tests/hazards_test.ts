/** Slots that are lost, or given up for the WAL that they keep: what is said, what is left, and the commands that heal. */
import assert from "node:assert/strict";
import { startCluster } from "./support/cluster.ts";
import {
  HAZARD_SCHEMA,
  LedgerWriter,
  linkOnce,
  renewBoth,
  requireSame,
  run,
  writeSome,
} from "./support/hazard_bed.ts";
import { eventually } from "./support/poll.ts";
import { startPostgres } from "./support/postgres.ts";

Deno.test("a lost slot blocks its link, and the remedy makes the nodes equal under writes", async (t) => {
  await using first = await startPostgres({ major: 18 });
  await using second = await startPostgres({ major: 13 });
  await using cluster = await startCluster("hazards", [
    { server: first, name: "ams", schema: HAZARD_SCHEMA },
    { server: second, name: "fra", schema: HAZARD_SCHEMA },
  ]);
  const [ams, fra] = cluster.members;
  const writers: LedgerWriter[] = [];
  writers.push(await writeSome(ams, "ams before"), await writeSome(fra, "fra before"));
  await requireSame([ams, fra], writers);

  /** Loses the slot of ams for fra while both are written to; then what ams says, and the remedy. */
  const heal = async (lose: () => Promise<void>) => {
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
    assert.match(error!.hint, /mmlite peers renew/);
    await renewBoth(ams, fra);
    const { json } = await ams.node.api("GET", "/v1/status");
    assert.ok(
      json.problems.some(({ message }: { message: string }) =>
        /differ from those of peer "fra"/.test(message)
      ),
    );
    await run(ams, "verify", "--peer", "fra", "--repair", "--newest");
    await atAms.stop();
    await atFra.stop();
    writers.push(atAms, atFra);
    await requireSame([ams, fra], writers);
    await run(fra, "verify", "--peer", "ams");
    for (const { node } of [ams, fra]) {
      const { json: { problems } } = await node.api("GET", "/v1/status");
      assert.deepEqual(
        problems.filter(({ message }: { message: string }) => /differ/.test(message)),
        [],
        node.name,
      );
    }
  };

  await t.step(
    "a slot that was dropped by hand",
    () => heal(() => first.sql("postgres", "SELECT pg_drop_replication_slot('mmlite_fra')").then(() => {})),
  );

  await t.step("a slot that PostgreSQL has invalidated", () =>
    heal(async () => {
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
});
