/** Nodes whose database is not the one that it was: a clone, a restored backup, a standby that took over; and what heals. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { type ClusterMember, startCluster } from "./support/cluster.ts";
import {
  HAZARD_SCHEMA,
  type HazardNode,
  LedgerWriter,
  linkOnce,
  requireNothingDue,
  requireSame,
  run,
  runHint,
  writeSome,
} from "./support/hazard_bed.ts";
import { connectAll, startMmlite } from "./support/mmlite.ts";
import { eventually } from "./support/poll.ts";
import { startPostgres } from "./support/postgres.ts";
import { copyCluster } from "./support/postgres_binaries.ts";
import { giveToServer, makeScratch, removeScratch } from "./support/scratch.ts";

/** Stops a node and its server, has something done, and starts both again. */
async function whileDown({ server, node, client }: ClusterMember, work: () => Promise<void>): Promise<void> {
  await client.end();
  await node.stop();
  await server.stop();
  await work();
  await server.start();
  await node.start();
}

/** Both nodes give each other up, as their hints say; nothing else of them is run. */
async function renewed(nodes: readonly HazardNode[], hint: string): Promise<void> {
  const commands = await runHint(nodes, hint.split("Then make the rows equal")[0].split("standby: ").at(-1)!);
  assert.equal(commands.length, 2, commands.join("; "));
}

/** Runs a repair until nothing is left to do. */
async function repaired(at: HazardNode, ...args: string[]): Promise<void> {
  await eventually(`${at.node.name}: mmlite verify ${args.join(" ")}`, async () => {
    const { code, stdout, stderr } = await at.node.cli("verify", "--repair", ...args);
    if (code === 0) return true;
    throw new Error(`${code}: ${stdout} ${stderr}`);
  }, { timeoutMs: 60_000 });
}

Deno.test("a clone, a restored backup and a standby that took over are told, and healed under writes", async (t) => {
  await using first = await startPostgres({ major: 18 });
  await using second = await startPostgres({ major: 12 });
  await using third = await startPostgres({ major: 16 });
  await using cluster = await startCluster("regressed", [
    { server: first, name: "ams", schema: HAZARD_SCHEMA },
    { server: second, name: "fra", schema: HAZARD_SCHEMA },
    { server: third, name: "kla", schema: HAZARD_SCHEMA },
  ]);
  const [ams, fra, kla] = cluster.members;
  const all = [ams, fra, kla];
  const scratch = await makeScratch("backup");
  const backup = join(scratch, "backup");
  const writers: LedgerWriter[] = [];
  for (const member of all) writers.push(await writeSome(member, `${member.node.name} before`));
  await requireSame(all, writers);
  await whileDown(kla, () => copyCluster(third.dataDir, backup));
  await linkOnce(kla.node, "ams", "streaming");

  await t.step(
    "a clone beside the original starts no node; emptied of it, it becomes one of its own",
    async () => {
      await using clone = await startPostgres({ major: 16, cloneOf: backup });
      await using same = await startMmlite({
        name: "kla",
        postgres: clone.url("regressed"),
        awaitReady: false,
      });
      assert.equal(await same.exit(), 78);
      assert.match(await same.log(), /its database has been a node before, and state file/);
      assert.match(await same.log(), /If the database is a copy or a restored backup/);
      for (const peer of ["ams", "fra"]) await linkOnce(kla.node, peer, "streaming");
      await clone.sql("regressed", "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots");
      await clone.sql("regressed", "DROP PUBLICATION mmlite, mmlite_inserts; DROP SCHEMA mmlite CASCADE");
      await clone.sql(
        "regressed",
        "SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin WHERE roname LIKE 'mmlite%'",
      );
      await using twin = await startMmlite({ name: "twin", postgres: clone.url("regressed") });
      const member = { server: clone, database: "regressed", node: twin };
      writers.push(await writeSome(ams, "ams since the backup"));
      await connectAll([ams.node, fra.node, kla.node, twin]);
      await repaired(member, "--source", "ams");
      writers.push(await writeSome(member, "twin"));
      await requireSame([...all, member], writers);
      for (const one of all) await run(one, "peers", "remove", "twin", "--force");
    },
  );

  await t.step(
    "a backup that was set back in place: its node is behind its own acks, and its peers ahead",
    async () => {
      const healthy = [new LedgerWriter(ams, "ams meanwhile"), new LedgerWriter(fra, "fra meanwhile")];
      await kla.server.sql("regressed", "DELETE FROM item WHERE who = 'kla before' AND id % 2 = 0");
      const before = writers.find(({ who }) => who === "kla before")!.rows;
      for (const id of [...before.keys()]) if (id % 2 === 0) before.delete(id);
      await kla.server.sql("regressed", "INSERT INTO item VALUES (-1, 'delivered', 'x')");
      for (const other of [ams, fra]) {
        await eventually(
          "the last of it to arrive",
          async () => (await other.server.sql("regressed", "SELECT FROM item WHERE id = -1")).length === 1,
        );
      }
      await kla.node.stop();
      await third.stop();
      await Deno.remove(third.dataDir, { recursive: true });
      await copyCluster(backup, third.dataDir);
      await third.start();
      await kla.node.start();

      const { last_error: toKla } = await linkOnce(ams.node, "kla", "fenced");
      assert.match(toKla!.message, /behind its own ack .*: its database was restored or rolled back/);
      const { last_error: fromKla } = await linkOnce(kla.node, "ams", "fenced");
      assert.match(fromKla!.message, /this database was restored or rolled back/);
      const { last_error: toFra } = await linkOnce(fra.node, "kla", "fenced");
      assert.match((await ams.node.cli("status")).stdout, /peers renew kla/);

      await renewed(all, toKla!.hint);
      await renewed(all, toFra!.hint);
      for (const one of [ams, fra]) {
        await linkOnce(one.node, "kla", "streaming");
        await linkOnce(kla.node, one.node.name, "streaming");
      }
      await repaired(kla, "--source", "ams");
      await repaired(kla, "--source", "fra");
      for (const writer of healthy) {
        await writer.stop();
      }
      writers.push(...healthy);
      await requireSame(all, writers);
      await requireNothingDue(all);
      for (const { server } of all) {
        assert.equal((await server.sql("regressed", "SELECT FROM item WHERE id = -1")).length, 1);
      }
    },
  );

  await t.step("a standby that took over without the last transactions", async () => {
    const base = join(scratch, "standby");
    await kla.node.stop();
    await third.stop();
    await copyCluster(third.dataDir, base);
    // As pg_basebackup leaves it.
    for await (const { name } of Deno.readDir(join(base, "pg_replslot"))) {
      await Deno.remove(join(base, "pg_replslot", name), { recursive: true });
    }
    await Deno.writeTextFile(join(base, "standby.signal"), "");
    await giveToServer(join(base, "standby.signal"));
    await third.start();
    await kla.node.start();
    await using standby = await startPostgres({
      major: 16,
      cloneOf: base,
      settings: { primary_conninfo: `host=${third.host} port=${third.port} user=postgres` },
    });
    const standing = await writeSome(kla, "kla on both");
    await eventually("the standby to have it", async () => {
      const [{ lsn }] = await third.sql("postgres", "SELECT pg_current_wal_lsn()::text AS lsn");
      const [{ has }] = await standby.sql("postgres", `SELECT pg_last_wal_replay_lsn() >= '${lsn}' AS has`);
      return has;
    });
    await standby.sql("postgres", "ALTER SYSTEM SET primary_conninfo = ''");
    await standby.sql("postgres", "SELECT pg_reload_conf()");
    await eventually(
      "the standby to be cut off",
      async () =>
        (await third.sql(
          "postgres",
          "SELECT FROM pg_stat_replication WHERE application_name = 'walreceiver'",
        )).length === 0,
    );
    const last = await writeSome(kla, "kla on the others only");
    await third.sql("regressed", "DELETE FROM item WHERE who = 'kla on both' AND id % 2 = 0");
    for (const id of [...standing.rows.keys()]) if (id % 2 === 0) standing.rows.delete(id);
    await third.sql("regressed", "INSERT INTO item VALUES (-2, 'delivered', 'x')");
    for (const other of [ams, fra]) {
      await eventually(
        "the last of it to arrive",
        async () => (await other.server.sql("regressed", "SELECT FROM item WHERE id = -2")).length === 1,
      );
    }
    await Promise.all([third.kill(), kla.node.kill()]);
    const healthy = [new LedgerWriter(ams, "ams at failover"), new LedgerWriter(fra, "fra at failover")];

    await standby.sql("postgres", "SELECT pg_promote()");
    await using node = await startMmlite({
      name: "kla",
      postgres: standby.url("regressed"),
      extraArgs: ["--state", kla.node.stateDir, "--listen", new URL(kla.node.peerUrl).host],
    });
    const taken = { server: standby, database: "regressed", node };
    const { last_error: lost } = await linkOnce(node, "ams", "blocked");
    assert.equal(lost?.kind, "slot_lost");
    const { last_error: lostToo } = await linkOnce(node, "fra", "blocked");
    await renewed([ams, taken], lost!.hint);
    await renewed([fra, taken], lostToo!.hint);
    for (const one of [ams, fra]) {
      await linkOnce(one.node, "kla", "streaming");
      await linkOnce(node, one.node.name, "streaming");
    }
    await repaired(ams, "--peer", "kla", "--newest");
    await repaired(fra, "--peer", "kla", "--newest");
    for (const writer of healthy) await writer.stop();
    writers.push(standing, last, ...healthy);
    await requireSame([ams, fra, taken], writers);
    await requireNothingDue([ams, fra, taken]);
  });
  await removeScratch(scratch);
});
