/**
 * `deno task converge [--seeds N] [--first SEED] [--apart | --updates-only] [--builtin] [--shrink] [--json FILE]
 * [--logs DIR] [--faketime FILE]`: a seeded, randomised test of convergence.
 *
 * Random transactions on few keys of three to five nodes of mixed releases, while links are delayed and cut, nodes
 * killed, servers crashed and clocks skewed (where libfaketime is found). Then everything is made whole, and all nodes
 * must hold the rows and versions that last-update-wins says, and every transaction once. What is done follows from
 * the seed, the time that it takes does not.
 *
 * `--apart` gives every node keys of its own; `--updates-only` begins with all rows, and nothing but updates comes.
 * `--builtin` runs the same on PostgreSQL's own subscriptions, for comparison. A bad seed prints how to run it again and
 * the history of keys that differ; `--shrink` looks for a smaller workload that ends badly too, and `--logs` keeps what
 * its nodes printed. The last line is one sentence; the exit code is 1 if anything differs.
 */
import { join } from "node:path";
import process from "node:process";
import { startBuiltinMesh } from "./converge/builtin_mesh.ts";
import type { Mesh } from "./converge/member.ts";
import { startMmliteMesh } from "./converge/mmlite_mesh.ts";
import { type Plan, type PlanOptions, planSeed } from "./converge/plan.ts";
import { figuresOf, historyLines, isBad, type SeedFigures, seedLine, sumTable } from "./converge/report.ts";
import { runSeed, type SeedOutcome } from "./converge/seed_run.ts";
import { openServerPool, type ServerPool } from "./converge/server_pool.ts";
import { shrink, sizeOf } from "./converge/shrink.ts";
import { findFaketime, removeFaketimeTraces } from "./converge/skew.ts";
import { readOptions, wholeNumber } from "./options.ts";

const DEFAULT_SEEDS = 20;

interface Options extends PlanOptions {
  readonly seeds: number;
  readonly first: number;
  readonly shrink: boolean;
  readonly json: string | undefined;
  readonly logs: string | undefined;
  readonly faketime: string | undefined;
}

function parseOptions(): Options {
  const values = readOptions(import.meta.url, {
    seeds: { type: "string", default: String(DEFAULT_SEEDS) },
    first: { type: "string", default: "1" },
    apart: { type: "boolean", default: false },
    "updates-only": { type: "boolean", default: false },
    builtin: { type: "boolean", default: false },
    shrink: { type: "boolean", default: false },
    json: { type: "string" },
    logs: { type: "string" },
    faketime: { type: "string" },
  });
  const { apart, builtin, shrink, json, logs } = values;
  const [seeds, first] = [wholeNumber(values.seeds, "--seeds"), wholeNumber(values.first, "--first")];
  const faketime = values.faketime ?? findFaketime();
  const updatesOnly = values["updates-only"];
  const skew = faketime !== undefined;
  return { seeds, first, apart, updatesOnly, builtin, skew, shrink, json, logs, faketime };
}

/** The command that runs one seed again. */
function replayCommand(seed: number, options: Options): string {
  const flags = [
    ...(options.apart ? ["--apart"] : []),
    ...(options.updatesOnly ? ["--updates-only"] : []),
    ...(options.builtin ? ["--builtin"] : []),
  ];
  return ["deno task converge --first", seed, "--seeds 1", ...flags].join(" ");
}

async function runPlan(pool: ServerPool, plan: Plan, options: Options): Promise<SeedOutcome> {
  await using mesh = options.builtin
    ? await startBuiltinMesh(pool, plan)
    : await startMmliteMesh(pool, plan, options.faketime);
  try {
    const outcome = await runSeed(mesh, plan, { mmlite: !options.builtin });
    if (isBad(figuresOf(outcome))) await keepLogs(mesh, plan, options);
    return outcome;
  } catch (thrown) {
    await keepLogs(mesh, plan, options);
    throw thrown;
  }
}

async function keepLogs(mesh: Mesh, { seed }: Plan, { logs }: Options): Promise<void> {
  if (logs === undefined) return;
  await Deno.mkdir(join(logs, String(seed)), { recursive: true });
  for (const [name, text] of await mesh.logs()) {
    await Deno.writeTextFile(join(logs, String(seed), `${name}.log`), text);
  }
}

/** Runs one seed and prints what came of it; undefined if it could not be run to its end. */
async function reportSeed(
  pool: ServerPool,
  seed: number,
  options: Options,
): Promise<SeedFigures | undefined> {
  try {
    const outcome = await runPlan(pool, planSeed(seed, options), options);
    const figures = figuresOf(outcome);
    console.log(seedLine(figures));
    if (isBad(figures) && !options.builtin) {
      for (const line of historyLines(outcome)) console.log(line);
      console.log(`  again: ${replayCommand(seed, options)}`);
      // One that does not go on is bad for that alone, and takes a minute each time.
      const canShrink = figures.rowsWrong + figures.versionsWrong > 0 && figures.standing.length === 0;
      if (options.shrink && canShrink) await reportShrunk(pool, outcome, options);
    }
    return figures;
  } catch (thrown) {
    console.log(`seed ${seed}: ${(thrown as Error).message}`);
    console.log(`  again: ${replayCommand(seed, options)}`);
    return undefined;
  }
}

async function reportShrunk(pool: ServerPool, first: SeedOutcome, options: Options): Promise<void> {
  const { plan, outcome } = await shrink({ plan: first.plan, outcome: first }, {
    run: (plan) => runPlan(pool, plan, options),
    keysOf: ({ verdict }) => verdict.differences.map(({ key }) => key),
  });
  console.log(`  shrunk from ${sizeOf(first.plan)} operations and faults to ${sizeOf(plan)}:`);
  for (const line of historyLines(outcome)) console.log(line);
}

function conclusion(all: readonly SeedFigures[], { seeds, builtin, apart }: Options): string {
  const bad = all.filter(isBad).length;
  const broken = seeds - all.length;
  const what = builtin ? "built-in subscriptions" : "mmlite";
  const how = apart ? "each node writing keys of its own" : "all nodes writing the same keys";
  const rest = broken > 0 ? `; ${broken} could not be run to their end` : "";
  if (bad + broken === 0) return `In all ${seeds} seeds all nodes ended equal (${what}, ${how}).`;
  return `In ${bad} of ${seeds} seeds nodes did not end as last-update-wins says (${what}, ${how})${rest}.`;
}

async function main(): Promise<number> {
  const options = parseOptions();
  if (!options.skew && !options.builtin) console.log("Clocks are not skewed: there is no libfaketime here.");
  await using stack = new AsyncDisposableStack();
  if (options.faketime !== undefined) stack.defer(removeFaketimeTraces);
  const pool = stack.use(openServerPool(options.faketime));
  const all: SeedFigures[] = [];
  for (let seed = options.first; seed < options.first + options.seeds; seed++) {
    const figures = await reportSeed(pool, seed, options);
    if (figures !== undefined) all.push(figures);
  }
  console.log("\n" + sumTable(all, options).join("\n") + "\n");
  if (options.json) await Deno.writeTextFile(options.json, JSON.stringify({ options, seeds: all }, null, 2));
  console.log(conclusion(all, options));
  return all.length === options.seeds && !all.some(isBad) ? 0 : 1;
}

process.exit(await main());
