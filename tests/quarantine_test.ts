/** Transactions that cannot be applied: ten kinds, what is said of them, and how they are set aside and applied. */
import { openPoisonBed, POISONS, tryPoison } from "./support/poison.ts";
import { startPostgres } from "./support/postgres.ts";

Deno.test("ten kinds of poison block or heal, are kept whole when skipped, and applied when retried", async (t) => {
  await using servers = new AsyncDisposableStack();
  const sender = servers.use(await startPostgres({ major: 16 }));
  const receiver = servers.use(await startPostgres({ major: 18 }));
  await using bed = await openPoisonBed("poison", { sender, receiver });
  const only = Deno.env.get("ONLY");
  for (const poison of POISONS.filter(({ kind }) => !only || only.split(",").includes(kind))) {
    await t.step(poison.kind, async () => {
      const outcome = await tryPoison(bed, poison);
      console.log([outcome.kind, outcome.status, outcome.skip, outcome.retry].join(" | "));
    });
  }
});
