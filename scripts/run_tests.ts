/**
 * `deno task test`: the checks, the unit tests, then the tests on real PostgreSQL servers and whole clusters, then those
 * with containers.
 *
 * Whole nodes are what MMLITE_PROGRAM names, such as a compiled executable; then a part of their tests runs the sources
 * as well.
 *
 * Every stage runs, so that one report tells everything. It ends with the stages that failed; the last line is
 * `N passed, N failed, N skipped`, and the exit code is 1 if a stage failed or ran no test.
 */
import process from "node:process";
import { runContainers } from "./containers.ts";
import { readOptions } from "./options.ts";
import { formatOutcome, type Outcome, runDeno, runTests } from "./test_outcome.ts";

/** Tests that run every part of the program: what they find right on the sources, the others do too. */
const TESTS_OF_SOURCES = ["cli", "mmlite", "kill", "certificate", "join"].map((name) =>
  `tests/${name}_test.ts`
);

type Stage = readonly [name: string, run: () => Promise<Outcome>];

const SOURCES: Stage = [
  "whole clusters of `deno run mod.ts`",
  () => runTests(["--no-check", ...TESTS_OF_SOURCES], { env: { MMLITE_PROGRAM: "" } }),
];

async function runCheck(): Promise<Outcome> {
  const { success } = await runDeno(["task", "check"]);
  return { passed: 0, failed: success ? 0 : 1, skipped: 0 };
}

async function main(): Promise<number> {
  readOptions(import.meta.url, {});
  const stages: Stage[] = [
    ["format, lint, types, layers", runCheck],
    ["unit tests", () => runTests(["--no-check", "src", "scripts"])],
    ["tests on PostgreSQL and whole clusters", () => runTests(["--no-check", "tests"])],
    ...(process.env.MMLITE_PROGRAM ? [SOURCES] : []),
    ["tests with containers", runContainers],
  ];
  const sum = { passed: 0, failed: 0, skipped: 0 };
  const failures: string[] = [];
  for (const [name, run] of stages) {
    console.log(`== ${name}`);
    const outcome = await run();
    for (const key of ["passed", "failed", "skipped"] as const) sum[key] += outcome[key];
    if (outcome.failed) failures.push(`== ${name}: ${outcome.failed} failed`);
  }
  // At the end, where whoever sees the last lines only sees them.
  for (const failure of failures) console.log(failure);
  console.log(formatOutcome(sum));
  return sum.failed ? 1 : 0;
}

if (import.meta.main) process.exit(await main());
