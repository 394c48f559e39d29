/**
 * Nodes and servers killed under load. `deno task faults` does the same for longer.
 */
import assert from "node:assert/strict";
import { seededIntegers } from "./support/append_load.ts";
import { crashReceiver, killSoon, startFaultPair, underLoad } from "./support/fault_pair.ts";

const KILLS = 5;
const SEED = 2;

Deno.test("a receiver or a sender killed at any moment loses nothing and doubles nothing", async () => {
  await using pair = await startFaultPair();
  const random = seededIntegers(SEED);
  const { rows } = await underLoad(pair, { random }, async () => {
    for (let kill = 0; kill < KILLS; kill++) {
      await killSoon(pair.b, random);
      await killSoon(pair.a, random);
    }
    await Promise.all([pair.a.mmlite.start(), pair.b.mmlite.start()]);
  });
  assert(rows > 1_000, `only ${rows} rows were written`);
});

Deno.test("a crash of either server takes nothing that was acked, and what it takes comes again", async () => {
  // The later asynchronous commits reach the disk, the more a crash takes.
  await using pair = await startFaultPair({ majors: [12, 18], settings: { wal_writer_delay: "2s" } });
  const random = seededIntegers(SEED);
  await underLoad(pair, { random, writers: [pair.a] }, async () => {
    for (let crash = 0; crash < 2; crash++) {
      await new Promise((wake) => setTimeout(wake, random(500, 2_500)));
      await crashReceiver(pair.b, pair.a);
      await new Promise((wake) => setTimeout(wake, random(500, 2_500)));
      await pair.a.server.kill();
      await pair.a.server.start();
    }
  });
});
