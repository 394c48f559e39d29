/**
 * `deno task grow [--rounds N] [--first SEED] [--quiet-kills] [--logs DIR]`: a mesh of mixed PostgreSQL releases grows
 * from two nodes to five and shrinks back to two while clients write on every node that is there.
 *
 * Each new node gets its rows by a copy, asked for as a job or by `mmlite join`; transactions are open on the donor
 * and on a third node when a join begins, and processes are killed while rows are copied. With five nodes and in the
 * end all must hold the same rows, in the same versions as far as nodes keep them, and every transaction once. What
 * is done follows from the seed, the time that it takes does not.
 *
 * A line for each kill unless `--quiet-kills`, and one for each round; a bad round prints what differs and how to run it
 * again, and `--logs` keeps what its nodes printed. The last line is one sentence; the exit code is 1 if it is bad news.
 */
import { join } from "node:path";
import process from "node:process";
import { GrowMesh } from "./grow/mesh.ts";
import { planRound } from "./grow/plan.ts";
import { differenceLines, isBad, roundLine, sumTable } from "./grow/report.ts";
import { type RoundOutcome, runRound } from "./grow/round.ts";
import { readOptions, wholeNumber } from "./options.ts";

const DEFAULT_ROUNDS = 20;

interface Options {
  readonly rounds: number;
  readonly first: number;
  readonly quietKills: boolean;
  readonly logs: string | undefined;
}

function parseOptions(): Options {
  const { rounds, first, logs, "quiet-kills": quietKills } = readOptions(import.meta.url, {
    rounds: { type: "string", default: String(DEFAULT_ROUNDS) },
    first: { type: "string", default: "1" },
    "quiet-kills": { type: "boolean", default: false },
    logs: { type: "string" },
  });
  return { rounds: wholeNumber(rounds, "--rounds"), first: wholeNumber(first, "--first"), quietKills, logs };
}

/** Runs one round and prints what came of it; undefined if it could not be run to its end. */
async function reportRound(seed: number, options: Options): Promise<RoundOutcome | undefined> {
  const plan = planRound(seed);
  await using mesh = new GrowMesh(plan);
  const again = `  again: deno task grow --first ${seed} --rounds 1`;
  try {
    const outcome = await runRound(plan, mesh, options.quietKills ? () => {} : console.log);
    console.log(roundLine(outcome));
    if (!isBad(outcome)) return outcome;
    for (const line of differenceLines(outcome)) console.log(line);
    console.log(again);
    await keepLogs(mesh, seed, options);
    return outcome;
  } catch (thrown) {
    console.log(`round ${seed}: ${(thrown as Error).message}`);
    console.log(again);
    await keepLogs(mesh, seed, options);
    return undefined;
  }
}

async function keepLogs(mesh: GrowMesh, seed: number, { logs }: Options): Promise<void> {
  if (logs === undefined) return;
  await Deno.mkdir(join(logs, String(seed)), { recursive: true });
  for (const [name, text] of await mesh.logs()) {
    await Deno.writeTextFile(join(logs, String(seed), `${name}.log`), text);
  }
}

function conclusion(outcomes: readonly RoundOutcome[], { rounds }: Options): string {
  const bad = outcomes.filter(isBad).length;
  const broken = rounds - outcomes.length;
  if (bad + broken === 0) return `In all ${rounds} rounds every node that joined ended equal to the others.`;
  const rest = broken > 0 ? `, and ${broken} could not be run to their end` : "";
  return `In ${bad} of ${rounds} rounds nodes did not end equal${rest}.`;
}

async function main(): Promise<number> {
  const options = parseOptions();
  const outcomes: RoundOutcome[] = [];
  for (let seed = options.first; seed < options.first + options.rounds; seed++) {
    const outcome = await reportRound(seed, options);
    if (outcome !== undefined) outcomes.push(outcome);
  }
  console.log("\n" + sumTable(outcomes).join("\n") + "\n");
  console.log(conclusion(outcomes, options));
  return outcomes.length === options.rounds && !outcomes.some(isBad) ? 0 : 1;
}

process.exit(await main());
