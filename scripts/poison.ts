/**
 * `deno task poison`: ten kinds of transactions that cannot be applied, each tried on two nodes; prints what status
 * said of each, what skipping it kept, and what trying again did. What must hold is checked on the way.
 *
 * The last line is one sentence; the exit code is 1 if it is bad news.
 */
import process from "node:process";
import { openPoisonBed, type PoisonOutcome, POISONS, tryPoison } from "../tests/support/poison.ts";
import { startPostgres } from "../tests/support/postgres.ts";
import { readOptions } from "./options.ts";

async function main(): Promise<number> {
  readOptions(import.meta.url, {});
  await using servers = new AsyncDisposableStack();
  const sender = servers.use(await startPostgres({ major: 16 }));
  const receiver = servers.use(await startPostgres({ major: 18 }));
  await using bed = await openPoisonBed("poison", { sender, receiver });
  let held = 0;
  for (const poison of POISONS) {
    try {
      print(await tryPoison(bed, poison));
      held++;
    } catch (thrown) {
      console.log(`${poison.kind}: ${(thrown as Error).message.replaceAll(/\s+/g, " ")}`);
    }
  }
  console.log(`${held} of ${POISONS.length} kinds of poison did what they should`);
  return held === POISONS.length ? 0 : 1;
}

function print({ kind, status, skip, retry }: PoisonOutcome): void {
  console.log(`${kind} | status: ${status} | skip: ${skip} | retry: ${retry}`);
}

process.exit(await main());
